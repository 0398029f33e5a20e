"""The tables of the preference study, checked when they are read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .rows import Row, number, numeric, read_rows

UNLABELLED = ("none", "true_reward")
KEYS = ("agent", "dataset", "labels", "budget", "noise")


@dataclass(frozen=True)
class Study:
    """What the study found.

    Attributes:
        members: a row per member.
        curves: a row per condition and evaluation.
        gaps: a row per condition and fifth of the held-out pairs; held-out accuracy.
        odds: a row per condition and bin of predicted probabilities.
    """

    members: tuple[Row, ...]
    curves: tuple[Row, ...]
    gaps: tuple[Row, ...]
    odds: tuple[Row, ...]

    @property
    def agents(self) -> list[str]:
        """In order of appearance, those without labels last."""
        found = dict.fromkeys(row["agent"] for row in self.members)
        return sorted(found, key=lambda agent: self.of(agent=agent)[0]["labels"] in UNLABELLED)

    @property
    def datasets(self) -> list[str]:
        """In order of appearance."""
        return list(dict.fromkeys(row["dataset"] for row in self.members))

    @property
    def thorough(self) -> list[str]:
        """The data sets that have all budgets."""
        return [name for name in self.datasets if all(self.of(dataset=name, budget=budget) for budget in self.budgets)]

    @property
    def labels(self) -> list[str]:
        """The labelers, in order of appearance."""
        return list(dict.fromkeys(row["labels"] for row in self.members if row["labels"] not in UNLABELLED))

    @property
    def budgets(self) -> list[int]:
        """Numbers of labelled pairs, rising."""
        return sorted({int(row["budget"]) for row in self.members if row["labels"] not in UNLABELLED})

    @property
    def noises(self) -> list[str]:
        """Kinds of faults, none first."""
        return list(dict.fromkeys(["none", *(row["noise"] for row in self.members)]))

    def of(self, **wanted: object) -> list[Row]:
        """The members' rows with these cells."""
        return matching(self.members, **wanted)

    def scores(self, **wanted: object) -> list[float]:
        """The last scores of the members with these cells; NaN for those that diverged."""
        return [number(row, "score_last") for row in self.of(**wanted)]


def matching(rows: tuple[Row, ...], **wanted: object) -> list[Row]:
    """The rows with these cells."""
    return [row for row in rows if all(row[name] == str(value) for name, value in wanted.items())]


def read_study(folder: Path, prefix: str = "") -> Study:
    """The study's tables in a folder; ``prefix`` comes before the names of all but the first.

    Raises:
        InputError: a table that is missing or damaged.
    """

    def table(name: str, numbers: tuple[str, ...], counts: tuple[str, ...]) -> tuple[Row, ...]:
        path = folder / name
        rows = read_rows(path, (*KEYS, *numbers, *counts))
        return tuple(numeric(path, rows, numbers, counts=(*counts, "budget")))

    told = ("held_out_accuracy", "calibration_error", "label_errors")
    members = table("preferences.csv", ("score_last", "score_best", *told), ("seed",))
    judges = any(row["held_out_accuracy"] for row in members)
    return Study(
        members=members,
        curves=table(f"{prefix}curves.csv", ("score", "low", "high"), ("updates",)),
        gaps=table(f"{prefix}gaps.csv", ("accuracy",), ("pairs",)) if judges else (),
        odds=table(f"{prefix}odds.csv", ("predicted", "observed"), ("bin", "count"))
        if any(row["calibration_error"] for row in members)
        else (),
    )


def short(dataset: str) -> str:
    """``local/hopper/medium-expert-v1`` as ``hopper medium-expert``."""
    return dataset.removeprefix("local/").removesuffix("-v1").replace("/", " ")
