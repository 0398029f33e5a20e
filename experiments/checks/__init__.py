"""Claims of papers, checked. One question, one file; a file's ``Check`` objects are found by existing.

A new check is a new file here with a ``Check`` in it (``shaping.py`` is a short example): a function that
measures, a function that measures the same on something broken, and the bound between them.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from pbrl.errors import InputError
from pbrl.theory.check import SIZES, Check, Size


@cache
def every() -> dict[str, Check]:
    """All checks by id, in the order of their files' names.

    Raises:
        InputError: two checks with one id.
    """
    found: dict[str, Check] = {}
    for path in sorted(Path(__file__).parent.glob("[a-z]*.py")):
        module = importlib.import_module(f".{path.stem}", __package__)
        for check in (value for value in vars(module).values() if isinstance(value, Check)):
            if found.setdefault(check.id, check) is not check:
                raise InputError(f"two checks have the id {check.id}, the second in experiments/checks/{path.name}")
    return found


def find(id: str) -> Check:
    """The check of that id, in any case.

    Raises:
        InputError: there is none.
    """
    known = {name.lower(): check for name, check in every().items()}
    if id.lower() not in known:
        near = difflib.get_close_matches(id.lower(), known, 3, 0.5)
        hint = f" (did you mean {', '.join(known[name].id for name in near)}?)" if near else ""
        raise InputError(f"unknown check {id!r}{hint}, expected one that pbrl check --list shows")
    return known[id.lower()]


def choose(ids: Sequence[str], size: Size, paper: str | None) -> list[Check]:
    """The checks of these ids, or all that are not larger than ``size``; of those, the ones of a paper.

    Raises:
        InputError: an unknown id, or no check of that paper.
    """
    chosen = list({check.id: check for check in map(find, ids)}.values())
    if not ids:
        chosen = [check for check in every().values() if SIZES.index(check.size) <= SIZES.index(size)]
    if paper is None:
        return chosen
    of_paper = [check for check in chosen if paper.lower() in check.paper.lower()]
    if not of_paper:
        papers = sorted({check.paper for check in chosen})
        raise InputError(
            f"no check of size {size} or smaller is of a paper {paper!r}, expected part of: {'; '.join(papers)}"
        )
    return of_paper
