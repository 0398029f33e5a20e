"""``lineage.csv``: who became a copy of whom in population-based training, and which settings each went on with.

A row per member and turn: member, updates, env_steps, source (itself where it went on), score, and the explored
settings after the turn. The first rows, at 0 updates and steps, are what training began with.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..data.files import replacing
from ..errors import InputError

NAME = "lineage.csv"
FIXED = ("member", "updates", "env_steps", "source", "score")
Row = dict[str, str]


def read(folder: Path) -> list[Row]:
    """The rows of a run's lineage; none where there is no such file.

    Raises:
        InputError: a file of other columns, or damaged.
    """
    path = folder / NAME
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        table = csv.DictReader(file)
        rows = list(table)
        if tuple(table.fieldnames or ())[: len(FIXED)] != FIXED:
            raise InputError(f"{path}: has columns {' '.join(table.fieldnames or ())}, expected {' '.join(FIXED)} ...")
    try:
        for row in rows:
            assert int(row["member"]) >= 0 <= int(row["source"])
            _place(row)
            [float(row[name]) for name in row if name not in FIXED[:-1]]
    except (ValueError, TypeError, AssertionError):
        raise InputError(f"{path}: damaged, expected the numbers that pbrl train has written") from None
    return rows


def begin(folder: Path, settings: Mapping[str, Sequence[float]], *, updates: int, env_steps: int) -> None:
    """Make the file ready to go on from a checkpoint: later turns are cut off; a fresh one gets the first rows.

    Raises:
        InputError: it is damaged, or cannot be written.
    """
    kept = [row for row in read(folder) if _place(row) <= (updates, env_steps)]
    if not kept:
        members = range(len(next(iter(settings.values()))))
        kept = _rows(0, 0, members, [math.nan for _ in members], settings)
    _write(folder, kept)


def add(
    folder: Path,
    source: Sequence[int],
    scores: Sequence[float],
    settings: Mapping[str, Sequence[float]],
    *,
    updates: int,
    env_steps: int,
) -> None:
    """Note a turn: whom each member copied, by which scores, and the settings it goes on with, [P] each."""
    _write(folder, [*read(folder), *_rows(updates, env_steps, source, scores, settings)])


def last(folder: Path) -> tuple[int, int]:
    """Updates and environment steps of the last turn; 0 of both where there was none."""
    return max((_place(row) for row in read(folder)), default=(0, 0))


def founders(rows: Sequence[Row]) -> list[list[int]]:
    """For each turn in order, from whom of the beginning each member descends: [turns, P]."""
    places = sorted({_place(row) for row in rows})
    found: list[list[int]] = []
    for place in places:
        here = {int(row["member"]): int(row["source"]) for row in rows if _place(row) == place}
        before = found[-1] if found else list(range(len(here)))
        found.append([before[here[member]] for member in sorted(here)])
    return found


def _place(row: Row) -> tuple[int, int]:
    return int(row["updates"]), int(row["env_steps"])


def _rows(
    updates: int,
    env_steps: int,
    source: Sequence[int],
    scores: Sequence[float],
    settings: Mapping[str, Sequence[float]],
) -> list[Row]:
    return [
        dict(zip(FIXED, map(str, (member, updates, env_steps, origin, float(scores[member])))))
        | {name: repr(float(values[member])) for name, values in settings.items()}
        for member, origin in enumerate(source)
    ]


def _write(folder: Path, rows: Sequence[Row]) -> None:
    with replacing(folder / NAME) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
