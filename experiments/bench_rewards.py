"""``pbrl bench rewards``: learning from given segment pairs as one stack, beside a loop over torch modules.

The loop is what one would write without this library: one torch module and one fused Adam per network, one after the
other, in float32. Both get the same pairs, which are drawn before. The measurements take turns in short blocks, and
ratios are of medians; on a machine that does something else at the same time they mean little all the same.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import agents
from pbrl.compiler import available
from pbrl.data.source import Batch, LabelledPairs, Source
from pbrl.errors import InputError
from pbrl.members import sweep
from pbrl.nets import products

from .bench_speed import SpeedOptions, random_data

BLOCK_SECONDS = 0.25


@dataclass(frozen=True)
class RewardsOptions:
    """Measure updates on given segment pairs: a stack in float32 and in bf16, beside a loop over torch modules."""

    agents: tuple[Literal["reward_model", "cpl"], ...] = ("reward_model", "cpl")
    """What to measure: the reward ensemble, CPL's contrastive stage, or both."""
    members: tuple[int, ...] = (1, 4)
    """Numbers of members P; a member of reward_model has an ensemble of three networks."""
    seconds: float = 10.0
    """Seconds of measuring for each, after warming up."""
    pairs: int | None = None
    """Pairs per update (and network); the agent's default where not given."""
    segment_length: int = 50
    """Steps of a segment."""
    obs: int = 11
    """Length of an observation."""
    act: int = 3
    """Length of an action."""
    compile: Literal["auto", "on", "off"] = "off"
    """Compile the stack's losses (never the loop's): auto does where a compiler is found."""
    threads: int | None = None
    """Threads; as many as torch takes by itself where not given."""
    json: Path | None = None
    """File for the rows as JSON, - for standard output (which then has nothing else)."""

    def __post_init__(self) -> None:
        if not self.agents:
            raise InputError("--agents names none, expected reward_model, cpl or both")
        if not self.members or min(self.members) < 1:
            raise InputError(f"--members is {self.members}, expected numbers of at least 1")
        if not self.seconds > 0:
            raise InputError(f"--seconds is {self.seconds:g}, expected more than 0")
        for name in ("pairs", "segment_length", "obs", "act", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"--{name.replace('_', '-')} is {value}, expected at least 1")
        if self.json is not None and str(self.json) != "-" and not self.json.parent.is_dir():
            raise InputError(f"--json is {self.json}, but {self.json.parent} is not a folder: expected an existing one")


@dataclass(frozen=True)
class Row:
    """One comparison: medians of milliseconds per update of the whole population, and what the loop takes over them."""

    agent: str
    members: int
    pairs: int
    loop_ms: float
    stack_ms: float
    bf16_ms: float
    loop_over_stack: float
    loop_over_bf16: float
    compiled: bool
    threads: int
    torch: str


def rewards(options: RewardsOptions) -> list[Row]:
    """Measure, print a table (or JSON) and return the rows."""
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    before = products.get_precision()
    try:
        rows = [_measure(options, name, count) for name in options.agents for count in options.members]
    finally:
        products.set_precision(before)
    text = json.dumps([dataclasses.asdict(row) for row in rows], indent=1)
    if options.json is not None and str(options.json) == "-":
        print(text)
        return rows
    Console(file=sys.stdout).print(_table(rows))
    if options.json is not None:
        options.json.write_text(text + "\n", encoding="utf-8")
    return rows


def _measure(options: RewardsOptions, name: str, count: int) -> Row:
    sizes = SpeedOptions(
        obs=options.obs, act=options.act, segment_length=options.segment_length, transitions=200 * 1000
    )
    dataset, preferences = random_data(sizes)
    source = Source.of(preferences=preferences)
    algorithm = agents.find(name)
    changes: dict[str, Any] = {"bc_updates": 0} if name == "cpl" else {}
    changes |= {} if options.pairs is None else {"batch_size": options.pairs}
    config = algorithm.config(**changes)
    compiled = options.compile == "on" or (options.compile == "auto" and available())

    def stack(precision: products.Precision) -> Callable[[], None]:
        learner = algorithm.make(dataset.spec, sweep(config, range(count), compile=compiled))
        batch = source.draw(learner.wants(), learner.keys, 0)

        def update() -> None:
            products.set_precision(precision)
            learner.update(batch)

        return update

    learner = algorithm.make(dataset.spec, sweep(config, range(count)))
    batch = source.draw(learner.wants(), learner.keys, 0)
    loop = _reward_loop(config, batch) if name == "reward_model" else _cpl_loop(config, batch)
    loop_s, stack_s, bf16_s = _medians([loop, stack("float32"), stack("bf16")], options.seconds)
    return Row(
        agent=name,
        members=count,
        pairs=config.batch_size,
        loop_ms=round(1e3 * loop_s, 3),
        stack_ms=round(1e3 * stack_s, 3),
        bf16_ms=round(1e3 * bf16_s, 3),
        loop_over_stack=round(loop_s / stack_s, 3),
        loop_over_bf16=round(loop_s / bf16_s, 3),
        compiled=compiled and available(),
        threads=torch.get_num_threads(),
        torch=torch.__version__,
    )


