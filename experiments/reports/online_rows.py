"""The tables of the study of agents that go online, checked when they are read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .preference_rows import matching
from .rows import Row, number, numeric, read_rows

MEMBERS, CURVES = "offline_to_online.csv", "curves.csv"
SCORES = ("score_offline", "score_dip", "score_last", "score_best", "regret")


@dataclass(frozen=True)
class OnlineStudy:
    """What the study found.

    Attributes:
        members: a row per member.
        curves: a row per agent, data set and evaluation, from the last one before the first step online on.
    """

    members: tuple[Row, ...]
    curves: tuple[Row, ...]

    @property
    def agents(self) -> list[str]:
        """By name."""
        return sorted({row["agent"] for row in self.members})

    @property
    def datasets(self) -> list[str]:
        """In order of appearance."""
        return list(dict.fromkeys(row["dataset"] for row in self.members))

    def of(self, **wanted: object) -> list[Row]:
        """The members' rows with these cells."""
        return matching(self.members, **wanted)

    def column(self, name: str, **wanted: object) -> list[float]:
        """A column of the members with these cells; NaN for those that diverged."""
        return [number(row, name) for row in self.of(**wanted)]

    def gains(self, **wanted: object) -> list[float]:
        """By how much each member's last score is above its own offline one."""
        return [number(row, "score_last") - number(row, "score_offline") for row in self.of(**wanted)]


def read_online(folder: Path, prefix: str = "") -> OnlineStudy:
    """The study's tables in a folder; ``prefix`` comes before the name of the second.

    Raises:
        InputError: a table that is missing or damaged.
    """
    path, counts = folder / MEMBERS, ("seed", "updates", "env_steps", "episodes")
    members = numeric(path, read_rows(path, ("agent", "dataset", *SCORES, *counts)), SCORES, counts=counts)
    path, ends = folder / f"{prefix}{CURVES}", ("score", "low", "high")
    curves = numeric(path, read_rows(path, ("agent", "dataset", "env_steps", *ends)), ends, counts=("env_steps",))
    return OnlineStudy(tuple(members), tuple(curves))
