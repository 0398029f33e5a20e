"""A point mass in any dimension whose optimal values are known in closed form: an exact test bench for control.

State: position and velocity, x = (p, v) in R^{2d}, fully observed. With action u in R^d, time step dt and damping c,

    p' = p + dt v + dt^2/2 u + noise,   v' = (1 - c dt) v + dt u + noise,   reward = -(|p|^2 + q_v |v|^2 + r |u|^2),

that is, x' = A x + B u + w with w ~ N(0, sigma^2 I) and reward -(x'Qx + u'Ru): a discounted linear-quadratic regulator.
Episodes never terminate; after ``horizon`` steps they are cut (``trunc``): the values are those of the endless problem.

Optimal values (Bertsekas, Dynamic Programming and Optimal Control, vol. II, ch. 4.2): P solves the Riccati equation of
(sqrt(gamma) A, sqrt(gamma) B, Q, R), M = R + gamma B'PB, K = gamma M^{-1} B'PA, and

    V*(x)    = -(x'Px + c),        c = gamma sigma^2 tr(P) / (1 - gamma),        u*(x) = -K x
    Q*(x, u) = -(x'Qx + u'Ru) + gamma E[V*(x')] = V*(x) - (u + Kx)' M (u + Kx).

Soft (maximum-entropy) values at temperature alpha: Q is quadratic in u with curvature M, so the soft maximum
alpha log int exp(Q/alpha) du adds only the constant s = alpha/2 (d log(pi alpha) - log det M). P and K are unchanged, c
becomes (gamma sigma^2 tr(P) - s) / (1 - gamma), and the soft-optimal policy is exactly N(-Kx, alpha/2 M^{-1}).

Bounds: actions are *not* clipped, since clipping would break all of the above. They are scaled such that it makes no
difference: from the start states (|p_i| <= 1, |v_i| <= 0.2) the optimal controller of the default problem stays within
[-1, 1] (tested over thousands of episodes), so it is optimal among bounded controllers, too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.linalg
import torch
from numpy.typing import ArrayLike, NDArray

from pbrl.errors import InputError
from pbrl.labelers.oracle import LQRCritic
from pbrl.spec import Spec

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Problem:
    """The constants of a point mass.

    Attributes:
        dimension: d; observations have 2d numbers, actions d.
        gamma: discount.
        noise: sigma, standard deviation of the Gaussian noise on every coordinate of the state.
        action_cost: r, per squared unit of action.
        velocity_cost: q_v, per squared unit of velocity; the position's is 1.
        time_step: dt.
        damping: c, the share of the velocity that is lost per unit of time.
        horizon: steps after which an episode is cut.

    Raises:
        InputError: a constant out of its range.
    """

    dimension: int = 2
    gamma: float = 0.99
    noise: float = 0.01
    action_cost: float = 2.0
    velocity_cost: float = 0.1
    time_step: float = 0.1
    damping: float = 0.5
    horizon: int = 100

    def __post_init__(self) -> None:
        limits = {
            "dimension": (1, math.inf),
            "gamma": (0.0, 1.0 - 1e-9),
            "noise": (0.0, math.inf),
            "action_cost": (1e-9, math.inf),
            "velocity_cost": (0.0, math.inf),
            "time_step": (1e-9, math.inf),
            "damping": (0.0, math.inf),
            "horizon": (1, math.inf),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not low <= value <= high:
                bounds = f"at least {low:g}" if high == math.inf else "at least 0 and below 1"
                raise InputError(f"Problem.{name} is {value}, expected {bounds}")

    @cached_property
    def dynamics(self) -> tuple[Array, Array]:
        """A [2d, 2d] and B [2d, d] of x' = A x + B u + w."""
        dt, eye = self.time_step, np.eye(self.dimension)
        a = np.block([[eye, dt * eye], [0.0 * eye, (1.0 - self.damping * dt) * eye]])
        return a, np.vstack([0.5 * dt * dt * eye, dt * eye])

    @cached_property
    def costs(self) -> tuple[Array, Array]:
        """Q [2d, 2d] and R [d, d] of the cost x'Qx + u'Ru."""
        d = self.dimension
        return np.diag([1.0] * d + [self.velocity_cost] * d), self.action_cost * np.eye(d)


@dataclass(frozen=True, eq=False)
class Solution:
    """Closed-form values and controller of a point mass.

    Attributes:
        critic: the values; at temperature 0, the constants of q and v are equal.
        gain: [A, O] K; the optimal action is -K x.
        covariance: [A, A] of the soft-optimal policy N(-K x, covariance); zero at temperature 0.
    """

    critic: LQRCritic
    gain: Array
    covariance: Array

    def control(self, obs: ArrayLike) -> Array:
        """The optimal action -K x of observations [..., O]: [..., A]; the mean of the soft-optimal policy."""
        return -(np.asarray(obs, dtype=np.float64) @ self.gain.T)


