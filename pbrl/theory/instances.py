"""Named, seeded instances; everything random comes from a seed (a number or a list of numbers)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .mdps import DiscountedMDP, EpisodicMDP, Floats

Seed = int | Sequence[int]


def dirichlet_episodic(
    states: int, actions: int, horizon: int, *, seed: Seed, concentration: float = 0.3, rewarding: float = 1.0
) -> EpisodicMDP:
    """Dirichlet transitions and rewards uniform in [0, 1], drawn anew for each stage; the first state is 0.

    A pair has a reward at all with probability ``rewarding``: the fewer have, the more must be explored.
    """
    draw = np.random.default_rng(seed)
    transition = draw.dirichlet(np.full(states, concentration), size=(horizon, states, actions))
    reward = draw.random((horizon, states, actions)) * (draw.random((horizon, states, actions)) < rewarding)
    return EpisodicMDP(_normal(transition), reward, name=f"dirichlet S{states} A{actions} H{horizon}")


def dirichlet_discounted(
    states: int,
    actions: int,
    gamma: float,
    *,
    seed: Seed,
    concentration: float = 1.0,
    deterministic: bool = False,
    absorbing: bool = False,
) -> DiscountedMDP:
    """Dirichlet transitions, or one uniformly drawn next state each, and standard normal rewards.

    Where ``absorbing``, the last state absorbs with reward 0, every other state's last action leads there (with
    probability at least a half where transitions are random), and other rewards are at most -0.1: every optimal policy
    ends, also without discount.
    """
    draw = np.random.default_rng(seed)
    if deterministic:
        transition = np.eye(states)[draw.integers(states, size=(states, actions))]
    else:
        transition = _normal(draw.dirichlet(np.full(states, concentration), size=(states, actions)))
    reward = draw.standard_normal((states, actions))
    if absorbing:
        end = np.eye(states)[-1]
        reward = -0.1 - np.abs(reward)
        transition[:, -1] = end if deterministic else 0.5 * transition[:, -1] + 0.5 * end
        transition[-1], reward[-1] = end, 0.0
    return DiscountedMDP(transition, reward, gamma, name=f"dirichlet S{states} A{actions}")


def random_walks(
    mdp: DiscountedMDP, count: int, length: int, *, seed: Seed
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """States [count, length + 1] and actions [count, length] of uniformly random play from uniformly random states."""
    draw = np.random.default_rng(seed)
    states, actions = mdp.reward.shape[-2:]
    state = np.empty((count, length + 1), dtype=np.int64)
    state[:, 0] = draw.integers(states, size=count)
    act = draw.integers(actions, size=(count, length))
    reached = mdp.transition.cumsum(-1)
    for t in range(length):
        chance = draw.random((count, 1))
        state[:, t + 1] = np.minimum((chance >= reached[state[:, t], act[:, t]]).sum(-1), states - 1)
    return state, act


def _normal(transition: Floats) -> Floats:
    """Rows that sum to 1 to rounding, also where Dirichlet draws have lost some."""
    rows: Floats = transition / transition.sum(-1, keepdims=True)
    return rows
