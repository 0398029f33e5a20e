"""``pbrl data make | list | describe | import | join``."""

from __future__ import annotations

import dataclasses
import difflib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from pbrl import data as datasets
from pbrl.data import Dataset, hdf5, minari, registry
from pbrl.data.files import SUFFIXES
from pbrl.data.join import joined
from pbrl.errors import InputError

from ..datasets.make import dataset_name, doubt, make_data
from .options import Count, Flag, Name
from .reading import read

Folder = Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="")]

HELP = """usage: pbrl data COMMAND ...

commands:
  make ENV         train behaviour policies in a simulator and store what they do
  list             show the data sets at hand
  describe NAME    show what is in a data set (a name or a file)
  import FILE      copy a D4RL file or a Minari folder into our store
  join NAME ...    make one data set of several, such as one and what was collected online after it

Data sets are kept in {folder} (set PBRL_DATA_DIR to change it).
pbrl data COMMAND --help tells more.
"""


@dataclass(frozen=True)
class MakeOptions:
    """Trains a behaviour policy (SAC) and stores a data set of one tier of skill, with the critic
    that regret labels need.

    Killed at any moment and called again, it goes on where it was.
    """

    env: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ENV")]
    """Simulator: PointMass-v0 (quick, exact), Reacher-v5, or any Gymnasium id with continuous actions."""
    tier: Literal["random", "medium", "medium-replay", "medium-expert", "expert", "mixed"] = "medium"
    """How skilled. medium is a third of the way to the expert; mixed is random, poor, medium and expert."""
    steps: int = 100_000
    """Transitions to store."""
    seed: int = 0
    """Seed of training and of collecting."""
    behaviour_steps: Count = None
    """Steps that SAC learns for. By default a number known to suffice for the quick tasks, else a million."""
    hidden: int = 256
    """Units in each of the two hidden layers of SAC's networks."""
    behaviour: Folder = None
    """Folder of a finished run (manifest.json, replay.npz, weights), to use its policies instead of training any."""
    overwrite: Flag = False
    """Replace a data set of the same name."""


@dataclass(frozen=True)
class DescribeOptions:
    """Shows what is in a data set: episodes, how they end, returns, ranges, where it comes from."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """A name that pbrl data list shows, or a file."""


@dataclass(frozen=True)
class ImportOptions:
    """Copies a D4RL file (.hdf5) or a Minari folder into our store, after every check."""

    file: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """The file, the folder that holds data/main_data.hdf5, or the id of a local Minari data set."""
    name: Name = None
    """What to call it. By default imported/ and its own name."""
    horizon: Count = None
    """Steps per episode, for a D4RL file that stores no time limits and whose name does not tell."""
    overwrite: Flag = False
    """Replace a data set of the same name."""


@dataclass(frozen=True)
class JoinOptions:
    """Makes one data set of several, one after the other, such as one and what was collected online after it."""

    names: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME [NAME ...]", help_behavior_hint="")
    ]
    """Names that pbrl data list shows, or files."""
    name: str
    """What to call it."""
    overwrite: Flag = False
    """Replace a data set of the same name."""


@dataclass(frozen=True)
class ListOptions:
    """Shows the data sets at hand."""


def data(arguments: Sequence[str]) -> int:
    """Run the command; the exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(HELP.format(folder=datasets.directory()), end="")
        return 0
    name, rest = arguments[0], list(arguments[1:])
    commands: dict[str, Callable[[list[str]], None]] = {
        "make": lambda rest: _make(read(MakeOptions, rest, "pbrl data make")),
        "list": lambda rest: _list(read(ListOptions, rest, "pbrl data list")),
        "describe": lambda rest: _describe(read(DescribeOptions, rest, "pbrl data describe")),
        "import": lambda rest: _import(read(ImportOptions, rest, "pbrl data import")),
        "join": lambda rest: _join(read(JoinOptions, rest, "pbrl data join")),
    }
    if name not in commands:
        near = difflib.get_close_matches(name, commands, 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise InputError(f"unknown command 'data {name}'{hint}, expected one of {', '.join(commands)}")
    commands[name](rest)
    return 0


def _make(options: MakeOptions) -> None:
    _check_before_shipped(dataset_name(options.env, options.tier), "another --tier", overwrite=options.overwrite)
    made = make_data(
        options.env,
        options.tier,
        options.steps,
        options.seed,
        datasets.directory(),
        behaviour_steps=options.behaviour_steps,
        hidden=options.hidden,
        folder=options.behaviour,
        overwrite=options.overwrite,
    )
    print(f"{made.dataset.describe()}\n\n{made.path}\nTrain on it: pbrl train cpl --dataset {made.dataset.name}")
    if warning := doubt(made.dataset.info):
        print(f"pbrl: warning: {warning}", file=sys.stderr)


def _check_before_shipped(name: str, otherwise: str, *, overwrite: bool) -> None:
    """Raise InputError where a file kept here would silently go before a data set of the package."""
    if registry.ships(name) and not overwrite and not datasets.destination(name).exists():
        raise InputError(f"{name} ships with the package, expected {otherwise}, or --overwrite to put yours before it")


def _list(options: ListOptions) -> None:  # noqa: ARG001 - it has none, but --help and misspelt words are dealt with
    lines = [("name", "environment", "transitions", "oracle", "kept in"), *map(_line, datasets.names())]
    widths = [max(map(len, column)) for column in zip(*lines)]
    for line in lines:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths)).rstrip())


