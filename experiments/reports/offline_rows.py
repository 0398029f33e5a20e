"""The tables of the offline study, and published scores beside them, checked when they are read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .preference_rows import matching
from .rows import Row, number, numeric, read_rows

PUBLISHED = "offline_published.csv"


@dataclass(frozen=True)
class Offline:
    """What the study found.

    Attributes:
        members: a row per member.
        curves: a row per agent, data set and evaluation.
    """

    members: tuple[Row, ...]
    curves: tuple[Row, ...]

    @property
    def agents(self) -> list[str]:
        """Cloning first, the others by their names."""
        return sorted({row["agent"] for row in self.members}, key=lambda name: (name != "bc", name))

    @property
    def datasets(self) -> list[str]:
        """In order of appearance."""
        return list(dict.fromkeys(row["dataset"] for row in self.members))

    def of(self, **wanted: object) -> list[Row]:
        """The members' rows with these cells."""
        return matching(self.members, **wanted)

    def scores(self, column: str = "score_last", **wanted: object) -> list[float]:
        """A column of scores of the members with these cells; NaN for those that diverged."""
        return [number(row, column) for row in self.of(**wanted)]

    def of_data(self, dataset: str) -> float:
        """The score of the episodes in a data set."""
        return number(self.of(dataset=dataset)[0], "score_of_data")


def read_offline(folder: Path, prefix: str = "", ending: str = "") -> Offline:
    """The study's tables in a folder; ``prefix`` comes before the name of the curves, ``ending`` after both names.

    Raises:
        InputError: a table that is missing or damaged.
    """
    path = folder / f"offline{ending}.csv"
    numbers = ("score_last", "score_best", "score_of_data", "seconds")
    told = ("agent", "dataset", "budget", "widths", "batch", "settings", "env", "source", "versions", "command")
    counts = ("seed", "updates", "episodes", "transitions")
    members = numeric(path, read_rows(path, (*told, *numbers, *counts)), numbers, counts=counts)
    path, ends = folder / f"{prefix}curves{ending}.csv", ("score", "low", "high")
    curves = numeric(path, read_rows(path, ("agent", "dataset", "updates", *ends)), ends, counts=("updates",))
    return Offline(tuple(members), tuple(curves))


def read_published(path: Path) -> list[Row]:
    """Scores that others have published: a row per agent and data set."""
    rows = read_rows(path, ("agent", "dataset", "score", "deviation", "seeds", "source"))
    return numeric(path, rows, ("score", "deviation"), counts=("seeds",))


def short(dataset: str) -> str:
    """``local/hopper/medium-expert-v1`` as ``hopper medium-expert``; D4RL's names as they are."""
    return dataset.removeprefix("local/").removesuffix("-v1").replace("/", " ")