def solve(problem: Problem, temperature: float = 0.0) -> Solution:
    """The optimal values (temperature 0) or the soft-optimal ones; equations in the module's docstring.

    Raises:
        InputError: a negative temperature.
    """
    if not 0.0 <= temperature < math.inf:
        raise InputError(f"temperature is {temperature}, expected at least 0")
    a, b = problem.dynamics
    cost_x, cost_u = problem.costs
    gamma = problem.gamma
    p = scipy.linalg.solve_discrete_are(math.sqrt(gamma) * a, math.sqrt(gamma) * b, cost_x, cost_u)
    p = 0.5 * (p + p.T)
    m = cost_u + gamma * b.T @ p @ b
    transition = np.hstack([a, b])
    noise = gamma * problem.noise**2 * float(np.trace(p))
    soft = 0.0
    if temperature > 0:
        log_det = float(np.linalg.slogdet(m)[1])
        soft = 0.5 * temperature * (problem.dimension * math.log(math.pi * temperature) - log_det)
    v_constant = (noise - soft) / (1.0 - gamma)
    critic = LQRCritic(
        gamma=gamma,
        q_matrix=torch.from_numpy(scipy.linalg.block_diag(cost_x, cost_u) + gamma * transition.T @ p @ transition),
        v_matrix=torch.from_numpy(p),
        q_constant=noise + gamma * v_constant,
        v_constant=v_constant,
    )
    return Solution(critic, np.linalg.solve(m, gamma * b.T @ p @ a), 0.5 * temperature * np.linalg.inv(m))


class PointMass:
    """n independent point masses, stepped as one array; no auto-reset, a cut copy is frozen until it is restarted.

    A copy's start state and noise are drawn from its own seed at its start, so they do not depend on the other copies.

    Attributes:
        copies: n, how many.
        problem: the constants.
        spec: sizes and horizon.
    """

    def __init__(self, copies: int, problem: Problem | None = None, *, name: str = "") -> None:
        if copies < 1:
            raise InputError(f"copies is {copies}, expected at least 1")
        self.copies = copies
        self.problem = problem or Problem()
        d = self.problem.dimension
        self.spec = Spec(name or f"PointMass{d}D-v0", obs_size=2 * d, act_size=d, horizon=self.problem.horizon)
        self._steps = np.zeros(copies, dtype=np.int64)
        self._state = np.zeros((copies, 2 * d))
        self._noise = np.zeros((0, copies, 2 * d))  # until the first reset

    def reset(self, seeds: Sequence[int]) -> Array:
        """Start a new episode in every copy, each from its own seed: [n, O].

        Raises:
            InputError: not one seed per copy.
        """
        if len(seeds) != self.copies:
            raise InputError(f"{len(seeds)} seeds for {self.copies} copies of {self.spec.name}, expected one each")
        self._noise = np.zeros((self.problem.horizon, self.copies, 2 * self.problem.dimension))
        return self.restart(np.ones(self.copies, dtype=bool), seeds)

    def restart(self, chosen: NDArray[np.bool_], seeds: Sequence[int]) -> Array:
        """Start a new episode in the ``chosen`` [n] copies, one seed for each of them; obs [n, O] of all copies.

        Raises:
            InputError: not one seed per chosen copy, or no reset before.
        """
        if len(self._noise) == 0:
            raise InputError(f"{self.spec.name} was restarted before it was reset, expected reset(seeds) first")
        if len(seeds) != chosen.sum():
            raise InputError(
                f"{len(seeds)} seeds for {chosen.sum()} chosen copies of {self.spec.name}, expected one each"
            )
        d, sigma, horizon = self.problem.dimension, self.problem.noise, self.problem.horizon
        half_width = np.repeat([1.0, 0.2], d)
        for i, seed in zip(np.flatnonzero(chosen), seeds):
            generator = np.random.default_rng(int(seed))
            self._state[i] = generator.uniform(-half_width, half_width)
            self._noise[:, i] = sigma * generator.standard_normal((horizon, 2 * d))
        self._steps[chosen] = 0
        return self._state.copy()

    def step(self, act: ArrayLike) -> tuple[Array, Array, NDArray[np.bool_], NDArray[np.bool_]]:
        """One step with actions [n, A]: obs [n, O], rew [n], term [n] (never), trunc [n] (all at ``horizon``).

        Raises:
            InputError: actions of another shape, or no reset before.
        """
        u = np.asarray(act, dtype=np.float64)
        if u.shape != (self.copies, self.spec.act_size):
            raise InputError(f"act has shape {u.shape}, expected {(self.copies, self.spec.act_size)}")
        if len(self._noise) == 0:
            raise InputError(f"{self.spec.name} was stepped before it was reset, expected reset(seeds) first")
        going = self._steps < self.problem.horizon
        (a, b), (cost_x, cost_u) = self.problem.dynamics, self.problem.costs
        x = self._state
        rew = -(np.einsum("ni,ij,nj->n", x, cost_x, x) + np.einsum("ni,ij,nj->n", u, cost_u, u))
        noise = self._noise[np.minimum(self._steps, self.problem.horizon - 1), np.arange(self.copies)]
        self._state = np.where(going[:, None], x @ a.T + u @ b.T + noise, x)
        self._steps += going
        cut = self._steps >= self.problem.horizon
        return self._state.copy(), np.where(going, rew, 0.0), np.zeros(self.copies, dtype=bool), cut

    def close(self) -> None:
        """Nothing to free."""


def dimension_of(env: str) -> int | None:
    """The dimension that an id names (``PointMass-v0`` has 2, ``PointMass7D-v0`` has 7); None for other ids."""
    match = re.fullmatch(r"PointMass(?:([1-9]\d{0,2})D)?-v0", env)
    return None if match is None else int(match[1] or 2)
