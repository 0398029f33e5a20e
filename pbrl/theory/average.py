"""Exact solutions of average-reward MDPs: relative value iteration, policy iteration on its result, and the LP."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import linprog

from ..errors import InputError
from .discounted import greedy
from .mdps import AverageMDP, Floats

LAZY = 0.5


class Gain(NamedTuple):
    """Optimal reward per step.

    Attributes:
        gain: reward per step in the long run, the same from every state.
        bias: [S] the advantage of starting there; 0 at state 0.
        policy: [S, A] probabilities.
        residual: largest absolute error of gain + bias = max (reward + expected bias).
    """

    gain: float
    bias: Floats
    policy: Floats
    residual: float

    @property
    def span(self) -> float:
        """Largest minus smallest bias."""
        return float(np.ptp(self.bias))


def evaluate(mdp: AverageMDP, policy: Floats) -> tuple[float, Floats]:
    """Gain and bias [S] of a policy [S, A] by one linear solve.

    Raises:
        InputError: its chain has several recurrent classes, so that the gain depends on the start.
    """
    chain = np.einsum("ij,ijk->ik", policy, mdp.transition)
    states = len(chain)
    matrix = np.eye(states) - chain
    matrix[:, 0] = 1.0  # the unknown bias of state 0 is 0; its column serves the gain
    if np.linalg.matrix_rank(matrix) < states:
        raise InputError(f"{mdp.name}: a policy has several recurrent classes, expected a unichain MDP")
    solved = np.linalg.solve(matrix, (policy * mdp.reward).sum(-1))
    return float(solved[0]), np.r_[0.0, solved[1:]]


def average_optimum(mdp: AverageMDP, tolerance: float = 1e-9) -> Gain:
    """The optimal gain and bias: relative value iteration made aperiodic, then policy iteration to the exact optimum.

    Raises:
        InputError: no convergence, as where the gain depends on the start.
    """
    bias = np.zeros(len(mdp.reward))
    for _ in range(20_000):
        new = (1.0 - LAZY) * bias + LAZY * (mdp.reward + mdp.transition @ bias).max(-1)
        change = new - bias
        bias = new - new[0]
        if np.ptp(change) < tolerance:
            break
    else:
        raise InputError(f"{mdp.name}: relative value iteration has not converged, expected a communicating MDP")
    policy = greedy(mdp.reward + mdp.transition @ bias)
    for _ in range(100):
        gain, bias = evaluate(mdp, policy)
        q = mdp.reward + mdp.transition @ bias
        current = (q * policy).sum(-1)
        better = q.max(-1) > current + 1e-11 * (1.0 + np.abs(current))
        if not better.any():
            return Gain(gain, bias, policy, float(np.abs(q.max(-1) - gain - bias).max()))
        policy = np.where(better[:, None], greedy(q), policy)
    raise InputError(f"{mdp.name}: policy iteration has not ended after 100 rounds")


def gain_lp(mdp: AverageMDP) -> tuple[float, Floats]:
    """The optimal gain and a stationary distribution over pairs [S, A] that has it, by the linear program.

    Raises:
        InputError: a program without a solution.
    """
    states, actions = mdp.reward.shape
    flow = np.repeat(np.eye(states), actions, axis=0).T - mdp.transition.reshape(-1, states).T
    rows = np.vstack([flow, np.ones(states * actions)])
    done = linprog(-mdp.reward.ravel(), A_eq=rows, b_eq=np.r_[np.zeros(states), 1.0], method="highs")
    if not done.success:
        raise InputError(f"{mdp.name}: the linear program has no solution ({done.message})")
    return -float(done.fun), np.asarray(done.x).reshape(states, actions)