def _line(name: str) -> tuple[str, ...]:
    """What ``pbrl data list`` shows of a data set; reads little of the file, which may be large."""
    path = datasets.resolve(name)
    place = "shipped" if path.parent == registry.SHIPPED else str(path)
    try:
        found = registry.glance(path)
    except InputError:
        return name, "cannot be read", "-", "-", place
    return name, found.env or "unknown", f"{found.transitions:,}", "yes" if found.oracle else "no", place


def _describe(options: DescribeOptions) -> None:
    path = datasets.resolve(options.name)
    dataset = datasets.load(options.name)
    print(f"{dataset.describe()}\n\n{path}")
    if "reference" in dataset.info:
        low, high = dataset.info["reference"]
        print(f"scores: 0 is a mean return of {low:.4g}, of a random policy, and 100 one of {high:.4g}, of the expert")
    print(f"regret labels: {'yes, it comes with an oracle critic' if has_oracle(path) else 'no oracle critic'}")


def has_oracle(path: Path) -> bool:
    """Whether the oracle critic that regret labels need is stored with a data set."""
    if path.is_dir():
        return False
    try:
        hdf5.load_oracle(path)
    except InputError:
        return False
    return True


def _import(options: ImportOptions) -> None:
    dataset = _foreign(options.file, options.horizon)
    name = options.name or f"imported/{dataset.name}"
    target = _free(name, overwrite=options.overwrite)
    info = {**dataset.info, "imported_from": str(Path(options.file).expanduser().name)}
    kept = dataclasses.replace(dataset, name=name, info=info)
    hdf5.save(kept, target)
    print(f"{kept.describe()}\n\n{target}\nTrain on it: pbrl train iql --dataset {name}")


def _free(name: str, *, overwrite: bool) -> Path:
    """Where a data set of that name goes; InputError where another one would be lost or hidden."""
    target = datasets.destination(name)
    _check_before_shipped(name, "another --name", overwrite=overwrite)
    if target.exists() and not overwrite:
        raise InputError(f"{target}: exists already, expected another --name, or --overwrite")
    return target


def _join(options: JoinOptions) -> None:
    if len(options.names) < 2:
        raise InputError(f"{len(options.names)} data sets to join, expected at least two names or files")
    target = _free(options.name, overwrite=options.overwrite)
    made = joined([datasets.load(name) for name in options.names], options.name)
    hdf5.save(made, target)
    print(f"{made.describe()}\n\n{target}\nTrain on it: pbrl train iql --dataset {made.name}")


def _foreign(file: str, horizon: int | None) -> Dataset:
    path = Path(file).expanduser()
    if path.suffix in SUFFIXES:
        if hdf5.is_own(path):
            raise InputError(f"{file}: is in our own format, expected a D4RL file: use it as it is, --dataset {file}")
        return datasets.load_d4rl(path, horizon=horizon)
    if path.is_file():
        raise InputError(f"{file}: the name ends in {path.suffix!r}, expected .hdf5 or a Minari folder")
    if horizon is not None:
        raise InputError(
            f"--horizon has no effect on {file}, expected it with a D4RL file alone: Minari stores all ends"
        )
    if not path.is_dir() and not (minari.root() / file).is_dir():
        raise InputError(f"{file}: no such file or folder, nor a local Minari data set, expected one of these")
    return datasets.load_minari(path if path.is_dir() else file)
