"""The table of agreement with human answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pbrl.statistics import Interval, wilson

from .page import Table
from .rows import Row, number, numeric, read_rows, whole
from .score_tables import words

KEYS = ("dataset", "agent", "learned_from", "judged_by", "seed")


def read_human(path: Path) -> list[Row]:
    """The rows of ``human_labels.csv``: one per data set, agent, kind of answers learned from, judge and seed."""
    numbers = ("agreements", "agreement", "low", "high", "return")
    rows = read_rows(path, (*KEYS, *numbers, "decisive", "pairs", "folds"))
    return numeric(path, rows, numbers, counts=("decisive", "pairs", "folds"))


def pooled(rows: Sequence[Row]) -> Interval:
    """The mean share over seeds, with Wilson's interval for as many answers as there are: seeds add none."""
    return wilson(float(np.mean([number(row, "agreements") for row in rows])), whole(rows[0], "decisive"))


def agreement_table(rows: Sequence[Row]) -> Table:
    """A line per data set, agent and kind of answers learned from: agreement with people and with the script."""
    lines = []
    keys = dict.fromkeys((row["dataset"], row["agent"], row["learned_from"]) for row in rows)
    datasets = list(dict.fromkeys(row["dataset"] for row in rows))
    for dataset, agent, who in sorted(keys, key=lambda key: datasets.index(key[0])):
        mine = [row for row in rows if (row["dataset"], row["agent"], row["learned_from"]) == (dataset, agent, who)]
        by = {judge: [row for row in mine if row["judged_by"] == judge] for judge in ("human", "script")}
        cells = [_share(pooled(found)) if found else "-" for found in by.values()]
        paid = [number(row, "return") for row in by["human"] if row["return"]]
        name = "the return itself" if who == "-" else words(agent)
        lines.append((dataset.removesuffix("-v2"), name, who, *cells, f"{np.mean(paid):.0f}" if paid else "-"))
    first = rows[0]
    return Table(
        header=("data set", "agent", "learned from", "sides with people", "sides with the script", "return"),
        rows=tuple(lines),
        words=3,
        caption=f"Share of decisive answers to held-out pairs ({first['folds']} folds of {first['pairs']} pairs that "
        f"share no step) [95 % Wilson interval for one answer per pair], mean over {_seeds(rows)} seeds. The "
        "script answers by return. Return: mean in Gymnasium's v4 task of those that act, a report and no measure of "
        "agreement.",
    )


def people_table(rows: Sequence[Row]) -> Table:
    """A line per agent: agreement with people on each data set, by whose answers it learned from."""
    judged = [row for row in rows if row["judged_by"] == "human"]
    datasets = list(dict.fromkeys(row["dataset"] for row in judged))
    lines = []
    for agent, who in dict.fromkeys((row["agent"], row["learned_from"]) for row in judged):
        mine = [row for row in judged if (row["agent"], row["learned_from"]) == (agent, who)]
        by = [[row for row in mine if row["dataset"] == name] for name in datasets]
        name = "the return itself" if who == "-" else words(agent)
        lines.append(
            (name, "people" if who == "human" else who, *(_share(pooled(found)) if found else "-" for found in by))
        )
    return Table(
        header=("agent", "learned from", *(name.removesuffix("-v2") for name in datasets)),
        rows=tuple(lines),
        words=2,
        caption=f"Share of decisive answers of people to held-out pairs ({rows[0]['folds']} folds of "
        f"{rows[0]['pairs']} pairs that share no step) that it sides with [95 % Wilson interval for one answer per "
        f"pair], mean over {_seeds(rows)} seeds. Guessing gives 50 %.",
    )


def human_findings(rows: Sequence[Row]) -> list[str]:
    """Whose held-out agreement with people lies apart from guessing, in sentences made from the numbers."""
    sentences = []
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        mine = [row for row in rows if row["dataset"] == dataset and row["judged_by"] == "human"]
        itself = [row for row in mine if row["learned_from"] == "-"]
        sides: dict[str, list[str]] = {}
        for agent in dict.fromkeys(row["agent"] for row in mine if row["learned_from"] == "human"):
            found = pooled([row for row in mine if (row["agent"], row["learned_from"]) == (agent, "human")])
            side = "above" if found.low > 0.5 else "below" if found.high < 0.5 else "level"
            sides.setdefault(side, []).append(words(agent))
        texts = {"above": "more often than guessing", "level": "not told apart from guessing"}
        texts["below"] = "less often than guessing"
        parts = [f"{text}: {', '.join(sides[side])}" for side, text in texts.items() if side in sides]
        told = f"On {dataset.removesuffix('-v2')}, learners from people side with held-out people {'; '.join(parts)}."
        if itself:
            told += f" The return sides with them in {_share(pooled(itself))}."
        sentences.append(told)
    return sentences


def _seeds(rows: Sequence[Row]) -> int:
    return len({row["seed"] for row in rows if row["seed"]})


def _share(found: Interval) -> str:
    return f"{100 * found.point:.0f} % [{100 * found.low:.0f}, {100 * found.high:.0f}]"
