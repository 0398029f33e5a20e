"""One stack of the study: a run of ``pbrl train`` that goes on where it was stopped, and its file of results."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import agents
from pbrl.handover import handover
from pbrl.records import environment
from pbrl.records.run import Run

from .. import kept
from ..command_line import plan as planning
from ..command_line.arguments import Request, parse
from ..command_line.train import train as fit
from .settings import Scale, Task, words

VERSIONS = ("pbrl", "python", "torch", "numpy", "gymnasium", "mujoco")


@dataclass(frozen=True)
class Plan:
    """What one stack is.

    Attributes:
        agent: name of the algorithm.
        task: the data set.
        scale: how much is computed.
        rows: fingerprint of the data.
    """

    agent: str
    task: Task
    scale: Scale
    rows: str

    @property
    def name(self) -> str:
        """As files have it."""
        return f"{self.task.dataset.replace('/', '-')}-{self.agent}"

    @property
    def words(self) -> list[str]:
        """What ``pbrl train`` is told."""
        return words(self.agent, self.task, self.scale)

    @property
    def request(self) -> Request:
        """What that asks for."""
        first, *others = self.words
        return parse(agents.find(first), others)

    def description(self) -> dict[str, Any]:
        """All that decides the outcome but the code, as JSON has it."""
        request = self.request
        settings = {**request.shared, **request.swept}
        return kept.plain({"words": self.words, "settings": settings, "rows": self.rows})


def finished(one: Plan, folder: Path) -> dict[str, Any] | None:
    """What an earlier call left behind, if it did the same.

    Raises:
        InputError: the file is damaged.
    """
    return kept.find(_path(one, folder), one.description())


def _path(one: Plan, folder: Path) -> Path:
    return folder / "stacks" / f"{one.name}.json"


def work(name: str, tick: Callable[[float, str], None], plans: Mapping[str, Plan], folder: Path) -> str:
    """Train the stack of this name and write its file; ``tick(seconds, what became of it)`` at the end."""
    one = plans[name]
    began = time.perf_counter()
    planned = planning.plan(one.request)
    run = _run(planned, folder / "stacks" / one.name)
    fit(planned, run, lambda *_: None)
    env_steps, scores = run.series("score")
    machine = environment.describe()
    assert planned.simulator is not None  # every task names one
    result = {
        "description": one.description(),
        "agent": one.agent,
        "dataset": one.task.dataset,
        "env": planned.simulator.env,
        "reference": list(planned.simulator.reference or ()),
        "seeds": list(one.scale.seeds),
        "env_steps": env_steps,
        "scores": scores,
        "updates": planned.request.options.offline_updates,
        "episodes": planned.request.options.run.episodes,
        "run": run.folder.name,
        "seconds": round(time.perf_counter() - began, 1),
        "versions": {name: machine[name] for name in VERSIONS},
        "commit": machine["commit"],
        "device": planned.machine.device,
        "threads": torch.get_num_threads(),
    }
    kept.save(_path(one, folder), result)
    found = handover(env_steps, scores)
    offline, last = float(np.nanmean(found.offline)), float(np.nanmean(found.last))
    tick(result["seconds"], f"mean score {offline:.1f} on data, {last:.1f} after {env_steps[-1]} steps online")
    return name


def _run(planned: planning.Plan, parent: Path) -> Run:
    """The run that an earlier call began, if it was to do the same; else a new one."""
    for folder in sorted((parent / "train").glob("*/config.json")):
        run = Run.open(folder.parent)
        if run.config.get("identity") == planned.identity:
            return run
    options = planned.request.options
    placed = dataclasses.replace(options, run=dataclasses.replace(options.run, out=parent))
    return planning.start(dataclasses.replace(planned, request=dataclasses.replace(planned.request, options=placed)))
