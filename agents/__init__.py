"""One algorithm, one file; the file's name is the algorithm's name.

A file holds a learner class named after it (``p_iql.py``: ``PIQL``; case and underscores do not matter) and its frozen
config ``<class>Config`` whose defaults are the paper's. By existing it can be run and is held to the contract tests.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pbrl.agent import Learner
from pbrl.errors import InputError


@dataclass(frozen=True)
class Algorithm:
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
    make: Callable[..., Learner]
    config: type[Any]
    doc: str

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return self.doc.strip().splitlines()[0]


def _files() -> dict[str, Path]:
    found = sorted(Path(__file__).parent.glob("*/[a-z]*.py"))
    return {path.stem: path for path in found}


def names() -> list[str]:
    """All algorithms, by name."""
    return sorted(_files())


def find(name: str) -> Algorithm:
    """The algorithm of that name.

    Raises:
        InputError: there is none.
    """
    path = _files().get(name)
    if path is None:
        near = difflib.get_close_matches(name, names(), 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise InputError(f"unknown agent {name!r}{hint}, expected one of {', '.join(names())}")
    module = importlib.import_module(f"{__name__}.{path.parent.name}.{path.stem}")
    wanted = name.replace("_", "")
    classes = {key.lower(): value for key, value in vars(module).items() if isinstance(value, type)}
    return Algorithm(name, path.parent.name, classes[wanted], classes[wanted + "config"], module.__doc__ or "")
