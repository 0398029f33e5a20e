"""``pbrl bench online`` and ``pbrl bench simulators``: environment steps per second, beside stable-baselines3's SAC and
Gymnasium's SyncVectorEnv.

The two sides of a comparison take turns in short blocks. On a machine that does something else at the same time, the
clock on the wall tells little; so rates per second of processor time stand beside, and the load is told.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import agents
import envs
from envs import batched_mujoco, mujoco
from pbrl import loops, rng
from pbrl.compiler import available
from pbrl.data.buffer import Buffer
from pbrl.errors import InputError
from pbrl.members import sweep
from pbrl.play.collector import Collector

from .command_line.options import Flag
from .in_turns import Rate, in_turns

_BLOCK = 50
"""Steps of each member, or of each copy, in a block."""
_FIRST = 500
"""Steps taken before updates begin."""


@dataclass(frozen=True)
class OnlineSpeedOptions:
    """Measure SAC online, one update per step: a stack of members, beside stable-baselines3's, a learner at a time."""

    members: tuple[int, ...] = (1, 4)
    """Numbers of members P."""
    env: str = "Hopper-v5"
    """Simulator: an id of Gymnasium."""
    seconds: float = 15.0
    """Seconds of measuring for each side, after warming up."""
    hidden: int = 256
    """Units in each of the two hidden layers."""
    batch_size: int = 256
    """Transitions per update."""
    compile: Flag = False
    """Compile our losses."""
    threads: int | None = None
    """Threads; as many as torch takes by itself where not given."""
    json: Path | None = None
    """File for the rows as JSON, - for standard output (which then has nothing else)."""

    def __post_init__(self) -> None:
        _check_counts("--members", self.members)
        _check_positive(self, ("hidden", "batch_size", "threads"))
        _check_common(self.seconds, self.json)
        if self.compile and not available():
            raise InputError("--compile is given but this machine has no C++ compiler, expected it left out")


@dataclass(frozen=True)
class SimulatorOptions:
    """Measure steps of copies of simulators: all in one of ours, beside Gymnasium's SyncVectorEnv."""

    envs: tuple[str, ...] = ("Hopper-v5", "HalfCheetah-v5")
    """Simulators: ids of MuJoCo tasks that are stepped together."""
    copies: tuple[int, ...] = (64,)
    """Numbers of copies."""
    seconds: float = 5.0
    """Seconds of measuring for each side, after warming up."""
    json: Path | None = None
    """File for the rows as JSON, - for standard output (which then has nothing else)."""

    def __post_init__(self) -> None:
        _check_counts("--copies", self.copies)
        _check_common(self.seconds, self.json)
        known = batched_mujoco.names()
        for name in self.envs or ("",):
            if name not in known:
                raise InputError(f"--envs names {name or 'none'!r}, expected of {', '.join(known)}")


@dataclass(frozen=True)
class Row:
    """One comparison: environment steps per second of ours, summed over members or copies, and of the other side.

    ``ratio`` is of the clock on the wall, ``cpu_ratio`` of processor time.
    """

    what: str
    env: str
    count: int
    ours: float
    theirs: float
    ratio: float
    ours_per_cpu: float
    theirs_per_cpu: float
    cpu_ratio: float
    load: float
    threads: int


def online(options: OnlineSpeedOptions) -> list[Row]:
    """Measure, print a table (or JSON) and return the rows.

    Raises:
        InputError: an unknown simulator.
    """
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    rows = [_learners(options, count) for count in options.members]
    return _told(rows, options.json, "SAC, one update per step", "stable-baselines3")


def simulators(options: SimulatorOptions) -> list[Row]:
    """Measure, print a table (or JSON) and return the rows."""
    rows = [_copies(name, count, options.seconds) for name in options.envs for count in options.copies]
    return _told(rows, options.json, "copies of a simulator", "SyncVectorEnv")


