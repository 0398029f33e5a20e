"""One algorithm, one file; the file's name is the algorithm's name.

A file holds a learner class named after it (``p_iql.py``: ``PIQL``; case and underscores do not matter) and its frozen
config ``<class>Config`` whose defaults are the paper's. By existing it can be run and is held to the contract tests.

The files of ``agents/tabular/`` learn finite MDPs from counts (``pbrl.theory.learner``), are listed apart, have a
contract of their own, and are run by ``pbrl regret``; so are those of ``agents/dueling/``, which learn from preferences
between two policies' trajectories (``pbrl.theory.dueling``).
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pbrl.agent import Learner
from pbrl.errors import InputError
from pbrl.theory.dueling import DuelingLearner
from pbrl.theory.learner import TabularLearner

TABULAR, DUELING = "tabular", "dueling"


L = TypeVar("L", bound=Learner | TabularLearner | DuelingLearner, covariant=True)


@dataclass(frozen=True)
class Algorithm(Generic[L]):
    """An algorithm that was found in a file of ``agents/``.

    Attributes:
        name: the file's name without ``.py``.
        family: the folder that it lies in.
        make: ``make(spec, members)``, the learner's class.
        config: its config's class.
        doc: the file's docstring: paper, equations and deviations.
    """

    name: str
    family: str
    make: Callable[..., L]
    config: type[Any]
    doc: str

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return self.doc.strip().splitlines()[0]


def _files(kind: str) -> dict[str, Path]:
    """The files of algorithms of a kind: ``TABULAR``, ``DUELING``, or "tensors"."""
    found = sorted(Path(__file__).parent.glob("*/[a-z]*.py"))
    return {path.stem: path for path in found if _kind(path) == kind}


def _kind(path: Path) -> str:
    return path.parent.name if path.parent.name in (TABULAR, DUELING) else "tensors"


def names() -> list[str]:
    """All algorithms that learn from tensors, by name."""
    return sorted(_files("tensors"))


def tabular_names() -> list[str]:
    """All algorithms that learn finite MDPs from counts, by name."""
    return sorted(_files(TABULAR))


def dueling_names() -> list[str]:
    """All algorithms that learn finite MDPs from preferences between two policies, by name."""
    return sorted(_files(DUELING))


def find(name: str) -> Algorithm[Learner]:
    """The algorithm of that name.

    Raises:
        InputError: there is none.
    """
    for kind, what in ((TABULAR, "counts"), (DUELING, "preferences between two policies")):
        if name in _files(kind):
            raise InputError(
                f"{name} learns finite MDPs from {what}, expected it in: pbrl regret STUDY --agents {name}"
            )
    return _load(name, "tensors")


def find_tabular(name: str) -> Algorithm[TabularLearner]:
    """The tabular algorithm of that name.

    Raises:
        InputError: there is none.
    """
    if name in _files("tensors"):
        raise InputError(f"{name} learns from tensors, expected it in: pbrl train {name}")
    return _load(name, TABULAR)


def find_dueling(name: str) -> Algorithm[DuelingLearner]:
    """The algorithm of that name that learns from preferences between two policies.

    Raises:
        InputError: there is none.
    """
    return _load(name, DUELING)


def _load(name: str, kind: str) -> Algorithm[Any]:
    """The algorithm of that name and kind: its class, its config's class, and its file's docstring."""
    files = _files(kind)
    if name not in files:
        near = difflib.get_close_matches(name, files, 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        what = "agent" if kind == "tensors" else f"{kind} agent"
        raise InputError(f"unknown {what} {name!r}{hint}, expected one of {', '.join(sorted(files))}")
    family = files[name].parent.name
    module = importlib.import_module(f"{__name__}.{family}.{name}")
    wanted = name.replace("_", "")
    classes = {key.lower(): value for key, value in vars(module).items() if isinstance(value, type)}
    return Algorithm(name, family, classes[wanted], classes[wanted + "config"], module.__doc__ or "")
