"""Exact solutions of discounted MDPs: policy iteration, soft value iteration, occupancies and their linear program."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import linprog
from scipy.special import logsumexp

from ..errors import InputError
from .mdps import DiscountedMDP, Floats

TIE = 1e-10


class Solution(NamedTuple):
    """Values of an optimal policy, and by how much they miss the Bellman equation.

    Attributes:
        value: [P?, S].
        q: [P?, S, A].
        policy: [P?, S, A] probabilities.
        residual: largest absolute error of the Bellman equation.
    """

    value: Floats
    q: Floats
    policy: Floats
    residual: float

    @property
    def advantage(self) -> Floats:
        """[P?, S, A], Q - V."""
        advantage: Floats = self.q - self.value[..., None]
        return advantage


def backup(mdp: DiscountedMDP, value: Floats) -> Floats:
    """[P?, S, A]: reward plus the discounted expectation of ``value`` [P?, S]."""
    q: Floats = mdp.reward + mdp.gamma * np.einsum("...ijk,...k->...ij", mdp.transition, value)
    return q


def greedy(q: Floats) -> Floats:
    """[..., A] the policy that takes the first best action."""
    policy: Floats = np.eye(q.shape[-1])[q.argmax(-1)]
    return policy


def policy_value(mdp: DiscountedMDP, policy: Floats) -> Floats:
    """[P?, S] the value of ``policy`` [P?, S, A], by one linear solve.

    Raises:
        InputError: gamma is 1 and the policy does not surely end.
    """
    chain = np.einsum("...ij,...ijk->...ik", policy, mdp.transition)
    reward = (policy * mdp.reward).sum(-1)
    matrix = np.eye(chain.shape[-1]) - mdp.gamma * chain
    if mdp.gamma == 1.0:  # states that absorb without reward have value 0
        ends = (np.diagonal(mdp.transition, axis1=-3, axis2=-1).min(-2) == 1.0) & (np.abs(mdp.reward).max(-1) == 0.0)
        matrix = np.where(ends[..., None], np.eye(chain.shape[-1]), matrix)
    try:
        value: Floats = np.linalg.solve(matrix, reward[..., None])[..., 0]
    except np.linalg.LinAlgError:
        raise InputError(f"{mdp.name}: a policy never ends, expected gamma below 1 or a policy that does") from None
    return value


def policy_iteration(mdp: DiscountedMDP, initial: Floats | None = None) -> Solution:
    """An optimal policy, improved from ``initial`` [P?, S, A] or from the uniform one (which ends if any policy does).

    Where no action is better the current choice is kept, so that neither rounding nor a loop without cost can trap it.
    """
    uniform = np.full_like(mdp.reward, 1.0 / mdp.reward.shape[-1])
    policy = uniform if initial is None else np.asarray(initial, dtype=np.float64)
    for _ in range(1000):
        value = policy_value(mdp, policy)
        q = backup(mdp, value)
        better = q.max(-1) > value + TIE * (1.0 + np.abs(value))
        if not better.any():
            return Solution(value, q, policy, float(np.abs(q.max(-1) - value).max()))
        policy = np.where(better[..., None], greedy(q), policy)
    raise InputError(f"{mdp.name}: policy iteration has not ended after 1000 rounds")


def soft_value_iteration(
    mdp: DiscountedMDP, temperature: float, reference: Floats | None = None, tolerance: float = 1e-14
) -> Solution:
    """The optimum of reward minus ``temperature`` times KL(policy || reference).

    V(s) = temperature log sum_a reference(a|s) exp(Q(s, a) / temperature), with weights 1 where ``reference`` is None
    (the entropy-regularised problem). The steps are Newton's: policy iteration for the regularised problem, exact in
    about ten.

    Raises:
        InputError: a temperature of 0 or below, or no convergence.
    """
    if temperature <= 0.0:
        raise InputError(f"temperature is {temperature}, expected above 0")
    weight = np.ones_like(mdp.reward) if reference is None else reference
    value: Floats = np.zeros(mdp.reward.shape[:-1])
    identity = np.eye(value.shape[-1])

    def improve(value: Floats) -> tuple[Floats, Floats]:
        q = backup(mdp, value)
        return q, np.asarray(temperature * logsumexp(q / temperature, axis=-1, b=weight))

    for _ in range(200):
        q, best = improve(value)
        policy = weight * np.exp((q - best[..., None]) / temperature)
        scale = 1.0 + float(np.abs(best).max())
        if float(np.abs(best - value).max()) <= tolerance * scale:
            return Solution(value, q, policy, float(np.abs(best - value).max()))
        chain = np.einsum("...ij,...ijk->...ik", policy, mdp.transition)
        step = np.linalg.solve(identity - mdp.gamma * chain, (best - value)[..., None])[..., 0]
        new: Floats = value + step
        if np.array_equal(new, value) or float(np.abs(step).max()) <= 4e-16 * scale:
            return Solution(value, q, policy, float(np.abs(best - value).max()))
        value = new
    raise InputError(f"{mdp.name}: soft value iteration has not converged")


def occupancy(mdp: DiscountedMDP, policy: Floats) -> Floats:
    """[P?, S, A]: expected discounted visits from ``mdp.start``; they sum to 1 / (1 - gamma)."""
    chain = np.einsum("...ij,...ijk->...ik", policy, mdp.transition)
    matrix = np.eye(chain.shape[-1]) - mdp.gamma * np.swapaxes(chain, -1, -2)
    start = np.broadcast_to(mdp.first, chain.shape[:-1])
    visits: Floats = np.linalg.solve(matrix, start[..., None]) * policy
    return visits


def occupancy_lp(mdp: DiscountedMDP) -> tuple[float, Floats]:
    """The optimal value from ``mdp.start`` and its occupancy [S, A], by the linear program over occupancies.

    Raises:
        InputError: a population of MDPs, or a program without a solution.
    """
    if mdp.transition.ndim != 3:
        raise InputError(f"{mdp.name}: the linear program takes one MDP, found {len(mdp.transition)}")
    states, actions = mdp.reward.shape
    flow = np.repeat(np.eye(states), actions, axis=0).T - mdp.gamma * mdp.transition.reshape(-1, states).T
    done = linprog(-mdp.reward.ravel(), A_eq=flow, b_eq=mdp.first, method="highs")
    if not done.success:
        raise InputError(f"{mdp.name}: the linear program has no solution ({done.message})")
    return -float(done.fun), np.asarray(done.x).reshape(states, actions)
