"""From observations back to poses: the joint positions that a MuJoCo task's observations tell, so that it can be drawn.

Data sets keep observations, not simulator states. What the observations of a task leave out is put back where it can
be: a walker's place along its way is its speed added up (from 0 at the segment's first step), a pendulum's angle is the
arc tangent of the sine and cosine observed. Nothing else is missing from any of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from pbrl.errors import InputError

Array = NDArray[np.float64]


def task_of(env: str) -> str | None:
    """The Gymnasium id whose body an environment has (``mo-hopper-v5`` and ``hopper-medium-v2`` have Hopper-v5's)."""
    word = re.sub(r"^mo-", "", env.lower())
    for name in _NAMES:
        if re.match(rf"{name}(maze)?(-|$)", word):
            return _NAMES[name]
    return None


def poses(task: str, model: Any, dt: float, obs: Array) -> Array:
    """Observations [T, O] of a task of ``task_of`` -> joint positions [T, nq].

    Args:
        task: e.g. ``Hopper-v5``.
        model: its ``mujoco.MjModel``.
        dt: seconds per step.
        obs: of consecutive steps.

    Raises:
        InputError: observations too short for this task.
    """
    found = _READERS[task](model, dt, obs.astype(np.float64))
    if found.shape != (len(obs), model.nq):
        raise InputError(f"observations have {obs.shape[1]} numbers, expected those of {task}")
    return found


def _moving(hidden: int) -> Callable[[Any, float, Array], Array]:
    """A reader for bodies whose first ``hidden`` positions are not observed but their speeds are."""

    def read(model: Any, dt: float, obs: Array) -> Array:
        nq, nv = model.nq, model.nv
        if obs.shape[1] == nq + nv:  # made with exclude_current_positions_from_observation=False, or a maze's
            return obs[:, :nq]
        if obs.shape[1] < nq + nv - hidden:
            return obs
        known = obs[:, : nq - hidden]
        speed = obs[:, nq - hidden : nq]
        between = 0.5 * (speed[1:] + speed[:-1]) * dt
        travelled = np.concatenate([np.zeros((1, hidden)), between.cumsum(axis=0)])
        return np.concatenate([travelled, known], axis=1)

    return read


def _as_observed(model: Any, dt: float, obs: Array) -> Array:
    del dt
    return obs[:, : model.nq]


def _double_pendulum(model: Any, dt: float, obs: Array) -> Array:
    del model, dt
    if obs.shape[1] not in (9, 11):
        return obs
    return np.concatenate([obs[:, :1], np.arctan2(obs[:, 1:3], obs[:, 3:5])], axis=1)


def _reacher(model: Any, dt: float, obs: Array) -> Array:
    del model, dt
    if obs.shape[1] not in (10, 11):  # version 5 and those before; mo-gymnasium's has several targets, and shows none
        return obs
    return np.concatenate([np.arctan2(obs[:, 2:4], obs[:, 0:2]), obs[:, 4:6]], axis=1)


def _pusher(model: Any, dt: float, obs: Array) -> Array:
    """Seven joints; the object and the goal are observed as places and positioned by slides from where they rest."""
    del dt
    if obs.shape[1] != 23:
        return obs
    columns = [obs[:, :7]]
    for body, place in (("object", obs[:, 17:20]), ("goal", obs[:, 20:23])):
        number = model.body(body).id
        first = model.body_jntadr[number]
        rest = model.body_pos[number]
        columns.append((place - rest) @ model.jnt_axis[first : first + 2].T)
    return np.concatenate(columns, axis=1)


_NAMES = {
    "halfcheetah": "HalfCheetah-v5",
    "hopper": "Hopper-v5",
    "walker2d": "Walker2d-v5",
    "swimmer": "Swimmer-v5",
    "ant": "Ant-v5",
    "humanoidstandup": "HumanoidStandup-v5",
    "humanoid": "Humanoid-v5",
    "invertedpendulum": "InvertedPendulum-v5",
    "inverteddoublependulum": "InvertedDoublePendulum-v5",
    "reacher": "Reacher-v5",
    "pusher": "Pusher-v5",
}
_READERS: dict[str, Callable[[Any, float, Array], Array]] = {
    "HalfCheetah-v5": _moving(1),
    "Hopper-v5": _moving(1),
    "Walker2d-v5": _moving(1),
    "Swimmer-v5": _moving(2),
    "Ant-v5": _moving(2),
    "HumanoidStandup-v5": _moving(2),
    "Humanoid-v5": _moving(2),
    "InvertedPendulum-v5": _as_observed,
    "InvertedDoublePendulum-v5": _double_pendulum,
    "Reacher-v5": _reacher,
    "Pusher-v5": _pusher,
}


def load(task: str) -> tuple[Any, float]:
    """A task's model and its seconds per step.

    MuJoCo's warning about an old attribute of one model is dropped: it would be printed, and a log file written.
    """
    import gymnasium

    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(_drop)
    try:
        made: Any = gymnasium.make(task, disable_env_checker=True).unwrapped
    finally:
        mujoco.set_mju_user_warning(before)
    return made.model, float(made.dt)


def _drop(message: str) -> None:
    del message
