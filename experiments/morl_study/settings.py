"""What the study of fronts compares: tasks with their conventions, ways to a front, and how long they may learn."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agents.multi_objective.c_morl import CMORLConfig
from pbrl.errors import InputError
from pbrl.evaluation import EVALUATION_SEED

from ..command_line.options import Flag

EXTENSIONS = {"none": "c_morl, no extension", "barrier": "c_morl", "lagrangian": "c_morl, lagrangian"}
"""What follows C-MORL's first stage -> the name of the row. After none, the first stage goes on to the end."""
SWEEP = "ppo"
"""The name of the fixed-weight sweep: the last policies of the first stage that went on to the end, one per weights."""


@dataclass(frozen=True)
class Task:
    """A problem, what its fronts are measured by, and what suits it of an agent's settings.

    Attributes:
        env: its id.
        title: what it is called in tables.
        reference: [K] corner of the hypervolume, in raw returns.
        gamma: discount, of training and of the returns that are measured.
        weight_steps: expected utility is over all weights that are multiples of 1 / weight_steps.
        env_steps: of a whole front, all policies and both stages together: what fits a small machine.
        episodes: that each policy plays to be measured.
        settings: of C-MORL.
        drawn_episodes: that each policy plays to be measured as it trained, too, with actions drawn; 0: it does not.
    """

    env: str
    title: str
    reference: tuple[float, ...]
    gamma: float
    weight_steps: int
    env_steps: int
    episodes: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    drawn_episodes: int = 0


_GRID: dict[str, Any] = {"lr": 1e-3, "entropy_weight": 0.02, "batch_size": 128, "environments": 8}
_LEGS: dict[str, Any] = {"lr": 5e-4, "steps": 250, "environments": 4, "batch_size": 100, "archive": 20}
_LONG = {**_LEGS, "steps": 1000, "environments": 3}  # no episode ends early: a rollout is one of each copy
_REGULATOR: dict[str, Any] = {"lr": 1e-2, "init_log_std": -1.5, "hidden": (), "normalize_obs": False}

TASKS: dict[str, Task] = {
    task.env: task
    for task in (
        Task("mo-hopper-v5", "hopper, 3 objectives", (-100.0,) * 3, 0.99, 10, 450_000, 3, _LEGS),
        Task("mo-hopper-2obj-v5", "hopper", (-100.0, -100.0), 0.99, 100, 300_000, 3, _LEGS),
        Task("mo-halfcheetah-v5", "half cheetah", (-100.0, -600.0), 0.99, 100, 450_000, 2, _LONG),
        Task(
            "FruitTree6-v0",
            "fruit tree, 6 objectives",
            (-1.0,) * 6,
            1.0,
            5,
            180_000,
            1,
            {**_GRID, "steps": 24, "archive": 100},
        ),
        Task(
            "DeepSeaTreasure-v0",
            "deep sea treasure, convex",
            (0.0, -25.0),
            1.0,
            100,
            180_000,
            1,
            {**_GRID, "steps": 64, "archive": 20},
            drawn_episodes=50,
        ),
        Task(
            "DeepSeaTreasureConcave-v0",
            "deep sea treasure, concave",
            (0.0, -25.0),
            1.0,
            100,
            180_000,
            1,
            {**_GRID, "steps": 64, "archive": 20},
            drawn_episodes=50,
        ),
        Task(
            "TwoObjectiveLQR-v0",
            "regulator",
            (-310.0, -310.0),
            0.9,
            100,
            180_000,
            1,
            {**_REGULATOR, "steps": 50, "batch_size": 100, "archive": 50},
        ),
    )
}
"""The longest first, so that two cores end at about the same time."""


@dataclass(frozen=True)
class Scale:
    """How much is computed.

    Attributes:
        seeds: the members' seeds.
        steps: environment steps of a front; None: each task's own number.
        first_share: of the updates, for the first stage.
        rounds: of extension, in the updates that are left; fewer where these are few.
        policies: S, trained at once.
        measurements: how often the archive is looked at on the way.
        most_episodes: that a policy plays to be measured; a task may ask for fewer.
        play_seed: of the first of these episodes.
    """

    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int | None = None
    first_share: float = 0.6
    rounds: int = 3
    policies: int = 6
    measurements: int = 20
    most_episodes: int = 3
    play_seed: int = 4 * EVALUATION_SEED


