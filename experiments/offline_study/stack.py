"""One stack of the study: all seeds of an agent on a data set are trained, play, and leave a file behind.

At each evaluation a stack keeps a checkpoint and the scores so far, so that one that is stopped goes on from there.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import agents
import envs
from pbrl import data, evaluation, loops
from pbrl.agent import Agent
from pbrl.compiler import available
from pbrl.data import Dataset
from pbrl.data.d4rl import load_d4rl
from pbrl.data.reference_scores import normalise
from pbrl.data.source import Source
from pbrl.errors import InputError
from pbrl.members import Members, sweep
from pbrl.records import checkpoint, environment

from .. import kept
from ..command_line.problem import check_simulator
from .settings import Scale, Task, agent_config, changed, updates_of

TOGETHER = 10  # episodes of a member that are played at once, at most
VERSIONS = ("pbrl", "python", "torch", "numpy", "gymnasium", "mujoco")


@dataclass(frozen=True)
class Plan:
    """What one stack is.

    Attributes:
        agent: name of the algorithm.
        task: the data set.
        scale: how much is computed.
        device: cpu or cuda.
        rows: fingerprint of the data.
    """

    agent: str
    task: Task
    scale: Scale
    device: str
    rows: str

    @property
    def name(self) -> str:
        """As files have it."""
        return f"{self.task.name}-{self.agent}"

    @property
    def updates(self) -> int:
        """How many updates are made."""
        return updates_of(self.agent, self.scale)

    def population(self) -> Members[Any]:
        """The members: one config, a seed each."""
        config = agent_config(self.agent, self.task.kind, self.scale)
        compile = self.scale.budget == "paper" and available()
        return sweep(config, self.scale.seeds, device=self.device, compile=compile)

    def description(self) -> dict[str, Any]:
        """All that decides the outcome but the code, as JSON has it."""
        config = dataclasses.asdict(agent_config(self.agent, self.task.kind, self.scale))
        task = {name: value for name, value in dataclasses.asdict(self.task).items() if name != "file"}
        own = {"agent": self.agent, "config": config, "updates": self.updates, "device": self.device}
        return kept.plain({**own, "task": task, "scale": dataclasses.asdict(self.scale), "rows": self.rows})


class Curve(nn.Module):
    """Returns at the evaluations so far, [P] each, and the seconds that they took."""

    def __init__(self) -> None:
        super().__init__()
        self.updates: list[int] = []
        self.returns: list[Tensor] = []
        self.seconds = 0.0

    def get_extra_state(self) -> Tensor:
        """A row for each evaluation: updates, seconds, and the members' returns."""
        rows = [
            torch.cat([torch.tensor([count, self.seconds]).double(), one])
            for count, one in zip(self.updates, self.returns)
        ]
        return torch.stack(rows) if rows else torch.zeros(0, 2)

    def set_extra_state(self, state: Tensor) -> None:
        """Restores them."""
        self.updates = [int(count) for count in state[:, 0]]
        self.returns = list(state[:, 2:])
        self.seconds = float(state[:, 1].max()) if len(state) else 0.0


def load(task: Task) -> Dataset:
    """A task's data.

    Raises:
        InputError: none, damaged, of other sizes than its simulator, or without reference returns.
    """
    dataset = load_d4rl(task.file) if task.file else data.load(task.dataset)
    if not dataset.info.get("reference"):
        raise InputError(f"{dataset.name} has no reference returns, expected data of pbrl data make or of D4RL")
    check_simulator(task.env, dataset.spec)
    return dataset


def path_of(one: Plan, folder: Path) -> Path:
    """The file that a stack leaves behind."""
    return folder / "stacks" / f"{one.name}.json"


def finished(one: Plan, folder: Path) -> dict[str, Any] | None:
    """What an earlier call left behind, if it did the same on the same rows of data.

    Raises:
        InputError: the file is damaged.
    """
    return kept.find(path_of(one, folder), one.description())


def work(name: str, tick: Callable[[float, float], None], plans: Mapping[str, Plan], folder: Path) -> str:
    """Train the stack of this name and write its file; ``tick(seconds, mean score)`` at the end."""
    one = plans[name]
    result = train(one, load(one.task), folder / "stacks" / one.name)
    kept.save(path_of(one, folder), result)
    shutil.rmtree(folder / "stacks" / one.name)
    last = normalise(np.array([returns[-1] for returns in result["returns"]]), result["reference"])
    kept_up = last[np.isfinite(last)]
    tick(result["seconds"], float(kept_up.mean()) if len(kept_up) else math.nan)
    return name


def train(one: Plan, dataset: Dataset, folder: Path) -> dict[str, Any]:
    """A stack's members trained in lock-step: plain numbers, as JSON has them (NaN where one diverged).

    Args:
        folder: of the checkpoint.
    """
    scale, members, curve = one.scale, one.population(), Curve()
    learner = agents.find(one.agent).make(dataset.spec, members)
    if not isinstance(learner, Agent):
        raise InputError(f"{one.agent} does not act, expected an agent that does")
    assert isinstance(learner, nn.Module)
    learner.to(one.device)
    digest = _digest(one.description())
    found = checkpoint.find(folder)
    if found is not None and found.config == digest:
        checkpoint.load(folder, learner, agent=one.agent, config=digest)
        checkpoint.load_collected(folder, curve)
    source = Source.of(dataset, device=one.device)
    began = time.perf_counter() - curve.seconds
    env = envs.make(one.task.env, len(members) * min(scale.episodes, TOGETHER))
    try:
        for _ in loops.offline(learner, source, one.updates, every=one.updates // scale.evaluations):
            played = evaluation.rollout(
                learner.act,
                env,
                members=len(members),
                episodes=scale.episodes,
                seed=scale.play_seed,
                device=one.device,
            )
            curve.updates.append(learner.updates)
            curve.returns.append(torch.from_numpy(played.mean))
            curve.seconds = time.perf_counter() - began
            checkpoint.save(folder, learner, agent=one.agent, config=digest, collected=curve.state_dict())
    finally:
        env.close()
    machine = environment.describe()
    return {
        "description": one.description(),
        "settings": changed(one.agent, one.task.kind, scale),
        "seeds": list(members.seeds),
        "updates": curve.updates,
        "returns": torch.stack(curve.returns, dim=1).tolist(),
        "episodes": scale.episodes,
        "reference": list(map(float, dataset.info["reference"])),
        "data_return": mean_return(dataset),
        "transitions": len(dataset),
        "seconds": round(curve.seconds, 1),
        "versions": {name: machine[name] for name in VERSIONS},
        "commit": machine["commit"],
        "device": machine["cuda"] or one.device if one.device == "cuda" else one.device,
        "threads": torch.get_num_threads(),
    }


def mean_return(dataset: Dataset) -> float:
    """The mean return of the episodes that came to an end; of all, where none did."""
    last = dataset.start + dataset.lengths - 1
    ended = (dataset.term | dataset.trunc)[last]
    total = torch.zeros(len(last), dtype=torch.float64)
    episode = torch.repeat_interleave(torch.arange(len(last)), dataset.lengths)
    total.index_add_(0, episode, dataset.rew.double())
    return float(total[ended].mean() if ended.any() else total.mean())


def _digest(description: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:16]
