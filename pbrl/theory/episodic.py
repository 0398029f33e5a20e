"""Exact solutions of episodic MDPs: backward induction, values and occupancies of policies, and the linear program."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import linprog

from ..errors import InputError
from .discounted import greedy
from .mdps import EpisodicMDP, Floats


class EpisodicSolution(NamedTuple):
    """Values by stage; the value after the last stage is 0 and is part of ``value``.

    Attributes:
        value: [P?, H + 1, S].
        q: [P?, H, S, A].
        policy: [P?, H, S, A] probabilities.
        residual: largest absolute error of the Bellman equation.
    """

    value: Floats
    q: Floats
    policy: Floats
    residual: float


def expect(transition: Floats, value: Floats) -> Floats:
    """[..., S, A]: the expectation of ``value`` [..., S'] under ``transition`` [..., S, A, S']."""
    states, actions = transition.shape[-3:-1]
    flat = transition.reshape(*transition.shape[:-3], states * actions, transition.shape[-1])
    mean: Floats = (flat @ value[..., None])[..., 0]
    return mean.reshape(*mean.shape[:-1], states, actions)


def backward_induction(mdp: EpisodicMDP) -> EpisodicSolution:
    """The optimal values and a greedy policy."""
    return _solve(mdp, None)


def policy_value(mdp: EpisodicMDP, policy: Floats) -> Floats:
    """[P?, H + 1, S] the value of ``policy`` [P?, H, S, A] at each stage."""
    return _solve(mdp, policy).value


def _solve(mdp: EpisodicMDP, policy: Floats | None) -> EpisodicSolution:
    horizon, states, _ = mdp.shape
    batch = np.broadcast_shapes(mdp.reward.shape[:-3], () if policy is None else policy.shape[:-3])
    value = np.zeros((*batch, horizon + 1, states))
    q = np.zeros((*batch, *mdp.shape))
    for h in reversed(range(horizon)):
        q[..., h, :, :] = mdp.reward[..., h, :, :] + expect(mdp.transition[..., h, :, :, :], value[..., h + 1, :])
        stage = q[..., h, :, :]
        value[..., h, :] = stage.max(-1) if policy is None else (stage * policy[..., h, :, :]).sum(-1)
    chosen = greedy(q) if policy is None else np.broadcast_to(policy, q.shape)
    again = np.stack(
        [
            mdp.reward[..., h, :, :]
            + np.einsum("...ijk,...k->...ij", mdp.transition[..., h, :, :, :], value[..., h + 1, :])
            for h in range(horizon)
        ],
        axis=-3,
    )
    residual = float(np.abs((again * chosen).sum(-1) - value[..., :-1, :]).max())
    return EpisodicSolution(value, q, chosen, residual)


def from_start(mdp: EpisodicMDP, value: Floats) -> Floats:
    """[P?] the mean over first states of ``value`` [P?, H + 1, S]."""
    mean: Floats = (value[..., 0, :] * mdp.first).sum(-1)
    return mean


def occupancy(mdp: EpisodicMDP, policy: Floats) -> Floats:
    """[P?, H, S, A]: the probability of each pair at each stage; every stage sums to 1."""
    horizon, states, _ = mdp.shape
    batch = np.broadcast_shapes(mdp.reward.shape[:-3], policy.shape[:-3])
    reached = np.broadcast_to(mdp.first, (*batch, states))
    stages = []
    for h in range(horizon):
        pairs = reached[..., None] * policy[..., h, :, :]
        stages.append(pairs)
        reached = np.einsum("...ij,...ijk->...k", pairs, mdp.transition[..., h, :, :, :])
    return np.stack(stages, axis=-3)


def occupancy_lp(mdp: EpisodicMDP) -> tuple[float, Floats]:
    """The optimal value and an optimal occupancy [H, S, A], by the linear program over occupancies.

    Raises:
        InputError: a population of MDPs, or a program without a solution.
    """
    if mdp.reward.ndim != 3:
        raise InputError(f"{mdp.name}: the linear program takes one MDP, found {len(mdp.reward)}")
    horizon, states, actions = mdp.shape
    pairs = states * actions
    here = np.repeat(np.eye(states), actions, axis=0).T  # [S, S A]: which pairs belong to a state
    flow = np.zeros((horizon * states, horizon * pairs))
    for h in range(horizon):
        rows = slice(h * states, (h + 1) * states)
        flow[rows, h * pairs : (h + 1) * pairs] = here
        if h > 0:
            flow[rows, (h - 1) * pairs : h * pairs] = -mdp.transition[h - 1].reshape(pairs, states).T
    inflow = np.concatenate([mdp.first, np.zeros((horizon - 1) * states)])
    done = linprog(-mdp.reward.ravel(), A_eq=flow, b_eq=inflow, method="highs")
    if not done.success:
        raise InputError(f"{mdp.name}: the linear program has no solution ({done.message})")
    return -float(done.fun), np.asarray(done.x).reshape(mdp.shape)
