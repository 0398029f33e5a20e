"""MO-Hopper and MO-HalfCheetah as one batch: mo-gymnasium's rewards [n, K] on the batched simulator's trajectories.

The tasks are Gymnasium's with other rewards, so episodes, observations and ends are those of ``BatchedMuJoCo``. Rewards
are summed up in float32, as mo-gymnasium does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pbrl.errors import InputError

from ..batched_mujoco import BatchedMuJoCo, Moved

Array = NDArray[np.float64]
Single = NDArray[np.float32]
Rewards = Callable[[Any, Array, Array, Single, NDArray[np.bool_]], Single]
"""task, qpos [n, nq], speed [n], minus the weighed effort [n], fallen [n] -> [n, K]."""


def _hopper(task: Any, qpos: Array, speed: Array, effort: Single, fallen: NDArray[np.bool_]) -> Single:
    """Speed, height and effort, and what standing is worth added to each."""
    energy = effort / task._ctrl_cost_weight
    rew = np.stack([speed, _height(task, qpos), energy], axis=1, dtype=np.float32, casting="same_kind")
    return np.asarray(rew + _standing(task, fallen), dtype=np.float32)


def _hopper_of_two(task: Any, qpos: Array, speed: Array, effort: Single, fallen: NDArray[np.bool_]) -> Single:
    """Speed and height; effort and standing are added to both."""
    rew = np.stack([speed, _height(task, qpos)], axis=1, dtype=np.float32, casting="same_kind")
    return np.asarray(rew + effort[:, None] + _standing(task, fallen), dtype=np.float32)


def _cheetah(task: Any, qpos: Array, speed: Array, effort: Single, fallen: NDArray[np.bool_]) -> Single:
    """Speed and effort."""
    del qpos, fallen
    both = np.stack([speed, effort / task._ctrl_cost_weight], axis=1, dtype=np.float32, casting="same_kind")
    return np.asarray(both)


def _height(task: Any, qpos: Array) -> Array:
    return np.asarray(10 * (qpos[:, 1] - task.init_qpos[1]))


def _standing(task: Any, fallen: NDArray[np.bool_]) -> Single:
    return (task._healthy_reward * ~fallen)[:, None].astype(np.float32)


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

        def formula(now: Moved) -> tuple[Array, Array, NDArray[np.bool_] | NDArray[Any]]:
            obs, _, term = single(now)
            effort = -(now.task._ctrl_cost_weight * np.sum(np.square(now.act), axis=1))
            return obs, rewards(now.task, now.qpos, now.speed, effort, term).astype(np.float64), term

        self._formula = formula
