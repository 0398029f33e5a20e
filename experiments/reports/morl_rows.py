"""The tables of the study of fronts, checked when they are read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pbrl.data.files import about
from pbrl.errors import InputError

from .preference_rows import matching
from .rows import Row, number, numeric, read_rows

MORL, FRONTS, GROWTH = "morl.csv", "fronts.csv", "growth.csv"
KNOWN = "known front"
"""Whose points these are where the best front is known."""
QUALITIES = ("hypervolume", "expected_utility", "served_utility", "sparsity")


@dataclass(frozen=True)
class Fronts:
    """What the study found.

    Attributes:
        rows: a row per agent, task and seed.
        points: a row per point of a front, and of known fronts.
        growth: a row per look at an archive on the way.
    """

    rows: tuple[Row, ...]
    points: tuple[Row, ...]
    growth: tuple[Row, ...]

    @property
    def agents(self) -> list[str]:
        """In order of appearance."""
        return list(dict.fromkeys(row["agent"] for row in self.rows))

    @property
    def tasks(self) -> list[str]:
        """Ids, in order of appearance."""
        return list(dict.fromkeys(row["env"] for row in self.rows))

    def of(self, **wanted: object) -> list[Row]:
        """The rows with these cells."""
        return matching(self.rows, **wanted)

    def values(self, column: str, **wanted: object) -> list[float]:
        """A column of the rows with these cells."""
        return [number(row, column) for row in self.of(**wanted)]

    def objectives(self, env: str) -> int:
        """K."""
        return len(numbers(self.of(env=env)[0]["reference_point"]))

    def front(self, **wanted: object) -> NDArray[np.float64]:
        """[N, K] the points with these cells."""
        return np.array([numbers(row["values"]) for row in matching(self.points, **wanted)])


def numbers(word: str) -> list[float]:
    """``0|-25`` as numbers.

    Raises:
        InputError: it holds something else.
    """
    try:
        return [float(part) for part in word.split("|")]
    except ValueError:
        raise InputError(f"{word!r} found, expected numbers such as 0|-25") from None


def read_fronts(folder: Path, prefix: str = "") -> Fronts:
    """The study's tables in a folder; ``prefix`` comes before the names of all but the first.

    Raises:
        InputError: a table that is missing or damaged.
    """

    def table(name: str, words: tuple[str, ...], measures: tuple[str, ...], counts: tuple[str, ...]) -> tuple[Row, ...]:
        path = folder / name
        rows = numeric(path, read_rows(path, (*words, *measures, *counts)), measures, counts=counts)
        with about(path):
            for row in rows:
                for word in words:
                    if word in ("values", "reference_point", "still"):
                        numbers(row[word])
        return tuple(rows)

    named = ("agent", "env")
    told = ("reference_point", "still", "versions", "command")
    measures = (*QUALITIES, "still_hypervolume", "known_hypervolume", "drawn_hypervolume", "gamma", "seconds")
    return Fronts(
        rows=table(MORL, (*named, *told), measures, ("seed", "env_steps", "points", "policies", "episodes")),
        points=table(f"{prefix}{FRONTS}", (*named, "values"), (), ("seed",)),
        growth=table(f"{prefix}{GROWTH}", named, ("hypervolume",), ("seed", "env_steps", "points")),
    )
