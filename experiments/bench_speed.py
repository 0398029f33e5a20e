"""``pbrl bench speed``: how many member-updates per second each agent makes, by the number of members.

Beside each rate stands the *floor*: the rate if an update were nothing but its matrix products, at the speed that this
machine reaches in products of the agent's hidden size. Timings are wall-clock medians over blocks of about a quarter of
a second; on a machine that does something else at the same time they mean little.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TextIO

import torch
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

import agents
from agents import Algorithm
from pbrl import rng
from pbrl.agent import Learner, Staged
from pbrl.compiler import available
from pbrl.data.dataset import Dataset
from pbrl.data.preferences import By, Pairs, Preferences
from pbrl.data.segments import Segments
from pbrl.data.source import Source
from pbrl.errors import InputError
from pbrl.members import Members, sweep
from pbrl.nets import products
from pbrl.spec import Spec

EPISODE = 1000
BLOCK_SECONDS = 0.25


@dataclass(frozen=True)
class SpeedOptions:
    """Measure member-updates per second of each agent and number of members."""

    agents: tuple[str, ...] = ()
    """Agents to measure; all where none is named."""
    members: tuple[int, ...] = (1, 2, 4, 8, 16)
    """Numbers of members P."""
    seconds: float = 2.0
    """Seconds of measuring for each, after warming up."""
    obs: int = 11
    """Length of an observation."""
    act: int = 3
    """Length of an action."""
    transitions: int = 1_000_000
    """Rows of the random data set."""
    segment_length: int = 64
    """Steps of a segment, for agents that learn from pairs."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Compile the losses: auto does where a compiler is found."""
    precision: Literal["float32", "bf16"] = "float32"
    """Operands of large matrix products."""
    threads: int | None = None
    """Threads; as many as torch takes by itself where not given."""
    device: str = "cpu"
    """cpu or cuda."""
    json: Path | None = None
    """File for the rows as JSON, - for standard output (which then has nothing else)."""

    def __post_init__(self) -> None:
        for name in ("obs", "act", "segment_length", "transitions"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name.replace('_', '-')} is {getattr(self, name)}, expected at least 1")
        if not self.members or min(self.members) < 1:
            raise InputError(f"--members is {self.members}, expected numbers of at least 1")
        if not self.seconds > 0:
            raise InputError(f"--seconds is {self.seconds:g}, expected more than 0")
        if self.threads is not None and self.threads < 1:
            raise InputError(f"--threads is {self.threads}, expected at least 1")
        if self.transitions < 2 * self.segment_length:
            raise InputError(f"--transitions is {self.transitions}, expected at least two segments' worth")
        if self.device != "cpu" and not torch.cuda.is_available():
            raise InputError(f"--device is {self.device!r}, but torch finds no CUDA device here: expected cpu")
        for name in self.agents:
            agents.find(name)
        if self.json is not None and str(self.json) != "-" and not self.json.parent.is_dir():
            raise InputError(f"--json is {self.json}, but {self.json.parent} is not a folder: expected an existing one")


@dataclass(frozen=True)
class Row:
    """One measurement."""

    agent: str
    members: int
    member_updates_per_s: float
    floor_per_s: float
    precision: str
    compiled: bool
    device: str
    threads: int
    torch: str


def learn_from_data() -> list[str]:
    """The agents that learn from stored data with one reward per step: the others play in a simulator of their own."""

    def suits(name: str) -> bool:
        algorithm = agents.find(name)
        if algorithm.family == "multi_objective":
            return False
        return "rollout" not in algorithm.make(Spec("random", 3, 2), sweep(algorithm.config(), [0])).wants()

    return [name for name in agents.names() if suits(name)]


def speed(options: SpeedOptions) -> list[Row]:
    """Measure, print a table (or JSON) and return the rows."""
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    before = products.get_precision()
    products.set_precision(options.precision)
    stdout_is_json = options.json is not None and str(options.json) == "-"
    console = Console(file=sys.stderr if stdout_is_json else sys.stdout)
    try:
        rows = _measure_all(options, console)
    finally:
        products.set_precision(before)
    console.print(_table(rows))
    for name in dict.fromkeys(row.agent for row in rows):
        best = max((row for row in rows if row.agent == name), key=lambda row: row.member_updates_per_s)
        console.print(f"{name}: P = {best.members} is recommended here, the fastest per member of those measured")
    if options.json is not None:
        _write(rows, sys.stdout if stdout_is_json else options.json)
    return rows


def _measure_all(options: SpeedOptions, console: Console) -> list[Row]:
    dataset, preferences = random_data(options)
    source = Source.of(dataset, preferences, device=options.device)
    compiled = options.compile == "on" or (options.compile == "auto" and available())
    product_rates: dict[int, float] = {}
    rows = []
    for name in options.agents or learn_from_data():
        algorithm = agents.find(name)
        config = last_stage(algorithm)
        width = max(getattr(config, "hidden", (256,)), default=256)
        if width not in product_rates:
            product_rates[width] = product_rate(width, options.device)
        flops = flops_of_update(algorithm, config, dataset, preferences)
        for count in options.members:
            members = sweep(config, range(count), device=options.device, compile=compiled)
            learner = algorithm.make(dataset.spec, members)
            if options.device != "cpu" and isinstance(learner, torch.nn.Module):
                learner.to(options.device)
            rate = count * updates_per_s(learner, source, options.seconds)
            rows.append(
                Row(
                    agent=name,
                    members=count,
                    member_updates_per_s=round(rate, 2),
                    floor_per_s=round(product_rates[width] / flops, 2),
                    precision=options.precision,
                    compiled=compiled and available(),
                    device=options.device,
                    threads=torch.get_num_threads(),
                    torch=torch.__version__,
                )
            )
            console.print(f"{name} P={count}: {rate:,.1f} member-updates/s")
            torch.compiler.reset()
    return rows


