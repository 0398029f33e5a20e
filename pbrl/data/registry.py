"""Data sets by name.

``local/<env>/<tier>-v1`` is ``$PBRL_DATA_DIR/local/<env>/<tier>-v1.hdf5`` (default folder ``~/.pbrl/datasets``); any
other HDF5 file there is named likewise. A data set that ships with the package has a name of the same form.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from . import hdf5
from .d4rl import load_d4rl, simulator
from .dataset import Dataset
from .files import SUFFIXES, open_hdf5
from .minari import DATA, load_minari

SHIPPED = Path(__file__).parent / "shipped"
NAME = re.compile(r"[\w.-]+(/[\w.-]+)*")


def directory() -> Path:
    """Where data sets are kept: ``$PBRL_DATA_DIR``, or ``~/.pbrl/datasets``."""
    return Path(os.environ.get("PBRL_DATA_DIR") or Path.home() / ".pbrl" / "datasets").expanduser()


def destination(name: str) -> Path:
    """The file in ``directory()`` that a data set of this name is kept in, whether it exists or not.

    Raises:
        InputError: a name that is no relative path of letters, digits, ``.``, ``_`` and ``-``.
    """
    if not NAME.fullmatch(name) or ".." in name.split("/"):
        raise InputError(f"data set name {name!r} is malformed, expected a form such as local/hopper/medium-v1")
    return directory() / f"{name}.hdf5"


def names() -> list[str]:
    """The names of all data sets at hand, sorted: those made or imported here, and those that ship with the package."""
    return sorted(_shipped().keys() | _kept())


def ships(name: str) -> bool:
    """Whether a data set of this name comes with the package."""
    return name in _shipped()


def resolve(name_or_path: str | Path) -> Path:
    """The file (or Minari folder) that a name or path means; a file kept here goes before a shipped one.

    Raises:
        InputError: there is none.
    """
    path = Path(name_or_path).expanduser()
    if path.is_file() or (path / DATA).is_file():
        return path
    name = str(name_or_path)
    if path.suffix in SUFFIXES:
        raise InputError(f"{path}: no such file, expected a data set")
    if name in _kept():
        return destination(name)
    if name in (shipped := _shipped()):
        return shipped[name]
    available = ", ".join(names()) or "none yet"
    raise InputError(f"unknown data set {name!r}, available: {available}; make more with: pbrl data make")


def load(name_or_path: str | Path) -> Dataset:
    """A data set by its name, or by the path of our own or D4RL's HDF5 file or of a Minari folder.

    An HDF5 file without our metadata is read as D4RL's.

    Raises:
        InputError: unknown, or a file that is not what its name says.
    """
    path = resolve(name_or_path)
    if path.is_dir():
        return load_minari(path)
    return hdf5.load(path) if hdf5.is_own(path) else load_d4rl(path)


@dataclass(frozen=True)
class Glance:
    """What is to be seen of a data set's file without reading its rows.

    Attributes:
        env: id of the simulator, "" when unknown.
        transitions: rows in the file.
        oracle: whether the critic that regret labels need is stored with them.
    """

    env: str
    transitions: int
    oracle: bool


def glance(path: Path) -> Glance:
    """A look at our own or D4RL's HDF5 file; its rows are not read, thus not checked either.

    Raises:
        InputError: not an intact HDF5 file, or arrays or metadata of a data set are missing.
    """
    with open_hdf5(path) as file:
        own = "metadata" in file and "json" in file["metadata"].attrs
        text = file["metadata"].attrs["json"] if own else None
        wanted = hdf5.KEYS.values() if own else ("observations", "actions", "rewards", "terminals")
        missing = [key for key in wanted if getattr(file.get(key), "shape", ()) == ()]
        if missing:
            raise InputError(f"{path}: array {missing[0]!r} is missing, expected a data set")
        transitions, oracle = len(file["observations"]), "oracle" in file
    try:
        env = simulator(path) if text is None else str(json.loads(text)["env"])
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path}: metadata is damaged, expected JSON with name, env and info") from None
    return Glance(env, transitions, oracle)


def _kept() -> set[str]:
    folder = directory()
    return {path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("[!.]*.hdf5")}


def _shipped() -> dict[str, Path]:
    """``reacher-mixed-v1.hdf5`` is ``local/reacher/mixed-v1``."""
    return {"local/" + path.stem.replace("-", "/", 1): path for path in SHIPPED.glob("[!.]*.hdf5")}
