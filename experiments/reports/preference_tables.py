"""The preference study's tables: scores by task, and by how many labels and which faults."""

from __future__ import annotations

import math

import numpy as np

from pbrl.statistics import Interval, iqm, stratified_bootstrap

from .page import Table
from .preference_rows import UNLABELLED, Study, matching, short
from .rows import Row, number
from .score_tables import BOOTSTRAP_SEED, interval_text, percent, words

_NOISE = {"beta": "drawn answers", "mistakes": "10 % mistakes"}


def task_table(study: Study) -> Table:
    """A line per agent and labels: the score on each task with the most labels, without faults."""
    most = study.budgets[-1] if study.budgets else 0
    lines = []
    for agent in study.agents:
        for labels in _labels(study, agent):
            wanted = {"agent": agent, "labels": labels, "noise": "none"}
            wanted |= {} if labels in UNLABELLED else {"budget": str(most)}
            cells = [study.scores(**wanted, dataset=name) for name in study.datasets]
            lines.append((agent, words(labels), *(interval_text(cell) if cell else "-" for cell in cells)))
    episodes = sorted({int(row["episodes"]) for row in study.members})
    return Table(
        header=("agent", "labels", *map(short, study.datasets)),
        rows=tuple(lines),
        words=2,
        caption=f"Scores after the last update with {most} labelled pairs without faults: interquartile mean over "
        f"{seeds(study)} seeds [95 % bootstrap interval], {' or '.join(map(str, episodes))} episodes each. "
        f"{scale_words()}",
    )


def budget_table(study: Study) -> Table:
    """A line per agent and labels: the score over all tasks by number of labels; and with faults, where there are any.

    Each column is over the tasks that have it, so that a column of faults is told beside its own faultless twin.
    """
    noisy = [name for name in study.noises if name != "none"]
    at = sorted({int(row["budget"]) for row in study.members if row["noise"] in noisy})
    tasks = [name for name in study.thorough if study.of(dataset=name, noise=noisy[0])] if noisy else []
    header = ["agent", "labels", *(f"{budget} pairs" for budget in study.budgets)]
    faults = ("no faults*", *(f"{_NOISE[name]}*" for name in noisy))
    header += [f"{at[0]} pairs, {what}" for what in faults] if at else []
    lines = []
    for agent in study.agents:
        for labels in _labels(study, agent):
            if labels in UNLABELLED:
                cell = interval_cell(over_tasks(study, agent, labels=labels))
                rest = ["-"] * (len(header) - 2 - len(study.budgets))
                lines.append((agent, words(labels), *[cell] * len(study.budgets), *rest))
                continue
            cells = [
                interval_cell(over_tasks(study, agent, labels=labels, budget=budget, noise="none"))
                for budget in study.budgets
            ]
            if at:
                cells += [
                    interval_cell(over_tasks(study, agent, tasks, labels=labels, budget=at[0], noise=name))
                    for name in ("none", *noisy)
                ]
            lines.append((agent, words(labels), *cells))
    where = f" *Over {', '.join(map(short, tasks))} alone." if tasks not in ([], study.thorough) else ""
    return Table(
        header=tuple(header),
        rows=tuple(lines),
        words=2,
        caption=f"Interquartile mean over {len(study.thorough)} tasks ({', '.join(map(short, study.thorough))}) and "
        f"{seeds(study)} seeds of the score after the last update [95 % interval of a bootstrap within tasks].{where}",
    )


def accuracy_table(study: Study) -> Table:
    """A line per agent and labels: held-out accuracy by number of labels and by gap, and how far odds are off."""
    most = study.budgets[-1]
    bins = list(dict.fromkeys(row["gap"] for row in study.gaps))
    lines = []
    for agent in [agent for agent in study.agents if study.of(agent=agent)[0]["held_out_accuracy"]]:
        for labels in study.labels:
            found = {"agent": agent, "labels": labels, "noise": "none"}
            cells = [percent(_mean(study.of(**found, budget=budget), "held_out_accuracy")) for budget in study.budgets]
            mine = matching(study.gaps, **found, budget=most)
            cells += [percent(_mean([row for row in mine if row["gap"] == gap], "accuracy")) for gap in bins]
            off = _mean(study.of(**found, budget=most), "calibration_error")
            lines.append((agent, words(labels), *cells, "-" if math.isnan(off) else f"{100 * off:.0f}"))
    return Table(
        header=("agent", "labels", *(f"{budget} pairs" for budget in study.budgets), *bins, "odds off by"),
        rows=tuple(lines),
        words=2,
        caption="Share of held-out pairs of other episodes ordered as the labeler orders them, mean over tasks and "
        f"seeds, without faults; by number of labels, then with {most} pairs by how close the call is. Odds off by: "
        f"mean distance in points between the predicted probability and how often it came true, with {most} pairs.",
    )


def over_tasks(study: Study, agent: str, tasks: list[str] | None = None, **wanted: object) -> Interval:
    """IQM over seeds and tasks (by default those with all budgets), and its interval; NaN where a member diverged."""
    columns = [study.scores(agent=agent, dataset=name, **wanted) for name in tasks or study.thorough]
    columns = [column for column in columns if column]
    if not columns or len({len(column) for column in columns}) > 1:
        return Interval(math.nan, math.nan, math.nan)
    return stratified_bootstrap(np.array(columns).T, iqm, seed=BOOTSTRAP_SEED)


def scale_words() -> str:
    """What counts 0 and 100."""
    return (
        "0 = random policy, 100 = the best policy of the run that made the data (for Hopper and HalfCheetah no expert)."
    )


def interval_cell(found: Interval) -> str:
    """``88.1 [86.0, 89.9]``."""
    return "-" if math.isnan(found.point) else f"{found.point:.1f} [{found.low:.1f}, {found.high:.1f}]"


def _labels(study: Study, agent: str) -> list[str]:
    return list(dict.fromkeys(row["labels"] for row in study.of(agent=agent)))


def seeds(study: Study) -> int:
    """How many there are."""
    return len({row["seed"] for row in study.members})


def _mean(rows: list[Row], column: str) -> float:
    return float(np.mean([number(row, column) for row in rows])) if rows else math.nan
