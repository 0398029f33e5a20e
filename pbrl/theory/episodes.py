"""Playing many episodes of a fixed plan at once, exactly: their counts are a chain of multinomial draws.

Under a fixed Markov policy the counts of M independent episodes satisfy: visits of (s, a) at stage h are multinomial
given the visits of s, and next states multinomial given those. So a batch of episodes costs O(H S A S'), whatever M is,
and a learner that plans anew only when the number of episodes has grown by a few percent can be run for millions of
episodes without touching its confidence widths (its bound grows by a factor of at most sqrt(1 + growth)).
Not for learners to whom it matters which transitions belonged to one episode.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from .. import rng
from ..errors import InputError
from .mdps import EpisodicMDP, Floats


def generator(key: int, *data: str | int) -> np.random.Generator:
    """A numpy generator that is a function of a member's key, purposes and steps alone (as ``pbrl.rng.fold``)."""
    return generators(np.array([key], dtype=np.int64), *data)[0]


def generators(keys: NDArray[np.int64], *data: str | int) -> list[np.random.Generator]:
    """One for each of the keys [P]."""
    folded = rng.fold(torch.from_numpy(keys.copy()), *data).tolist()
    return [np.random.Generator(np.random.Philox(key=key & ((1 << 64) - 1))) for key in folded]


def sample_counts(
    mdp: EpisodicMDP, policies: Floats, weights: Floats, episodes: int, keys: NDArray[np.int64], step: int
) -> Floats:
    """[P, H, S, A, S']: how often each transition happened in ``episodes`` episodes of each member.

    Args:
        mdp: the truth.
        policies: [P, N, H, S, A], one of which is drawn for each episode.
        weights: [P, N] their probabilities.
        episodes: how many.
        keys: [P].
        step: which batch this is; another one draws anew.
    """
    size = len(keys)
    horizon, states, actions = mdp.shape
    counts = np.zeros((size, horizon, states, actions, states))
    transition = np.broadcast_to(mdp.transition, (size, *mdp.transition.shape[-4:]))
    first = np.broadcast_to(mdp.first, (size, states))
    for p, draw in enumerate(generators(keys, "episodes", step)):
        for policy, share in zip(policies[p], draw.multinomial(episodes, weights[p])):
            if share == 0:
                continue
            visits = draw.multinomial(share, first[p])
            for h in range(horizon):
                here = visits.nonzero()[0]  # what was not reached gives nothing, and draws nothing
                pairs = draw.multinomial(visits[here], policy[h, here])
                moves = draw.multinomial(pairs, transition[p, h, here])
                counts[p, h, here] += moves
                visits = moves.sum((0, 1))
    return counts


def batches(episodes: int, growth: float) -> Iterator[int]:
    """Sizes of the batches between plans: each is ``growth`` times the episodes before it, and at least 1.

    Raises:
        InputError: no episodes, or a negative growth.
    """
    if episodes < 1 or growth < 0.0:
        raise InputError(f"{episodes} episodes with growth {growth}, expected at least 1 and 0 or more")
    done = 0
    while done < episodes:
        size = min(max(1, int(growth * done)), episodes - done)
        yield size
        done += size
