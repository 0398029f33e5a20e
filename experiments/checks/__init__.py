"""Claims of papers, checked. One question, one file; a file's ``Check`` objects are found by existing.

A new check is a new file here with a ``Check`` in it (``shaping.py`` is a short example): a function that
measures, a function that measures the same on something broken, and the bound between them.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
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


_OUTSIDE: dict[str, Check] = {}


def take(path: Path) -> list[Check]:
    """The checks of somebody's own file, found from now on by ``find`` too; the file is run.

    Raises:
        InputError: no such Python file, an error in it, no check in it, or an id that another check has.
    """
    if not path.is_file() or path.suffix != ".py":
        raise InputError(f"{path}: there is no such file, expected a Python file with a Check in it")
    name = f"own_checks_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look themselves up there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise InputError(f"{path}: {type(error).__name__} while it was run: {error}") from error
    ours = set(map(id, every().values()))
    found = (value for value in vars(module).values() if isinstance(value, Check) and id(value) not in ours)
    own = list({check.id: check for check in found}.values())
    if not own:
        raise InputError(f"{path} has no Check in it, expected at least one at its top level")
    for check in own:
        if check.id.lower() in {known.lower() for known in every()}:
            raise InputError(f"{path}: the id {check.id} is that of a check of the library, expected another")
        _OUTSIDE[check.id] = check
    return own


def find(id: str) -> Check:
    """The check of that id, in any case.

    Raises:
        InputError: there is none.
    """
    known = {name.lower(): check for name, check in (_OUTSIDE | every()).items()}
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
