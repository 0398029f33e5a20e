"""Copies of a MuJoCo task stepped together: MuJoCo's own batch, which steps them on threads, and the rest as arrays.

Bit for bit the same trajectories as Gymnasium's: episodes begin by Gymnasium's own ``reset``, whose whole state, the
solver's warm start included, goes into the batch; observations, rewards and terminations are its formulas on arrays
[n, ...], with the constants that its own environment holds. Only the computation of contact forces after each step,
which none of these tasks observes, is left out.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import mujoco
import numpy as np
from mujoco.batch import Batch
from numpy.typing import ArrayLike, NDArray

from pbrl.errors import InputError
from pbrl.spec import Spec

from .mujoco import action_bounds, make_one

Array = NDArray[np.float64]

_LEAST = 8  # copies per thread, below which handing work over takes longer than the work
_STATE = mujoco.mjtState.mjSTATE_INTEGRATION


def names() -> list[str]:
    """The ids of the tasks that are known here."""
    return sorted(f"{task}-{version}" for task in _TASKS for version in ("v4", "v5"))


class BatchedMuJoCo:
    """Independent copies of one of the tasks of ``names``; what it promises is what ``GymnasiumCopies`` does.

    Attributes:
        copies: n, how many.
        spec: sizes and the time limit.

    Raises:
        InputError: less than one copy.
    """

    def __init__(self, env: str, copies: int) -> None:
        if copies < 1:
            raise InputError(f"copies is {copies}, expected at least 1")
        self.copies = copies
        self._env = cast(Any, make_one(env))
        self._task = self._env.unwrapped
        self._formula = _TASKS[env.rpartition("-")[0]]
        self._old = env.endswith("-v4")
        self._low, self._high = action_bounds(self._env)
        model = self._model = self._task.model
        self.spec = Spec(
            name=env,
            obs_size=self._env.observation_space.shape[0],
            act_size=model.nu,
            horizon=self._env.spec.max_episode_steps,
        )
        threads = max(1, min(os.cpu_count() or 1, copies // _LEAST))
        self._batch = Batch(model, copies, threads)
        self._qpos, self._qvel, self._ctrl = (self._batch.bind(name) for name in ("qpos", "qvel", "ctrl"))
        self._obs = np.zeros((copies, self.spec.obs_size))
        self._steps = np.zeros(copies, dtype=np.int64)
        self._term = np.ones(copies, dtype=bool)
        self._trunc = np.zeros(copies, dtype=bool)
        self._begun = False

    def reset(self, seeds: Sequence[int]) -> Array:
        """Start a new episode in every copy, each from its own seed: [n, O].

        Raises:
            InputError: not one seed per copy.
        """
        if len(seeds) != self.copies:
            raise InputError(f"{len(seeds)} seeds for {self.copies} copies of {self.spec.name}, expected one each")
        self._begun = True
        return self.restart(np.ones(self.copies, dtype=bool), seeds)

    def restart(self, chosen: NDArray[np.bool_], seeds: Sequence[int]) -> Array:
        """Start a new episode in the ``chosen`` [n] copies, one seed for each of them; obs [n, O] of all copies.

        Raises:
            InputError: not one seed per chosen copy, or no reset before.
        """
        if not self._begun:
            raise InputError(f"{self.spec.name} was restarted before it was reset, expected reset(seeds) first")
        if len(seeds) != chosen.sum():
            raise InputError(
                f"{len(seeds)} seeds for {chosen.sum()} chosen copies of {self.spec.name}, expected one each"
            )
        for i, seed in zip(np.flatnonzero(chosen), seeds):
            self._obs[i] = self._task.reset(seed=int(seed))[0]
            mujoco.mj_getState(self._model, self._task.data, self._batch.state[i], _STATE)
        self._steps[chosen] = 0
        self._term[chosen] = False
        self._trunc[chosen] = False
        return self._obs.copy()

    def step(self, act: ArrayLike) -> tuple[Array, Array, NDArray[np.bool_], NDArray[np.bool_]]:
        """One step of every unfinished copy with actions [n, A]: obs [n, O], rew [n], term [n], trunc [n].

        Raises:
            InputError: actions of another shape, or no reset before.
        """
        if not self._begun:
            raise InputError(f"{self.spec.name} was stepped before it was reset, expected reset(seeds) first")
        unit = np.asarray(act, dtype=np.float64)
        if unit.shape != (self.copies, self.spec.act_size):
            raise InputError(f"act has shape {unit.shape}, expected {(self.copies, self.spec.act_size)}")
        scaled = self._low + (np.clip(unit, -1.0, 1.0) + 1.0) * 0.5 * (self._high - self._low)
        own = scaled.astype(np.float32)  # as Gymnasium's action space has it; costs are summed in it, too
        going = ~(self._term | self._trunc)
        before = self._qpos[:, 0].copy()
        self._ctrl[:] = own
        self._batch.step(going, nstep=self._task.frame_skip)
        speed = (self._qpos[:, 0] - before) / self._task.dt
        obs, rew, term = self._formula(Moved(self._task, self._qpos, self._qvel, speed, own, self._old))
        self._obs = np.where(going[:, None], obs, self._obs)
        self._steps += going
        self._term |= going & term
        self._trunc |= going & ~term & (self._steps >= (self.spec.horizon or np.inf))
        return self._obs.copy(), np.where(going, rew.T, 0.0).T, self._term.copy(), self._trunc.copy()

    def close(self) -> None:
        """Free Gymnasium's part; the batch goes with the last reference to it."""
        self._env.close()


