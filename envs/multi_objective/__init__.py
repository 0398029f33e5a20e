"""Problems with several objectives: rewards are [n, K].

Small ones are our own, stepped as arrays, and their fronts are known exactly. The tasks of mo-gymnasium (minecart, ...)
are played through ``envs.mujoco.GymnasiumCopies``, which restarts its copies explicitly, so that nothing depends on
auto-reset; but MO-Hopper and MO-HalfCheetah are batched (``locomotion``).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping

import gymnasium

from . import locomotion
from .analytic import Bandit, Regulator
from .batched import Batched, Rules
from .fruit_tree import FruitTree
from .locomotion import BatchedLocomotion
from .resource_gathering import ResourceGathering
from .sea_treasure import CONCAVE, CONVEX, SeaTreasure

__all__ = [
    "Bandit",
    "Batched",
    "BatchedLocomotion",
    "FruitTree",
    "Regulator",
    "ResourceGathering",
    "SeaTreasure",
    "locomotion",
    "rules",
    "task_names",
]

RULES: Mapping[str, Callable[[], Rules]] = {
    "DeepSeaTreasure-v0": lambda: SeaTreasure("DeepSeaTreasure-v0", CONVEX),
    "DeepSeaTreasureConcave-v0": lambda: SeaTreasure("DeepSeaTreasureConcave-v0", CONCAVE),
    "FruitTree5-v0": lambda: FruitTree(5),
    "FruitTree6-v0": lambda: FruitTree(6),
    "FruitTree7-v0": lambda: FruitTree(7),
    "ResourceGathering-v0": lambda: ResourceGathering(),
    "ParabolaBandit-v0": lambda: Bandit("ParabolaBandit-v0", shift=0.0),
    "ShiftedParabolaBandit-v0": lambda: Bandit("ShiftedParabolaBandit-v0", shift=4.0),
    "TwoObjectiveLQR-v0": lambda: Regulator(),
}


def rules(env: str) -> Rules | None:
    """The rules that an id names; None for ids that are not our own."""
    return RULES[env]() if env in RULES else None


def task_names() -> list[str]:
    """The ids of mo-gymnasium's tasks."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    import mo_gymnasium  # registers its tasks; it brings pygame, which no one else should have to wait for

    owner = mo_gymnasium.__name__
    return sorted(name for name, spec in gymnasium.registry.items() if str(spec.entry_point).startswith(owner))


def is_task(env: str) -> bool:
    """Whether mo-gymnasium has a task of that id. Only ids that look like one of its are looked up."""
    return bool(re.fullmatch(r"[a-z0-9-]+-v\d+", env)) and env in task_names()