def _medians(updates: list[Callable[[], None]], seconds: float) -> list[float]:
    """Median seconds of each update, measured in turns for about ``seconds`` each."""
    blocks = []
    for update in updates:
        for _ in range(3):
            update()
        blocks.append(max(1, round(BLOCK_SECONDS / _seconds(update, 1))))
    times: list[list[float]] = [[] for _ in updates]
    end = time.perf_counter() + seconds * len(updates)
    while time.perf_counter() < end or not times[0]:
        for own, update, block in zip(times, updates, blocks):
            own.append(_seconds(update, block))
    return [statistics.median(own) for own in times]


def _seconds(update: Callable[[], None], count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        update()
    return (time.perf_counter() - start) / count


def _perceptron(
    inputs: int, hidden: tuple[int, ...], outputs: int, between: Callable[[], list[nn.Module]]
) -> nn.Module:
    layers: list[nn.Module] = []
    for size in hidden:
        layers += [nn.Linear(inputs, size), *between()]
        inputs = size
    return nn.Sequential(*layers, nn.Linear(inputs, outputs), nn.Tanh())


def _step(loss: Tensor, optimiser: torch.optim.Optimizer) -> None:
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def _reward_loop(config: Any, batch: Batch) -> Callable[[], None]:
    """A torch module per member and copy, each with its own pairs of the batch."""
    networks = []
    for pairs in _each(batch["pairs"]):
        for copy in range(config.ensemble):
            own = slice(copy * config.batch_size, (copy + 1) * config.batch_size)
            steps = torch.cat([pairs.obs[own], pairs.act[own]], dim=-1)
            net = _perceptron(steps.shape[-1], config.hidden, 1, lambda: [nn.LeakyReLU()])
            optimiser = torch.optim.Adam(net.parameters(), lr=config.lr, fused=True)
            networks.append((net, optimiser, steps, pairs.label[own]))

    def update() -> None:
        for net, optimiser, steps, label in networks:
            total = net(steps).squeeze(-1).sum(-1)
            _step(F.binary_cross_entropy_with_logits(total[:, 1] - total[:, 0], label), optimiser)

    return update


def _cpl_loop(config: Any, batch: Batch) -> Callable[[], None]:
    """A torch module per member, with torch's dropout."""
    networks = []
    for pairs in _each(batch["pairs"]):
        sizes = (pairs.obs.shape[-1], config.hidden, pairs.act.shape[-1])
        net = _perceptron(*sizes, lambda: [nn.Dropout(config.dropout), nn.ReLU()])
        optimiser = torch.optim.Adam(net.parameters(), lr=config.lr, fused=True)
        discount = config.gamma ** torch.arange(pairs.obs.shape[-2])
        networks.append((net, optimiser, pairs, config.alpha * discount))

    def update() -> None:
        for net, optimiser, pairs, weight in networks:
            log_prob = -(pairs.act - net(pairs.obs)).square().sum(-1)
            first, second = (log_prob * weight).sum(-1).unbind(1)
            to_second, to_first = F.softplus(config.bias * first - second), F.softplus(config.bias * second - first)
            _step((pairs.label * to_second + (1.0 - pairs.label) * to_first).mean(), optimiser)

    return update


def _each(pairs: LabelledPairs) -> list[LabelledPairs]:
    """The pairs of each member, without the population axis."""
    return [LabelledPairs(*parts) for parts in zip(pairs.obs, pairs.act, pairs.label)]


def _table(rows: list[Row]) -> Table:
    table = Table(title="milliseconds per update on given pairs, and the loop's time over the stack's")
    for title in ("agent", "P", "pairs", "loop", "stack", "bf16", "loop / stack", "loop / bf16"):
        table.add_column(title, justify="left" if title == "agent" else "right")
    for row in rows:
        times = [f"{value:,.2f}" for value in (row.loop_ms, row.stack_ms, row.bf16_ms)]
        ratios = [f"{value:.2f}" for value in (row.loop_over_stack, row.loop_over_bf16)]
        table.add_row(row.agent, str(row.members), str(row.pairs), *times, *ratios)
    return table