class Moved(NamedTuple):
    """Where n copies have come to by one step: qpos [n, nq], qvel [n, nv], speed [n] and the actions [n, A] behind it.

    ``task`` has the weights and ranges, ``old`` is whether it is version 4.
    """

    task: Any
    qpos: Array
    qvel: Array
    speed: Array
    act: NDArray[np.float32]
    old: bool


Formula = Callable[[Moved], tuple[Array, Array, NDArray[np.bool_] | NDArray[Any]]]
"""Steps of n copies -> obs [n, O], rew [n], term [n]."""


def _progress(now: Moved) -> Array:
    return np.asarray(now.task._forward_reward_weight * now.speed)


def _effort(now: Moved) -> NDArray[np.float32]:
    return np.asarray(now.task._ctrl_cost_weight * np.sum(np.square(now.act), axis=1))


def _between(low: float, x: Array, high: float) -> NDArray[np.bool_]:
    return np.asarray((low < x) & (x < high))


def _legged(now: Moved) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Hopper and Walker2d: progress, and a reward for standing, without which the episode ends."""
    task, qpos, qvel = now.task, now.qpos, now.qvel
    healthy = _between(task._healthy_z_range[0], qpos[:, 1], task._healthy_z_range[1])
    healthy &= _between(task._healthy_angle_range[0], qpos[:, 2], task._healthy_angle_range[1])
    if hasattr(task, "_healthy_state_range"):
        low, high = task._healthy_state_range
        healthy &= _between(low, np.concatenate([qpos[:, 2:], qvel], axis=1), high).all(axis=1)
    standing = task._healthy_reward * (1.0 if now.old else healthy)  # version 4 pays it at the fall, too
    rew = _progress(now) + standing - _effort(now)
    return np.concatenate([qpos[:, 1:], np.clip(qvel, -10, 10)], axis=1), rew, ~healthy


def _cheetah(now: Moved) -> tuple[Array, Array, NDArray[np.bool_]]:
    """HalfCheetah: progress, for ever."""
    rew = _progress(now) - _effort(now)
    return np.concatenate([now.qpos[:, 1:], now.qvel], axis=1), rew, np.zeros(len(rew), dtype=bool)


def _swimmer(now: Moved) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Swimmer: as HalfCheetah, in a plane whose origin is not observed either."""
    obs, rew, term = _cheetah(now)
    return obs[:, 1:], rew, term


def _pendulum(now: Moved) -> tuple[Array, Array, NDArray[np.bool_]]:
    """InvertedPendulum: a reward for each step up to the fall."""
    obs = np.concatenate([now.qpos, now.qvel], axis=1)
    term = ~np.isfinite(obs).all(axis=1) | (np.abs(obs[:, 1]) > 0.2)
    return obs, np.ones(len(obs)) if now.old else (~term).astype(np.float64), term


_TASKS: dict[str, Formula] = {
    "HalfCheetah": _cheetah,
    "Hopper": _legged,
    "InvertedPendulum": _pendulum,
    "Swimmer": _swimmer,
    "Walker2d": _legged,
}
