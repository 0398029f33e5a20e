"""The population of a request: configs, names and rows of its members, and the learner that holds them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import agents
from pbrl import compiler
from pbrl.agent import Learner
from pbrl.errors import InputError
from pbrl.members import Members, schedule_fields, sweep
from pbrl.nets import products
from pbrl.spec import Spec

from .arguments import Request, option
from .options import MachineOptions

COMPILE_FROM = 20_000
"""Updates from which on compiling pays."""
_FIRST_STAGES = 0.4
"""Share of the updates that the stages before the last get where the papers' counts do not fit."""


MOST_THREADS = 1024
"""Of the CPU: more can only be a slip, which would bring the machine to a halt."""


@dataclass(frozen=True)
class Machine:
    """What to compute on and how, with nothing left to choose: device, precision, and whether to compile."""

    device: str
    precision: str
    compile: bool

    @property
    def dtype(self) -> torch.dtype:
        """Of weights and data."""
        return torch.float64 if self.precision == "float64" else torch.float32


@dataclass(frozen=True, eq=False)
class Population:
    """P members.

    Attributes:
        members: their configs and seeds; for each labels, each combination of swept values, each seed.
        labels: [P] who labelled for each.
        rows: [P] seed, labels and swept fields, for members.csv.
        whole: whether they are one group, since they copy each other as they train.
    """

    members: Members[Any]
    labels: tuple[str, ...]
    rows: tuple[dict[str, Any], ...]
    whole: bool = False

    @property
    def groups(self) -> list[str]:
        """[P] what a member shares with those that differ in the seed alone, such as "regret alpha=0.1"."""
        return ["the population"] * len(self.rows) if self.whole else self._groups()

    def _groups(self) -> list[str]:
        varied = [name for name in self.rows[0] if name not in ("member", "seed") and self._varies(name)]
        short = {name: Path(name).name for name in self.labels}  # of a file of answers, not where it is
        if len(set(short.values())) < len(short):
            short = {name: name for name in short}
        names = [" ".join(_word(name, row[name], short) for name in varied) for row in self.rows]
        return [name or short[self.labels[0]] for name in names]

    @property
    def names(self) -> list[str]:
        """[P] names of the members, e.g. "regret alpha=0.1 seed=3"."""
        return [f"{group} seed={row['seed']}" for group, row in zip(self._groups(), self.rows)]

    def _varies(self, name: str) -> bool:
        return len({str(row[name]) for row in self.rows}) > 1


def _word(name: str, value: Any, short: Mapping[str, str]) -> str:
    return short[value] if name == "labels" else f"{name}={value}"


def machine(options: MachineOptions, updates: int) -> Machine:
    """The machine that was asked for, made ready: threads and precision are set for this process.

    Raises:
        InputError: a device or compiler that is not there, or threads beyond any machine.
    """
    device = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = device.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdecimal()):
        raise InputError(f"unknown device {device!r}, expected auto, cpu, cuda or cuda:<number>")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise InputError(f"device is {device!r} but torch finds {torch.cuda.device_count()} GPUs here, expected cpu")
    if options.compile == "on" and not compiler.available():
        raise InputError("compile is 'on' but this machine has no C++ compiler, expected auto or off")
    if options.threads > MOST_THREADS:
        raise InputError(f"threads is {options.threads}, expected at most {MOST_THREADS}, better the number of cores")
    products.set_precision("bf16" if options.precision == "bf16" else "float32")
    if options.threads:
        torch.set_num_threads(options.threads)
    wanted = options.compile == "on" or (options.compile == "auto" and updates >= COMPILE_FROM)
    return Machine(device, options.precision, wanted and compiler.available())


def fitted(request: Request, updates: int | None = None) -> tuple[Request, list[str]]:
    """The request with stages that fit into its updates, and sentences about what was shortened.

    The papers' schedules are for runs of up to a million updates. Where the first stages (or the warm-up of an agent of
    one stage) would take all updates, every count of a schedule that was not given on the command line is scaled down
    alike. Schedules of a whole run end with a shorter one.

    Args:
        request: what is to be trained.
        updates: how many it makes; by default those on data.
    """
    algorithm = agents.find(request.agent)
    shared = dict(request.shared)
    counts, stages = schedule_fields(algorithm.config, "stage", "warmup"), schedule_fields(algorithm.config, "stage")
    decisive = stages or counts
    last = max((shared[name] for name in decisive), default=0)
    free = [name for name in counts if name not in request.given]
    updates = request.options.run.updates if updates is None else updates
    fit = last < updates or not all(name in free for name in decisive)
    factor = 1.0 if fit else _FIRST_STAGES * updates / last
    wanted = {name: max(1, round(shared[name] * factor)) if shared[name] else 0 for name in free}
    whole = [name for name in schedule_fields(algorithm.config, "run") if name not in request.given]
    wanted |= {name: min(shared[name], updates) for name in whole}
    said = []
    for name, shorter in wanted.items():
        if shorter != shared[name]:
            said.append(f"{option(name)} {shorter} (the paper's {shared[name]})")
            shared[name] = shorter
    sentence = f"stages are shortened to fit into {updates} updates: {', '.join(said)}"
    return (dataclasses.replace(request, shared=shared), [sentence]) if said else (request, [])


def populate(request: Request, labels: Sequence[str], on: Machine) -> Population:
    """The members of a request.

    Raises:
        InputError: values that the agent's config refuses.
    """
    config = agents.find(request.agent).config
    first = {name: values[0] for name, values in request.swept.items() if values}
    seeds = request.options.run.seed
    one = sweep(config(**request.shared, **first), seeds, request.swept)
    members = Members(
        one.configs * len(labels), one.seeds * len(labels), dtype=on.dtype, device=on.device, compile=on.compile
    )
    of_member = tuple(name for name in labels for _ in one.seeds)
    rows = tuple(
        {"member": i, "seed": seed, "labels": label, **{name: getattr(config, name) for name in request.swept}}
        for i, (seed, label, config) in enumerate(zip(members.seeds, of_member, members.configs))
    )
    return Population(members, of_member, rows, request.options.population.population_based)


def make_learner(request: Request, spec: Spec, population: Population) -> Learner:
    """The learner that holds the population.

    Raises:
        InputError: a last stage that would begin only after the last update.
    """
    updates, stages = request.options.run.updates, schedule_fields(population.members.shared, "stage")
    name = max(stages, key=lambda stage: request.shared[stage], default=None)
    if name is not None and updates <= request.shared[name]:
        raise InputError(
            f"updates is {updates} but {name} is {request.shared[name]}, expected more updates than that: "
            f"the last stage of {request.agent} begins only then"
        )
    return agents.find(request.agent).make(spec, population.members)
