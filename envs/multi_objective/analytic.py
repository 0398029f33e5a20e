"""Two problems with two objectives whose fronts are known in closed form: a one-step bandit and a linear regulator."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pbrl.spec import Spec

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Bandit:
    """One step, a in [-1, 1], rewards shift - (1 - a)^2 and shift - (1 + a)^2: every action is Pareto-optimal.

    The best action for weights (w, 1 - w) is 2 w - 1. The front's hypervolume is 40/3 from the reference (-4, -4) plus
    the shift.
    """

    name: str = "ParabolaBandit-v0"
    shift: float = 0.0

    @property
    def spec(self) -> Spec:
        """One action, one step."""
        return Spec(self.name, obs_size=1, act_size=1, horizon=1, objectives=2)

    def start(self) -> Floats:
        """[1] the only state."""
        return np.ones(1)

    def observe(self, state: Floats) -> Floats:
        """[n, 1] -> the same."""
        return state.copy()

    def move(self, state: Floats, act: Floats, chance: Floats) -> tuple[Floats, Floats, NDArray[np.bool_]]:
        """The episode is over."""
        del chance
        return state.copy(), self.values(act[:, 0]), np.ones(len(act), dtype=bool)

    def values(self, act: ArrayLike) -> Floats:
        """[n] actions -> [n, 2] their rewards."""
        a = np.asarray(act, dtype=np.float64)
        return self.shift - np.stack([(1.0 - a) ** 2, (1.0 + a) ** 2], axis=-1)


@dataclass(frozen=True)
class Regulator:
    """A linear regulator with two costs (after Parisi et al. 2014): x' = x + u from x = (10, 10), without noise.

    Objective i is -(x' Q_i x + u' R_i u) with Q_1 = diag(1 - xi, xi), R_1 = diag(xi, 1 - xi), and both swapped for
    objective 2. The two dimensions are independent of each other, so that a weighed sum of the objectives has an
    optimal gain per dimension by the scalar Riccati equation. An observation is x / 10, an action u / 10.
    """

    xi: float = 0.1
    horizon: int = 50
    span: float = 10.0

    @property
    def spec(self) -> Spec:
        """Two states, two controls, 50 steps."""
        return Spec("TwoObjectiveLQR-v0", obs_size=2, act_size=2, horizon=self.horizon, objectives=2)

    @property
    def costs(self) -> tuple[Floats, Floats]:
        """[2, 2] the diagonals of Q and of R, one row per objective."""
        state = np.array([[1.0 - self.xi, self.xi], [self.xi, 1.0 - self.xi]])
        return state, state[::-1]

    def start(self) -> Floats:
        """[2] far from the aim."""
        return np.full(2, self.span)

    def observe(self, state: Floats) -> Floats:
        """[n, 2] -> [n, 2]."""
        return state / self.span

    def move(self, state: Floats, act: Floats, chance: Floats) -> tuple[Floats, Floats, NDArray[np.bool_]]:
        """x' = x + u; no episode truly ends."""
        del chance
        control = self.span * act
        cost_x, cost_u = self.costs
        rew = -(state**2 @ cost_x.T + control**2 @ cost_u.T)
        return state + control, rew, np.zeros(len(state), dtype=bool)

    def gains(self, weights: ArrayLike, gamma: float) -> Floats:
        """[..., 2] preference weights -> [..., 2] the optimal gains: u = -gain x in each dimension, without a limit."""
        weight = np.asarray(weights, dtype=np.float64)
        cost_x, cost_u = (weight @ cost for cost in self.costs)
        value = cost_x
        for _ in range(10_000):  # a contraction at rate gamma or faster
            value = cost_x + gamma * value * cost_u / (cost_u + gamma * value)
        return np.asarray(gamma * value / (cost_u + gamma * value))

    def values(self, gains: ArrayLike, gamma: float) -> Floats:
        """[..., 2] gains -> [..., 2] discounted returns of both objectives, without end."""
        gain = np.asarray(gains, dtype=np.float64)
        cost_x, cost_u = self.costs
        rate = self.span**2 / (1.0 - gamma * (1.0 - gain) ** 2)  # of each dimension
        return np.asarray(-(rate @ cost_x.T + (rate * gain**2) @ cost_u.T))

    def front(self, gamma: float, steps: int) -> Floats:
        """[steps + 1, 2] the best returns for evenly spaced weights."""
        first = np.linspace(0.0, 1.0, steps + 1)
        return self.values(self.gains(np.stack([first, 1.0 - first], axis=1), gamma), gamma)
