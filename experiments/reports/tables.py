"""From rows of results, one per member, to tables of scores with intervals; and the README's tables from files.

``python -m experiments.reports.tables`` writes the README anew between its markers: the demo's table from
``experiments/results/demo.csv`` and ``demo_labels.csv``, and the list of agents from ``agents/``. With the folder of a
demo (``python -m experiments.reports.tables runs/demo``) it takes that demo's results over first.
"""

from __future__ import annotations

import csv
import math
import re
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import rich.box
import rich.markup
import rich.table

import agents
from pbrl.data.files import about, replacing
from pbrl.errors import InputError
from pbrl.statistics import Interval, iqm, stratified_bootstrap

from .page import Table, markdown_table

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "experiments" / "results"
BOOTSTRAP_SEED = 0
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


def interval(values: Iterable[float]) -> Interval:
    """IQM and 95 % interval of the members that did not diverge; all NaN where none is left."""
    finite = [value for value in values if math.isfinite(value)]
    return stratified_bootstrap(finite, iqm, seed=BOOTSTRAP_SEED) if finite else Interval(math.nan, math.nan, math.nan)


def interval_text(values: Sequence[float]) -> str:
    """``88.1 [86.0, 89.9]``, with a word on members that diverged and are not in it."""
    found = interval(values)
    lost = sum(not math.isfinite(value) for value in values)
    text = "none" if math.isnan(found.point) else f"{found.point:.1f}"
    text += "" if math.isnan(found.low) else f" [{found.low:.1f}, {found.high:.1f}]"
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


def findings(rows: Sequence[Row]) -> list[str]:
    """What the last scores show, in sentences made from the numbers: whose intervals lie apart."""
    found = {group: interval([number(row, "score_last") for row in members]) for group, members in groups(rows).items()}
    found = {group: one for group, one in found.items() if math.isfinite(one.low)}
    sentences = []
    verdicts: dict[str, list[str]] = {}
    for agent in dict.fromkeys(agent for agent, _ in found):
        one, other = found.get((agent, "partial_return")), found.get((agent, "regret"))
        if one and other:
            verdicts.setdefault(_order(one, other), []).append(agent)
    texts = {
        "overlap": "the intervals with partial-return and with regret labels overlap",
        "above": "partial-return labels score higher, with intervals apart",
        "below": "regret labels score higher, with intervals apart",
    }
    parts = [f"for {_listed(verdicts[verdict])} {text}" for verdict, text in texts.items() if verdict in verdicts]
    if parts:
        sentences.append("Between the labels: " + "; ".join(parts) + ".")
    if baseline := found.get(("bc", "none")):
        sides: dict[str, list[str]] = {}
        for group, one in found.items():
            if group != ("bc", "none"):
                sides.setdefault(_order(one, baseline), []).append(_named(group))
        texts = {"above": "above it", "below": "below it", "overlap": "not told apart from it"}
        parts = [f"{_listed(sides[side])} {text}" for side, text in texts.items() if side in sides]
        if parts:
            sentences.append(
                "Against behaviour cloning of all data, by whose intervals lie apart: " + "; ".join(parts) + "."
            )
    if still := [number(row, "score_still") for row in rows if row.get("score_still")]:
        under = [_named(group) for group, one in found.items() if one.low <= still[0]]
        if len(under) == len(found):
            verdict = "no agent's interval lies above that"
        elif under:
            verdict = f"all intervals but {'that' if len(under) == 1 else 'those'} of {_listed(under)} lie above that"
        else:
            verdict = "every agent's interval lies above that"
        sentences.append(f"Doing nothing at all (action 0) scores {still[0]:.1f}; {verdict}.")
    return sentences


def _order(one: Interval, other: Interval) -> str:
    if one.low > other.high:
        return "above"
    return "below" if one.high < other.low else "overlap"


def _named(group: Group) -> str:
    agent, labels = group
    return agent if labels in ("none", "true_reward") else f"{agent} ({words(labels)})"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def console_table(table: Table) -> rich.table.Table:
    """The table for a terminal."""
    made = rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
    for column, name in enumerate(table.header):
        width = max((len(row[column]) for row in table.rows), default=0)  # headers may wrap, cells may not
        made.add_column(name, justify="left" if column < table.words else "right", min_width=width)
    for row in table.rows:
        made.add_row(*map(rich.markup.escape, row))
    return made


def agents_table() -> Table:
    """The algorithms in ``agents/``, by existing."""
    found = [agents.find(name) for name in agents.names()]
    found.sort(key=lambda algorithm: (algorithm.family, algorithm.name))
    return Table(
        header=("name", "family", "what it is"),
        rows=tuple((one.name, words(one.family), one.summary) for one in found),
        words=3,
    )


def generated() -> dict[str, str]:
    """The README's generated parts, by the names of their markers.

    Raises:
        InputError: the result files are missing or damaged.
    """
    rows, judged = read_results(RESULTS / "demo.csv"), read_labels(RESULTS / "demo_labels.csv")
    first = rows[0]
    source = (
        f"Made by `{first['command']}` on {first['cores']} cores ({float(first['total_seconds']):.0f} seconds, "
        f"torch {first['torch']}, MuJoCo {first['mujoco']}); rows in experiments/results/demo.csv."
    )
    return {
        "demo": "\n\n".join([markdown_table(score_table(rows)), " ".join(findings(rows)), source]),
        "labels": markdown_table(accuracy_table(judged)),
        "agents": markdown_table(agents_table()),
    }


def fill(text: str, parts: Mapping[str, str]) -> str:
    """``text`` with every part put between ``<!-- begin NAME -->`` and ``<!-- end NAME -->``.

    Raises:
        InputError: a pair of markers is missing.
    """
    for name, part in parts.items():
        pattern = re.compile(rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)
        if not pattern.search(text):
            raise InputError(f"README.md: markers '<!-- begin {name} -->' and '<!-- end {name} -->' are missing")
        text = pattern.sub(lambda match, part=part: f"{match[1]}\n{part}\n\n{match[2]}", text)  # type: ignore[misc]
    return text


def take_over(folder: Path) -> None:
    """Copy a demo's tables and its figure to ``experiments/results``.

    Raises:
        InputError: not the folder of a demo.
    """
    read_results(folder / "results.csv")
    read_labels(folder / "labels.csv")
    for name, kept in (("results.csv", "demo.csv"), ("labels.csv", "demo_labels.csv"), ("scores.png", "demo.png")):
        with replacing(RESULTS / kept) as temporary:
            shutil.copyfile(folder / name, temporary)


def main() -> None:
    """Write the README's generated parts."""
    if len(sys.argv) > 1:
        take_over(Path(sys.argv[1]))
    path = ROOT / "README.md"
    with replacing(path) as temporary:
        temporary.write_text(fill(path.read_text(encoding="utf-8"), generated()), encoding="utf-8")


if __name__ == "__main__":
    main()
