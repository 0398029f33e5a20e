"""Which pairs are worth asking about: the query samplers of B-Pref (Lee et al. 2021), each member for itself.

A session draws candidates at random and asks about some of them, best first:

    uniform                the candidates as they come
    disagreement           the largest standard deviation over an ensemble of P(second preferred)
    entropy                the largest mean over the ensemble of the entropy of P(second preferred), in nats
    k_centre               greedy k-centre: again and again the pair farthest from all that were asked or chosen
    k_centre_disagreement  k_centre among the half of the candidates with the largest disagreement
    k_centre_entropy       k_centre among the half with the largest entropy

Choices are in order, so that the first n of them are the choice of n.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ..errors import InputError

Query = Literal["uniform", "disagreement", "entropy", "k_centre", "k_centre_disagreement", "k_centre_entropy"]


def candidates(query: Query, count: int, factor: int = 10) -> int:
    """How many candidates a session of ``count`` questions draws: ``factor`` times as many, where it has a choice."""
    return count if query == "uniform" else factor * count


def disagreement(p2: Tensor) -> Tensor:
    """[P, E, n] P(second preferred) by each copy of an ensemble -> [P, n] standard deviation over the copies."""
    return p2.std(1, correction=0)


def entropy(p2: Tensor) -> Tensor:
    """[P, E, n] P(second preferred) by each copy -> [P, n] mean entropy in nats, at most log 2."""
    uncertain: Tensor = torch.special.entr(p2) + torch.special.entr(1.0 - p2)
    return uncertain.mean(1)


def largest(score: Tensor, count: int) -> Tensor:
    """[P, n] -> [P, count] int64 the places of the largest scores, largest first; of equal ones the earlier first."""
    return score.argsort(dim=-1, descending=True, stable=True)[:, :count]


def k_centre(points: Tensor, asked: Tensor, known: Tensor, count: int) -> Tensor:
    """Greedy k-centre: each choice is the point whose nearest centre is farthest away, and is then a centre itself.

    Args:
        points: [P, n, D] candidates, with Euclidean distances between them.
        asked: [P, m, D] the first centres, padded.
        known: [P, m] bool, which of ``asked`` are centres. Without any, the first point is chosen first.
        count: how many to choose, at most n.

    Returns:
        [P, count] int64, in the order of choice.
    """
    gap = points.new_full(points.shape[:2], torch.inf)
    if asked.shape[1]:
        far = _distance(points, asked).masked_fill(~known[:, None], torch.inf)
        gap = far.amin(-1)
    chosen = []
    for _ in range(count):
        best = largest(gap, 1)  # [P, 1]
        chosen.append(best)
        centre = points.gather(1, best[..., None].expand(-1, -1, points.shape[-1]))
        gap = gap.minimum(_distance(points, centre).squeeze(-1)).scatter(1, best, -1.0)
    return torch.cat(chosen, dim=1)


def _distance(one: Tensor, other: Tensor) -> Tensor:
    """[P, n, D], [P, m, D] -> [P, n, m]; not by way of products, which are inexact for near points."""
    return torch.cdist(one, other, compute_mode="donot_use_mm_for_euclid_dist")


def choose(
    query: Query,
    count: int,
    total: int,
    *,
    p2: Tensor | None = None,
    points: Tensor | None = None,
    asked: Tensor | None = None,
    known: Tensor | None = None,
) -> Tensor | None:
    """The places of ``count`` of ``total`` candidates per member, [P, count] int64, best first; None: as they come.

    Args:
        query: how to choose.
        count: how many.
        total: n, how many candidates there are.
        p2: [P, E, n] P(second preferred) by each copy of an ensemble, for disagreement and entropy.
        points: [P, n, D] the pairs as points, for k-centre; ``asked`` and ``known`` as in ``k_centre``.

    Raises:
        InputError: more to choose than there are, or predictions or points that this way of choosing needs are missing.
    """
    if count > total:
        raise InputError(f"{count} questions are to be chosen from {total} candidates, expected at most as many")
    if query == "uniform":
        return None
    pool: Tensor | None = None
    if query != "k_centre":
        if p2 is None:
            raise InputError(f"query {query!r} needs the predictions of a reward learner, found none")
        score = disagreement(p2) if query.endswith("disagreement") else entropy(p2)
        pool = largest(score, count if not query.startswith("k_centre") else max(count, total // 2))
        if not query.startswith("k_centre"):
            return pool
    if points is None or asked is None or known is None:
        raise InputError(f"query {query!r} needs the pairs as points, found none")
    if pool is None:
        return k_centre(points, asked, known, count)
    within = points.gather(1, pool[..., None].expand(-1, -1, points.shape[-1]))
    return pool.gather(1, k_centre(within, asked, known, count))
