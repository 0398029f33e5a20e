"""Maximise one objective while the others hold a limit: how much each objective's advantage counts.

A policy gradient of  G_l + (1/t) sum_{j != l} log(G_j - limit_j)  is one of G_l + sum_j force_j G_j with
force_j = 1 / (t (G_j - limit_j)), so that a constraint is a weight on an advantage, anew at every step. All in units of
raw returns.
"""

from __future__ import annotations

import torch
from torch import Tensor


def limits(values: Tensor, beta: Tensor) -> Tensor:
    """What must be held: G - (1 - beta) |G| of the returns [..., K] that a policy had, beta a share [...].

    That is beta G where G is positive; beta G of a negative G would lie above what the policy has.
    """
    return values - (1.0 - beta).unsqueeze(-1) * values.abs()


def barrier_force(aim: Tensor, margin: Tensor, sharpness: Tensor, scale: Tensor) -> Tensor:
    """[P, K] what each objective's advantage counts under a log barrier (interior point policy optimisation).

    Where a limit is broken, the barrier has no gradient that would lead back: only the broken objectives count, until
    all hold again.

    Args:
        aim: [P, K] 1 for the objective that is maximised, 0 for those that hold a limit.
        margin: [P, K] G - limit; not read for the aim.
        sharpness: [P] t: with a larger one the optimum lies closer to the limit.
        scale: [P, K] the unit in which broken objectives are weighed against each other.
    """
    held = 1.0 - aim
    inside = aim + held / (sharpness[:, None] * margin.clamp_min(torch.finfo(margin.dtype).tiny ** 0.25))
    broken = held * (margin <= 0.0)
    outside = broken / scale.clamp_min(torch.finfo(scale.dtype).tiny ** 0.25)
    return torch.where(broken.any(-1, keepdim=True), outside, inside)


def lagrangian_step(duals: Tensor, aim: Tensor, margin: Tensor, rate: float) -> Tensor:
    """[P, K] multipliers after one step of dual ascent: lower where the margin is positive, never below 0."""
    return (duals - rate * margin).clamp_min(0.0) * (1.0 - aim)


def released_barrier(
    ratio: Tensor, target: Tensor, aim: Tensor, clip: Tensor, beta: Tensor, sharpness: Tensor
) -> Tensor:
    """[P] the term that C-MORL's released code adds to the loss. It is no constraint: here for comparison only.

    -(1/t) mean log(max((clip(ratio) - beta) R_j, 1e-3)) with R_j the minibatch's mean normalised return: the gradient
    does not know how actions change R_j. As released, what is left out is row l of the minibatch, not objective l.

    Args:
        ratio: [P, B] pi / pi_old.
        target: [P, B, K] normalised returns.
        aim: [P, K] 1 for objective l.
        clip: [P], and
        beta: [P], and
        sharpness: [P] as in the papers.
    """
    kept = ratio.clamp((1.0 - clip)[:, None], (1.0 + clip)[:, None]) - beta[:, None]
    inner = kept.unsqueeze(-1) * target.mean(1, keepdim=True)
    rows = torch.arange(ratio.shape[1], device=ratio.device) != aim.argmax(-1, keepdim=True)  # [P, B]
    term = -inner.clamp_min(1e-3).log().mean(-1)
    return (term * rows).sum(1) / rows.sum(1).clamp_min(1) / sharpness
