"""From rows of results, one per member, to tables of scores with intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import rich.box
import rich.markup
import rich.table

from pbrl.statistics import Interval, iqm, stratified_bootstrap

from .page import Table
from .rows import Row, groups, number

BOOTSTRAP_SEED = 0


def interval(values: Iterable[float]) -> Interval:
    """IQM and 95 % interval of the members that did not diverge; all NaN where none is left."""
    finite = [value for value in values if math.isfinite(value)]
    return stratified_bootstrap(finite, iqm, seed=BOOTSTRAP_SEED) if finite else Interval(math.nan, math.nan, math.nan)


def interval_text(values: Sequence[float], digits: int = 1) -> str:
    """``88.1 [86.0, 89.9]``, with a word on members that diverged and are not in it."""
    found = interval(values)
    lost = sum(not math.isfinite(value) for value in values)
    text = "none" if math.isnan(found.point) else f"{found.point:z.{digits}f}"
    text += "" if math.isnan(found.low) else f" [{found.low:z.{digits}f}, {found.high:z.{digits}f}]"
    return text + (f" ({lost} of {len(values)} diverged)" if lost else "")


def words(name: str) -> str:
    """``partial_return`` as in prose."""
    return name.replace("_", " ")


def score_table(rows: Sequence[Row]) -> Table:
    """A line per agent and labels: scores after the last update and at each member's best evaluation."""
    lines = []
    for (agent, labels), members in groups(rows).items():
        last, best = ([number(row, f"score_{which}") for row in members] for which in ("last", "best"))
        own = [number(row, "label_accuracy") for row in members]
        accuracy = percent(float(np.mean(own))) if np.isfinite(own).all() else "-"
        lines.append((agent, words(labels), str(len(members)), interval_text(last), interval_text(best), accuracy))
    return Table(
        header=("agent", "labels", "seeds", "last score", "best score", "held-out labels"),
        rows=tuple(lines),
        words=2,
        caption="Scores: interquartile mean over seeds [95 % bootstrap interval]; 0 = random policy, 100 = the expert "
        "that made the data. Last: after the last update, the score to go by. Best: each seed at its best evaluation, "
        "which flatters. Held-out labels: share of the labeler's answers on unseen episodes that the agent sides with.",
    )


def accuracy_table(rows: Sequence[Row]) -> Table:
    """A line per agent, labels and judge: held-out accuracy by gap; from rows of (agent, labels, judge, gap)."""
    found: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    for row in rows:
        line = found.setdefault((row["agent"], row["labels"], row["judge"]), {})
        line.setdefault(row["gap"], []).append(number(row, "accuracy"))
    bins = list(dict.fromkeys(row["gap"] for row in rows))
    return Table(
        header=("agent", "learned from", "judged by", *bins),
        rows=tuple(
            (agent, words(labels), words(judge), *(percent(float(np.mean(line[gap]))) for gap in bins))
            for (agent, labels, judge), line in found.items()
        ),
        words=3,
        caption="Mean over seeds of the share of held-out pairs ordered as the labeler orders them, from the fifth of "
        "the pairs that is hardest to call (the smallest difference of the labeler's scores) to the clearest fifth. "
        "Guessing gives 50 %.",
    )


def percent(share: float) -> str:
    """0.873 as ``87 %``."""
    return "-" if math.isnan(share) else f"{100 * share:.0f} %"


def console_table(table: Table) -> rich.table.Table:
    """The table for a terminal."""
    made = rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
    for column, name in enumerate(table.header):
        width = max((len(row[column]) for row in table.rows), default=0)  # headers may wrap, cells may not
        made.add_column(name, justify="left" if column < table.words else "right", min_width=width)
    for row in table.rows:
        made.add_row(*map(rich.markup.escape, row))
    return made
