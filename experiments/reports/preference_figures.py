"""The preference study's figures: scores against labels, in training, held-out accuracy, and odds against outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib.ticker as ticks
import numpy as np
from matplotlib.axes import Axes

from pbrl.figures import PALETTE

from .panels import cut, panelled
from .preference_rows import UNLABELLED, Study, matching, read_study, short
from .rows import Row, number, whole
from .score_tables import interval, words

_STYLES = {"iql": "--", "bc": ":"}  # of those that learn without labels
BUDGETS, CURVES, ACCURACY, ODDS = "budgets.png", "curves.png", "accuracy.png", "odds.png"


def draw(folder: Path, prefix: str = "") -> None:
    """Write the study's figures beside its tables; those on judging only where members judge.

    Raises:
        InputError: a table that is missing or damaged, or a folder that cannot be written.
    """
    study = read_study(folder, prefix)
    if study.labels:
        _budgets(study, folder / f"{prefix}{BUDGETS}")
    _curves(study, folder / f"{prefix}{CURVES}")
    if study.gaps:
        _accuracy(study, folder / f"{prefix}{ACCURACY}")
    if study.odds:
        _odds(study, folder / f"{prefix}{ODDS}")


def _colours(study: Study) -> dict[str, str]:
    named = [agent for agent in study.agents if study.of(agent=agent)[0]["labels"] not in UNLABELLED]
    return {agent: PALETTE[place % len(PALETTE)] for place, agent in enumerate(named)}


def _budgets(study: Study, path: Path) -> None:
    """Scores against numbers of labels; references do not depend on them."""
    colours = _colours(study)
    title = "Score against labelled pairs (no faults): IQM over seeds, 95 % interval"
    rows, columns = list(map(words, study.labels)), list(map(short, study.datasets))
    with panelled(path, rows, columns, title, below="labelled pairs") as panels:
        for labels in study.labels:
            for dataset in study.datasets:
                axes = panels[words(labels), short(dataset)]
                for agent, colour in colours.items():
                    found = [
                        (budget, interval(scores))
                        for budget in study.budgets
                        if (
                            scores := study.scores(
                                agent=agent, dataset=dataset, labels=labels, budget=budget, noise="none"
                            )
                        )
                    ]
                    if found:
                        x, ends = [budget for budget, _ in found], [one for _, one in found]
                        axes.fill_between(
                            x, [e.low for e in ends], [e.high for e in ends], color=colour, alpha=0.12, lw=0
                        )
                        axes.plot(x, [e.point for e in ends], color=colour, lw=1.4, marker="o", ms=2.5, label=agent)
                for agent, style in _STYLES.items():
                    if scores := study.scores(agent=agent, dataset=dataset):
                        name = "iql, true reward" if agent == "iql" else "bc, all data"
                        axes.axhline(interval(scores).point, color="#555555", lw=1.1, ls=style, label=name)
                cut(axes)
                axes.set_xscale("log")
                axes.xaxis.set_major_locator(ticks.FixedLocator(study.budgets))
                axes.xaxis.set_major_formatter(ticks.FuncFormatter(lambda value, _: f"{value:g}"))
                axes.xaxis.set_minor_locator(ticks.NullLocator())


def _curves(study: Study, path: Path) -> None:
    """Scores on the way, with the most labels."""
    colours = {**_colours(study), "iql": "#555555", "bc": "#555555"}
    most = study.budgets[-1] if study.budgets else 0
    labelled = study.labels or ["none"]
    title = f"Score in training with {most} labelled pairs (no faults): IQM over seeds, 95 % interval"
    rows, columns = list(map(words, labelled)), list(map(short, study.datasets))
    with panelled(path, rows, columns, title, below="updates") as panels:
        for labels in labelled:
            for dataset in study.datasets:
                for agent, colour in colours.items():
                    found = [
                        row
                        for row in matching(study.curves, agent=agent, dataset=dataset, noise="none")
                        if row["labels"] in UNLABELLED or (row["labels"], row["budget"]) == (labels, str(most))
                    ]
                    if found:
                        _band(panels[words(labels), short(dataset)], found, colour, agent)
                cut(panels[words(labels), short(dataset)])


def _band(axes: Axes, rows: Sequence[Row], colour: str, name: str) -> None:
    x = [whole(row, "updates") for row in rows]
    low, high = ([number(row, end) for row in rows] for end in ("low", "high"))
    axes.fill_between(x, low, high, color=colour, alpha=0.12, lw=0)
    style = _STYLES.get(name, "-")
    axes.plot(x, [number(row, "score") for row in rows], color=colour, lw=1.4, ls=style, marker="o", ms=2.5, label=name)


def _accuracy(study: Study, path: Path) -> None:
    """Held-out accuracy by gap with the most labels, mean over seeds."""
    colours, most = _colours(study), study.budgets[-1]
    title = f"Held-out pairs ordered rightly, from close calls to clear ones ({most} pairs, no faults)"
    with panelled(path, list(map(words, study.labels)), list(map(short, study.datasets)), title) as panels:
        for labels in study.labels:
            for dataset in study.datasets:
                axes = panels[words(labels), short(dataset)]
                axes.axhline(0.5, color="#888888", lw=0.8, ls=(0, (4, 3)))
                for agent, colour in colours.items():
                    wanted = {"agent": agent, "dataset": dataset, "labels": labels, "budget": most, "noise": "none"}
                    share = [number(row, "accuracy") for row in matching(study.gaps, **wanted)]
                    if share:
                        place = range(1, len(share) + 1)
                        axes.plot(place, share, color=colour, lw=1.4, marker="o", ms=2.5, label=agent)
                axes.yaxis.set_major_formatter(ticks.PercentFormatter(1.0, decimals=0))
                axes.xaxis.set_major_locator(ticks.FixedLocator([1, 5]))
                axes.xaxis.set_major_formatter(ticks.FuncFormatter(lambda value, _: "close" if value < 3 else "clear"))


def _odds(study: Study, path: Path) -> None:
    """Predicted probability of the choice against how often the labeler agrees: all tasks, by number of labels."""
    colours = _colours(study)
    title = "Predicted probability and how often it comes true (all tasks, no faults)"
    rows, columns = list(map(words, study.labels)), [f"{budget} pairs" for budget in study.budgets]
    with panelled(path, rows, columns, title, below="predicted") as panels:
        for labels in study.labels:
            for budget in study.budgets:
                axes = panels[words(labels), f"{budget} pairs"]
                axes.plot([0.5, 1], [0.5, 1], color="#888888", lw=0.8, ls=(0, (4, 3)))
                for agent, colour in colours.items():
                    found = matching(study.odds, agent=agent, labels=labels, budget=budget, noise="none")
                    points = []
                    for place in sorted({whole(row, "bin") for row in found}):
                        mine = [row for row in found if whole(row, "bin") == place]
                        count = np.array([whole(row, "count") for row in mine])
                        mean = [
                            np.average([number(row, c) for row in mine], weights=count)
                            for c in ("predicted", "observed")
                        ]
                        points.append(mean)
                    if points:
                        x, y = zip(*points)
                        axes.plot(x, y, color=colour, lw=1.4, marker="o", ms=2.5, label=agent)