def _learners(options: OnlineSpeedOptions, members: int) -> Row:
    from stable_baselines3 import SAC

    env = envs.make(options.env, members)
    algorithm = agents.find("sac")
    widths = (options.hidden, options.hidden)
    config = algorithm.config(hidden=widths, batch_size=options.batch_size)
    learner: Any = algorithm.make(env.spec, sweep(config, range(members), compile=options.compile))
    collector = Collector(env, Buffer(env.spec, members, 100_000), learner.keys)
    ours = loops.online(learner, collector, 10**9, every=_BLOCK, random_steps=_FIRST)
    while collector.buffer.env_steps < _FIRST:
        next(ours)
    theirs = SAC(
        "MlpPolicy",
        mujoco.make_one(options.env),
        policy_kwargs={"net_arch": list(widths)},
        batch_size=options.batch_size,
        buffer_size=100_000,
        learning_starts=_FIRST,
        train_freq=1,
        gradient_steps=1,
        seed=0,
        device="cpu",
    )
    theirs.learn(_FIRST)

    def step_ours() -> None:
        next(ours)

    def step_theirs() -> None:
        theirs.learn(_BLOCK, reset_num_timesteps=False)

    found = in_turns({"ours": step_ours, "theirs": step_theirs}, options.seconds)
    env.close()
    return _row("sac", options.env, members, (_BLOCK * members, _BLOCK), found)


def _copies(name: str, copies: int, seconds: float) -> Row:
    ours = envs.make(name, copies)
    low, high = mujoco.action_bounds(mujoco.make_one(name))
    theirs = gymnasium.vector.SyncVectorEnv([lambda: mujoco.make_one(name)] * copies)
    unit = rng.uniform(rng.keys([0])[0], _BLOCK, copies, ours.spec.act_size, dtype=torch.float64).numpy()
    scaled = (low + unit * (high - low)).astype(np.float32)
    ours.reset(list(range(copies)))
    theirs.reset(seed=0)
    seeds = iter(range(copies, 1 << 30))

    def step_ours() -> None:
        for act in 2.0 * unit - 1.0:
            _, _, term, trunc = ours.step(act)
            if (end := term | trunc).any():
                ours.restart(end, [next(seeds) for _ in range(int(end.sum()))])

    def step_theirs() -> None:
        for act in scaled:
            theirs.step(act)

    found = in_turns({"ours": step_ours, "theirs": step_theirs}, seconds)
    ours.close()
    theirs.close()
    return _row("simulator", name, copies, (_BLOCK * copies, _BLOCK * copies), found)


def _row(what: str, env: str, count: int, steps: tuple[int, int], found: dict[str, Rate]) -> Row:
    (ours, theirs), (mine, other) = steps, (found["ours"], found["theirs"])
    wall, cpu = (ours / mine.wall, theirs / other.wall), (ours / mine.cpu, theirs / other.cpu)
    return Row(
        what=what,
        env=env,
        count=count,
        ours=round(wall[0], 1),
        theirs=round(wall[1], 1),
        ratio=round(wall[0] / wall[1], 3),
        ours_per_cpu=round(cpu[0], 1),
        theirs_per_cpu=round(cpu[1], 1),
        cpu_ratio=round(cpu[0] / cpu[1], 3),
        load=round(os.getloadavg()[0], 1),
        threads=torch.get_num_threads(),
    )


def _told(rows: list[Row], path: Path | None, what: str, other: str) -> list[Row]:
    text = json.dumps([dataclasses.asdict(row) for row in rows], indent=1)
    if path is not None and str(path) == "-":
        print(text)
        return rows
    load = max(row.load for row in rows)
    cores = os.cpu_count() or 1
    table = Table(title=f"environment steps per second: {what}, beside {other} (load {load} on {cores} cores)")
    columns = ("env", "count", "ours", other, "ratio", "ours / cpu s", f"{other} / cpu s", "ratio / cpu s")
    for name in columns:
        table.add_column(name, justify="left" if name == "env" else "right")
    for row in rows:
        rates = [f"{row.ours:,.0f}", f"{row.theirs:,.0f}", f"{row.ratio:.2f}"]
        rates += [f"{row.ours_per_cpu:,.0f}", f"{row.theirs_per_cpu:,.0f}", f"{row.cpu_ratio:.2f}"]
        table.add_row(row.env, str(row.count), *rates)
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 140).print(table)
    if path is not None:
        path.write_text(text + "\n", encoding="utf-8")
    return rows


def _check_counts(name: str, counts: Sequence[int]) -> None:
    if not counts or min(counts) < 1:
        raise InputError(f"{name} is {counts}, expected numbers of at least 1")


def _check_positive(options: Any, names: Sequence[str]) -> None:
    for name in names:
        value = getattr(options, name)
        if value is not None and value < 1:
            raise InputError(f"--{name.replace('_', '-')} is {value}, expected at least 1")


def _check_common(seconds: float, path: Path | None) -> None:
    if not seconds > 0:
        raise InputError(f"--seconds is {seconds:g}, expected more than 0")
    if path is not None and str(path) != "-" and not path.parent.is_dir():
        raise InputError(f"--json is {path}, but {path.parent} is not a folder: expected an existing one")
