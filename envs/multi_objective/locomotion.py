"""MO-Hopper and MO-HalfCheetah as one batch: mo-gymnasium's rewards [n, K] on the batched simulator's trajectories.

The tasks are Gymnasium's with other rewards, so episodes, observations and ends are those of ``BatchedMuJoCo``. Rewards
are summed up in float32, as mo-gymnasium does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pbrl.errors import InputError

from ..batched_mujoco import BatchedMuJoCo, Moved

Array = NDArray[np.float64]
Single = NDArray[np.float32]
Flags = NDArray[np.bool_]
Rewards = Callable[[Moved, Single, Flags], Single]
"""Steps of n copies, minus their weighed effort [n], fallen [n] -> [n, K]."""


def _hopper(now: Moved, effort: Single, fallen: Flags) -> Single:
    """Speed, height and effort, and what standing is worth added to each."""
    return _columns(now.speed, _height(now), effort / now.task._ctrl_cost_weight) + _standing(now, fallen)


def _hopper_of_two(now: Moved, effort: Single, fallen: Flags) -> Single:
    """Speed and height; effort and standing are added to both."""
    return _columns(now.speed, _height(now)) + effort[:, None] + _standing(now, fallen)


def _cheetah(now: Moved, effort: Single, fallen: Flags) -> Single:
    """Speed and effort."""
    del fallen
    return _columns(now.speed, effort / now.task._ctrl_cost_weight)


def _columns(*columns: Array | Single) -> Single:
    return np.asarray(np.stack(columns, axis=1, dtype=np.float32, casting="same_kind"), dtype=np.float32)


def _height(now: Moved) -> Array:
    return np.asarray(10 * (now.qpos[:, 1] - now.task.init_qpos[1]))


def _standing(now: Moved, fallen: Flags) -> Single:
    return np.asarray(now.task._healthy_reward * ~fallen, dtype=np.float32)[:, None]


TASKS: dict[str, tuple[str, int, Rewards]] = {
    "mo-hopper-v5": ("Hopper-v5", 3, _hopper),
    "mo-hopper-2obj-v5": ("Hopper-v5", 2, _hopper_of_two),
    "mo-halfcheetah-v5": ("HalfCheetah-v5", 2, _cheetah),
}
"""mo-gymnasium's id -> Gymnasium's, the number of objectives, and the rewards."""


class BatchedLocomotion(BatchedMuJoCo):
    """Independent copies of one of ``TASKS``; what it promises is what ``BatchedMuJoCo`` does, with rewards [n, K].

    Raises:
        InputError: another task, or less than one copy.
    """

    def __init__(self, env: str, copies: int) -> None:
        if env not in TASKS:
            raise InputError(f"unknown task {env!r}, expected one of {', '.join(TASKS)}")
        gymnasium_id, objectives, rewards = TASKS[env]
        super().__init__(gymnasium_id, copies)
        self.spec = dataclasses.replace(self.spec, name=env, objectives=objectives)
        single = self._formula

        def formula(now: Moved) -> tuple[Array, Array, Flags]:
            obs, _, term = single(now)
            effort = -(now.task._ctrl_cost_weight * np.sum(np.square(now.act), axis=1))
            fallen = np.asarray(term, dtype=np.bool_)
            return obs, rewards(now, effort, fallen).astype(np.float64), fallen

        self._formula = formula
