"""How hard an instance is, in the numbers that regret bounds speak of; to be printed beside every curve."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .discounted import policy_iteration
from .episodic import backward_induction, occupancy
from .mdps import AverageMDP, DiscountedMDP, EpisodicMDP, Floats
from .optimism import variance


class Hardness(NamedTuple):
    """Of an episodic MDP.

    Attributes:
        minimal_gap: smallest positive V* - Q* at pairs of states that some policy reaches; inf if all are optimal.
        value_norm: largest standard deviation of V* at the next state, over stages and pairs.
        value_range: largest minus smallest V* within a stage.
        reach: smallest probability of a state that some policy reaches, under the uniform policy.
    """

    minimal_gap: float
    value_norm: float
    value_range: float
    reach: float


def hardness(mdp: EpisodicMDP) -> Hardness:
    """The numbers of one episodic MDP (without a population axis)."""
    solved = backward_induction(mdp)
    horizon, _, actions = mdp.shape
    visits = occupancy(mdp, np.full(mdp.shape, 1.0 / actions)).sum(-1)  # [H, S]
    gaps = (solved.value[:-1, :, None] - solved.q)[visits > 0]
    positive = gaps[gaps > 1e-12]
    spread = [variance(mdp.transition[h], solved.value[h + 1]).max() for h in range(horizon)]
    return Hardness(
        minimal_gap=float(positive.min()) if positive.size else np.inf,
        value_norm=float(np.sqrt(max(spread))),
        value_range=float(np.ptp(solved.value[:-1], axis=-1).max()),
        reach=float(visits[visits > 0].min()),
    )


def hitting_times(mdp: AverageMDP, target: int) -> Floats:
    """[S] least expected number of steps to ``target`` over all policies."""
    states = len(mdp.reward)
    transition = mdp.transition.copy()
    transition[target] = np.eye(states)[target]
    steps = np.where(np.arange(states) == target, 0.0, -1.0)[:, None] * np.ones_like(mdp.reward)
    return -policy_iteration(DiscountedMDP(transition, steps, 1.0, name=f"{mdp.name} to {target}")).value


def diameter(mdp: AverageMDP) -> float:
    """The largest, over pairs of states, of the least expected number of steps from one to the other."""
    return float(max(hitting_times(mdp, target).max() for target in range(len(mdp.reward))))
