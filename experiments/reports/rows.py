"""The tables of a run or a demo as CSV files: their rows, checked when they are read."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pbrl.data.files import about, replacing
from pbrl.errors import InputError

GAPS = ("closest", "2nd fifth", "3rd fifth", "4th fifth", "clearest")

Row = Mapping[str, str]
Group = tuple[str, str]
"""An agent and the labels that it learned from."""


def read_rows(path: Path, columns: Iterable[str], *, empty: bool = False) -> list[Row]:
    """The rows of a CSV file with a header.

    Raises:
        InputError: no such file, not a CSV table, a column that is missing, or no rows unless ``empty``.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, strict=True)
            rows: list[Row] = list(reader)
            found = list(reader.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path}: unreadable ({reason}), expected a CSV table") from error
    missing = [column for column in columns if column not in found]
    if missing:
        raise InputError(f"{path}: column {missing[0]!r} is missing, found {', '.join(map(str, found)) or 'nothing'}")
    if not rows and not empty:
        raise InputError(f"{path}: no rows, expected at least one")
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise InputError(f"{path}: line {number} has not {len(found)} cells, expected as many as the header has")
    return rows


def read_results(path: Path) -> list[Row]:
    """A demo's ``results.csv``: a row per agent, labels and seed."""
    rows = read_rows(
        path, ("agent", "labels", "seed", "score_last", "score_best", "label_accuracy", "score_still", "env")
    )
    return numeric(path, rows, ("score_last", "score_best", "label_accuracy", "score_still"))


def read_labels(path: Path) -> list[Row]:
    """A demo's ``labels.csv``: held-out accuracy, a row per agent, labels, seed, judge and gap."""
    numbers = ("gap_low", "gap_high", "accuracy")
    rows = read_rows(path, ("agent", "labels", "seed", "judge", "gap", "pairs", *numbers))
    return numeric(path, rows, numbers, counts=("pairs",))


def read_curves(path: Path) -> list[Row]:
    """A demo's ``curves.csv``: scores in training, a row per agent, labels, seed and evaluation."""
    rows = read_rows(path, ("agent", "labels", "seed", "updates", "score"))
    return numeric(path, rows, ("score",), counts=("updates",))


def numeric(path: Path, rows: list[Row], columns: Sequence[str], *, counts: Sequence[str] = ()) -> list[Row]:
    """The rows, once ``columns`` are known to hold numbers or nothing, and ``counts`` whole numbers.

    Raises:
        InputError: they hold something else.
    """
    with about(path):
        for row in rows:
            for column in columns:
                number(row, column)
            for column in counts:
                whole(row, column)
    return rows


def write_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """A CSV file with a header, which takes its name once complete.

    Raises:
        InputError: unwritable.
    """
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def number(row: Row, column: str) -> float:
    """A cell as a number; NaN where it is empty.

    Raises:
        InputError: it is none.
    """
    try:
        return float(row[column] or "nan")
    except ValueError:
        raise InputError(f"column {column!r} has {row[column]!r}, expected a number") from None


def whole(row: Row, column: str) -> int:
    """A cell as a whole number.

    Raises:
        InputError: it is none.
    """
    try:
        return int(row[column])
    except ValueError:
        raise InputError(f"column {column!r} has {row[column]!r}, expected a whole number") from None


def groups(rows: Sequence[Row]) -> dict[Group, list[Row]]:
    """The rows of each agent and kind of labels, in order of appearance."""
    found: dict[Group, list[Row]] = {}
    for row in rows:
        found.setdefault((row["agent"], row["labels"]), []).append(row)
    return found