FULL = Scale()
QUICK = Scale(steps=40_000, rounds=2, measurements=10, most_episodes=1)
LEAST_ROUND = 8
"""Updates of a round of extension at least, however few are left."""
QUICK_TASKS = ("mo-hopper-2obj-v5", "FruitTree6-v0", "DeepSeaTreasure-v0")


@dataclass(frozen=True)
class Plan:
    """A task at a scale.

    Attributes:
        task: what is learned.
        scale: how much.
    """

    task: Task
    scale: Scale

    @property
    def name(self) -> str:
        """As files have it."""
        return self.task.env

    @property
    def episodes(self) -> int:
        """Of each policy, to be measured."""
        return min(self.task.episodes, self.scale.most_episodes)

    @property
    def steps_per_update(self) -> int:
        """Environment steps of a front between updates."""
        config = CMORLConfig(**self.task.settings)
        return config.steps * config.environments * self.scale.policies

    @property
    def updates(self) -> int:
        """Of the whole run: as many as its steps allow, at least one of each stage."""
        wanted = self.task.env_steps if self.scale.steps is None else self.scale.steps
        return max(2, wanted // self.steps_per_update)

    @property
    def first_updates(self) -> int:
        """Of the first stage: a multiple of four where there are so many, so that long episodes end with it."""
        wanted = max(1, round(self.scale.first_share * self.updates))
        return wanted // 4 * 4 or wanted

    def config(self, extension: str) -> CMORLConfig:
        """C-MORL's settings: those of the task; what is not named is the paper's."""
        extending = extension != "none"
        left = self.updates - self.first_updates
        return CMORLConfig(
            **self.task.settings,
            gamma=self.task.gamma,
            policies=self.scale.policies,
            constraint="lagrangian" if extension == "lagrangian" else "barrier",
            init_updates=self.first_updates if extending else self.updates + 1,
            extension_updates=max(LEAST_ROUND, -(-left // self.scale.rounds)),
        )


@dataclass(frozen=True)
class StudyOptions:
    """Compares fronts at the same number of environment steps; continues where an earlier call was stopped."""

    out: Path | None = None
    """Folder for what is computed; by default runs/morl, or runs/morl-quick."""
    quick: Flag = False
    """A minute or two: three tasks, few steps."""
    tasks: tuple[str, ...] = ()
    """Ids of tasks; by default all of the study's (of --quick: its three)."""
    steps: int | None = None
    """Environment steps of a front: all its policies together. By default each task's own (of --quick: 40000)."""
    seeds: tuple[int, ...] = FULL.seeds
    """A front for each."""
    processes: int = 0
    """Pieces that are trained at the same time, on a core each; 0: as many as there are cores. Fronts are the same."""

    def __post_init__(self) -> None:
        for given in self.tasks:
            if given not in TASKS:
                raise InputError(f"bench morl: unknown task {given!r}, expected of {', '.join(TASKS)}")
        for name in ("tasks", "seeds"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise InputError(f"bench morl: {name} names one twice, expected different ones")
        if not self.seeds or min(self.seeds) < 0:
            raise InputError(f"bench morl: seeds is {list(self.seeds)}, expected at least one, none below 0")
        if self.steps is not None and self.steps < 1:
            raise InputError(f"bench morl: steps is {self.steps}, expected at least 1")
        if self.processes < 0:
            raise InputError(f"bench morl: processes is {self.processes}, expected at least 0")

    @property
    def folder(self) -> Path:
        """Where it is kept."""
        return self.out or Path("runs") / ("morl-quick" if self.quick else "morl")

    @property
    def plans(self) -> dict[str, Plan]:
        """The tasks, each at the scale."""
        scale = dataclasses.replace(QUICK if self.quick else FULL, seeds=self.seeds)
        if self.steps is not None:
            scale = dataclasses.replace(scale, steps=self.steps)
        names = self.tasks or (QUICK_TASKS if self.quick else tuple(TASKS))
        return {name: Plan(TASKS[name], scale) for name in names}

    @property
    def command(self) -> str:
        """The command line that does the same."""
        words = ["pbrl bench morl"] + (["--quick"] if self.quick else [])
        words += [f"--tasks {' '.join(self.tasks)}"] if self.tasks else []
        words += [f"--steps {self.steps}"] if self.steps is not None else []
        words += [f"--seeds {' '.join(map(str, self.seeds))}"] if self.seeds != FULL.seeds else []
        return " ".join(words)
