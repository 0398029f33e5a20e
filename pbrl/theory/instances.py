"""Named, seeded instances; everything random comes from a seed (a number or a list of numbers)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .mdps import AverageMDP, DiscountedMDP, EpisodicMDP, Floats

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


def river_swim(states: int = 6) -> AverageMDP:
    """Swim right against the current for a reward of 1 at the far end, or rest at the left end for 0.005.

    Swimming advances with probability 0.35 (0.6 from the left end), stays with 0.6 and is swept back with 0.05 (at the
    right end 0.4); going left always succeeds. After Strehl & Littman (2008).

    Raises:
        InputError: fewer than 2 states.
    """
    if states < 2:
        raise InputError(f"river swim has {states} states, expected at least 2")
    transition, reward = np.zeros((states, 2, states)), np.zeros((states, 2))
    for s in range(states):
        transition[s, 0, max(s - 1, 0)] = 1.0
        back, ahead = max(s - 1, 0), min(s + 1, states - 1)
        chances = (0.0, 0.4, 0.6) if s == 0 else (0.4, 0.6, 0.0) if s == states - 1 else (0.05, 0.6, 0.35)
        for to, chance in zip((back, s, ahead), chances):
            transition[s, 1, to] += chance
    reward[0, 0], reward[-1, 1] = 0.005, 1.0
    return AverageMDP(transition, reward, name=f"river swim {states}")


def episodes_of(mdp: AverageMDP, horizon: int) -> EpisodicMDP:
    """The same dynamics for ``horizon`` steps from state 0."""
    return EpisodicMDP(
        np.repeat(mdp.transition[None], horizon, 0), np.repeat(mdp.reward[None], horizon, 0), name=mdp.name
    )


def deep_sea(size: int = 8) -> EpisodicMDP:
    """A triangle of ``size`` rows: going right at every step finds a treasure of 1, going left pays 0.01 / size.

    Osband's problem with its cost of going right written as a reward of going left, so that rewards are in [0, 1].
    """
    transition, reward = np.zeros((size, size, 2, size)), np.zeros((size, size, 2))
    column = np.arange(size)
    transition[:, column, 0, np.maximum(column - 1, 0)] = 1.0
    transition[:, column, 1, np.minimum(column + 1, size - 1)] = 1.0
    reward[:, :, 0] = 0.01 / size
    reward[-1, -1, 1] = 1.0
    return EpisodicMDP(transition, reward, name=f"deep sea {size}")


def combination_lock(horizon: int, actions: int, *, seed: Seed, consolation: float = 0.0) -> EpisodicMDP:
    """One right action per stage, drawn from the seed; a wrong one ends the chance of the reward 1 at the last stage.

    Who has gone wrong gets ``consolation`` (at most 1) at the last stage, whatever it does.
    """
    right = np.random.default_rng(seed).integers(actions, size=horizon)
    transition, reward = np.zeros((horizon, 2, actions, 2)), np.zeros((horizon, 2, actions))
    transition[:, :, :, 1] = 1.0
    stage = np.arange(horizon)
    transition[stage, 0, right] = [1.0, 0.0]
    reward[-1, 0, right[-1]] = 1.0
    reward[-1, 1] = consolation
    return EpisodicMDP(transition, reward, name=f"combination lock H{horizon} A{actions}")


def hard_family(
    episodes: int, *, contexts: int = 4, actions: int = 4, factor: float = 1.0, seed: Seed = 0
) -> EpisodicMDP:
    """The instance on which ``episodes`` episodes are worst: gaps of factor sqrt(contexts actions / episodes) / 2.

    The first state is one of ``contexts``, uniformly; in each a secret action reaches the rewarding state with
    probability 1/2 + gap, the others with 1/2. On one fixed instance regret grows logarithmically in the end; over this
    family it grows as the square root.
    """
    gap = min(0.5, 0.5 * factor * float(np.sqrt(contexts * actions / episodes)))
    good, bad, states = contexts, contexts + 1, contexts + 2
    secret = np.random.default_rng(seed).integers(actions, size=contexts)
    transition, reward = np.zeros((2, states, actions, states)), np.zeros((2, states, actions))
    transition[:, :, :, bad] = 1.0
    transition[0, :contexts, :, [good, bad]] = 0.5
    transition[0, np.arange(contexts), secret, good] = 0.5 + gap
    transition[0, np.arange(contexts), secret, bad] = 0.5 - gap
    reward[1, good] = 1.0
    start = np.where(np.arange(states) < contexts, 1.0 / contexts, 0.0)
    return EpisodicMDP(transition, reward, start, name=f"hard family K{episodes}")


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
