"""``pbrl bench morl-speed``: environment steps per second of C-MORL's whole training, beside a loop of single PPOs.

The loop is what one would write without this library: policies one after the other by the PPO of stable-baselines3,
each with as many copies of mo-gymnasium's task, whose rewards are made one number; the same rollouts, minibatches and
passes, networks of the same widths, observations and rewards normalised. As the policies of a loop take turns, its rate
is that of one. Ours plays, learns, archives and extends: blocks of both stages count. The two take turns, and told is
the ratio of medians; on a machine that does something else at the same time it means little all the same, and the ratio
of processor times, which counts all threads, means more.
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import envs
from agents.multi_objective.c_morl import CMORL, CMORLConfig
from envs import multi_objective
from pbrl.errors import InputError
from pbrl.loops import Playing
from pbrl.members import sweep

_WARM = 2  # blocks that are not counted


@dataclass(frozen=True)
class SpeedOptions:
    """Measure environment steps per second of C-MORL's training, beside a loop of stable-baselines3's PPO."""

    env: str = "mo-hopper-2obj-v5"
    """A task of mo-gymnasium with several objectives."""
    policies: int = 6
    """Policies that C-MORL trains at once."""
    seeds: int = 3
    """Fronts that are trained at once, each of so many policies."""
    environments: int = 8
    """Copies of the task per policy."""
    steps: int = 128
    """Steps that each copy is played between updates."""
    batch_size: int = 128
    """Steps per minibatch of a policy."""
    epochs: int = 10
    """Passes over a rollout."""
    seconds: float = 20.0
    """Seconds of measuring for both together, after warming up."""
    threads: int | None = None
    """Threads; as many as torch takes by itself where not given."""
    json: Path | None = None
    """File for the result as JSON, - for standard output (which then has nothing else)."""

    def __post_init__(self) -> None:
        for name in ("policies", "seeds", "environments", "steps", "batch_size", "epochs", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"--{name.replace('_', '-')} is {value}, expected at least 1")
        if self.batch_size > self.environments * self.steps:
            held = self.environments * self.steps
            raise InputError(f"--batch-size is {self.batch_size}, expected at most the {held} steps of a rollout")
        if not self.seconds > 0:
            raise InputError(f"--seconds is {self.seconds:g}, expected more than 0")
        if not multi_objective.is_task(self.env):
            raise InputError(f"--env is {self.env!r}, expected a task of mo-gymnasium such as mo-hopper-2obj-v5")
        if self.json is not None and str(self.json) != "-" and not self.json.parent.is_dir():
            raise InputError(f"--json is {self.json}, but {self.json.parent} is not a folder: expected an existing one")


@dataclass(frozen=True)
class Row:
    """Medians of environment steps per second and of processor time per step, their ratios, and the load before."""

    env: str
    policies: int
    seeds: int
    environments: int
    stack_per_s: float
    loop_per_s: float
    ratio: float
    stack_cpu_us: float
    loop_cpu_us: float
    cpu_ratio: float
    blocks: int
    threads: int
    load: float
    torch: str
    stable_baselines3: str


def speed(options: SpeedOptions) -> Row:
    """Measure, print a table (or JSON) and return the row.

    Raises:
        InputError: a task that has one objective or cannot be made.
    """
    import stable_baselines3

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    load = os.getloadavg()[0]
    ours, theirs = _stack(options), _loop(options)
    rates: tuple[list[float], list[float]] = ([], [])
    costs: tuple[list[float], list[float]] = ([], [])
    for _ in range(_WARM):
        ours()
        theirs()
    end = time.perf_counter() + options.seconds
    while time.perf_counter() < end or not rates[0]:
        for rate, cost, block in zip(rates, costs, (ours, theirs)):
            start, spent = time.perf_counter(), time.process_time()
            steps = block()
            rate.append(steps / (time.perf_counter() - start))
            cost.append((time.process_time() - spent) / steps)
    stack, loop = map(statistics.median, rates)
    stack_cost, loop_cost = map(statistics.median, costs)
    row = Row(
        env=options.env,
        policies=options.policies,
        seeds=options.seeds,
        environments=options.environments,
        stack_per_s=round(stack, 1),
        loop_per_s=round(loop, 1),
        ratio=round(stack / loop, 3),
        stack_cpu_us=round(1e6 * stack_cost, 2),
        loop_cpu_us=round(1e6 * loop_cost, 2),
        cpu_ratio=round(loop_cost / stack_cost, 3),
        blocks=len(rates[0]),
        threads=torch.get_num_threads(),
        load=round(load, 2),
        torch=torch.__version__,
        stable_baselines3=stable_baselines3.__version__,
    )
    _tell(row, options)
    return row


def _stack(options: SpeedOptions) -> Callable[[], int]:
    """A block of ours: every policy plays a rollout and learns from it. Gives the number of steps."""
    config = CMORLConfig(
        policies=options.policies,
        environments=options.environments,
        steps=options.steps,
        batch_size=options.batch_size,
        epochs=options.epochs,
        init_updates=_WARM + 1,
        extension_updates=4,
        greedy=0,  # the loop measures nothing
    )
    env = envs.make(options.env, options.seeds * options.policies * options.environments)
    learner = CMORL(env.spec, sweep(config, range(options.seeds)))
    playing = Playing(env, learner.keys)

    def block() -> int:
        before = playing.env_steps
        rollout, _ = playing.collect(learner, options.steps)
        learner.update({"rollout": rollout})
        return (playing.env_steps - before) * options.seeds

    return block


class _Weighed(gymnasium.RewardWrapper[Any, Any]):
    """A task with vector rewards as one with their mean."""

    def reward(self, reward: Any) -> float:
        """The mean."""
        return float(np.mean(reward))


def _loop(options: SpeedOptions) -> Callable[[], int]:
    """A block of the loop: one policy of stable-baselines3 plays a rollout and learns from it."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    from envs.mujoco import make_one

    def one() -> Any:
        return _Weighed(make_one(options.env, choices=True))

    many = VecNormalize(DummyVecEnv([one] * options.environments), gamma=CMORLConfig.gamma)
    model = PPO(
        "MlpPolicy",
        many,
        n_steps=options.steps,
        batch_size=options.batch_size,
        n_epochs=options.epochs,
        gamma=CMORLConfig.gamma,
        policy_kwargs={"net_arch": list(CMORLConfig.hidden)},
        device="cpu",
        seed=0,
    )
    size = options.steps * options.environments

    def block() -> int:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.learn(size, reset_num_timesteps=False)
        return size

    return block


def _tell(row: Row, options: SpeedOptions) -> None:
    text = json.dumps(dataclasses.asdict(row), indent=1)
    if options.json is not None and str(options.json) == "-":
        print(text)
        return
    table = Table(title=f"environment steps per second on {row.env}, playing and learning")
    for title in ("fronts x policies", "C-MORL", "loop of PPO", "ratio", "by processor time", "threads", "load before"):
        table.add_column(title, justify="right")
    rates = (f"{row.stack_per_s:,.0f}", f"{row.loop_per_s:,.0f}", f"{row.ratio:.2f}", f"{row.cpu_ratio:.2f}")
    table.add_row(f"{row.seeds} x {row.policies}", *rates, str(row.threads), f"{row.load:.1f}")
    Console(file=sys.stdout).print(table)
    if options.json is not None:
        options.json.write_text(text + "\n", encoding="utf-8")