def random_data(options: SpeedOptions) -> tuple[Dataset, Preferences]:
    """Transitions of standard normal numbers (actions clipped), and 1000 pairs of their segments, labelled by coin."""
    key, count = rng.keys([0])[0], options.transitions
    obs = rng.normal(rng.fold(key, "obs"), count + 1, options.obs)
    act = rng.normal(rng.fold(key, "act"), count, options.act).clamp(-1.0, 1.0)
    rew = rng.normal(rng.fold(key, "rew"), count)
    trunc = torch.arange(1, count + 1) % max(EPISODE, options.segment_length) == 0
    dataset = Dataset(
        "random", "", obs[:-1], act, rew, obs[1:], torch.zeros_like(trunc), trunc,
        torch.arange(0, count, max(EPISODE, options.segment_length)), {},
    )  # fmt: skip
    first = rng.indices(rng.fold(key, "segments"), 2000, count // options.segment_length)
    inside = first * options.segment_length
    end = (dataset.start + dataset.lengths)[torch.searchsorted(dataset.start, inside, right=True) - 1]
    segments = Segments.at(dataset, torch.minimum(inside, end - options.segment_length), options.segment_length)
    order = torch.arange(2000)
    label = (rng.uniform(rng.fold(key, "label"), 1000) < 0.5).float()
    return dataset, Preferences(Pairs(segments, order[:1000], order[1000:]), label, By("a coin"))


def last_stage(algorithm: Algorithm[Any]) -> Any:
    """The algorithm's default config with all stages but the last cut to one update: that is where runs spend time."""
    names = {field.name for field in dataclasses.fields(algorithm.config)}
    return algorithm.config(**{name: 1 for name in ("bc_updates", "reward_updates") if name in names})


def updates_per_s(learner: Learner, source: Source, seconds: float) -> float:
    """The median rate of updates over blocks, after the stages before the last and a warm-up."""
    data = source

    def run(count: int) -> float:
        nonlocal data
        start = time.perf_counter()
        for _ in range(count):
            if isinstance(learner, Staged) and learner.updates in (0, *learner.boundaries):
                data = learner.prepare(source)
            learner.update(data.draw(learner.wants(), learner.keys, learner.updates))
        if source.device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / count

    run(5)
    block = max(1, round(BLOCK_SECONDS / min(run(1) for _ in range(3))))
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or not times:
        times.append(run(block))
    return 1.0 / statistics.median(times)


def flops_of_update(algorithm: Algorithm[Any], config: Any, dataset: Dataset, preferences: Preferences) -> float:
    """Floating-point operations in the matrix products of one update of one member, counted as torch runs it."""
    few = dataset.rows(torch.arange(1))
    members: Members[Any] = sweep(config, [0], dtype=torch.float64)
    learner = algorithm.make(dataset.spec, members)
    source = Source.of(few, preferences, dtype=torch.float64)
    data, counted = source, 0
    for update in range(3):
        if isinstance(learner, Staged) and update in (0, *learner.boundaries):
            data = learner.prepare(source)
        batch = data.draw(learner.wants(), learner.keys, update)
        with FlopCounterMode(display=False) as counter:
            learner.update(batch)
        counted = counter.get_total_flops()
    return float(counted)


def product_rate(width: int, device: str) -> float:
    """FLOP/s in affine maps of 256 rows and ``width`` inputs and outputs, by the kernel that networks would use."""
    key = rng.keys([1], device=device)[0]
    x, w = (rng.normal(rng.fold(key, name), 1, rows, width) for name, rows in (("x", 256), ("w", width)))
    b = torch.zeros(1, 1, width, device=device)
    times: list[float] = []
    for _ in range(7):
        start = time.perf_counter()
        for _ in range(50):
            products.affine(x, w, b)
        if device != "cpu":
            torch.cuda.synchronize()
        times.append((time.perf_counter() - start) / 50)
    return 2.0 * 256 * width * width / statistics.median(times)


def _table(rows: list[Row]) -> Table:
    table = Table(title="member-updates per second")
    for title in ("agent", "P", "measured", "floor", "of floor"):
        table.add_column(title, justify="left" if title == "agent" else "right")
    for row in rows:
        share = row.member_updates_per_s / row.floor_per_s
        table.add_row(
            row.agent, str(row.members), f"{row.member_updates_per_s:,.1f}", f"{row.floor_per_s:,.1f}", f"{share:.0%}"
        )
    return table


def _write(rows: list[Row], to: Path | TextIO) -> None:
    text = json.dumps([dataclasses.asdict(row) for row in rows], indent=1)
    if isinstance(to, Path):
        to.write_text(text + "\n", encoding="utf-8")
    else:
        print(text, file=to)
