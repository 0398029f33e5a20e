"""The report of one or more run folders, from ``pbrl train`` and ``pbrl demo`` alike: one HTML page, and Markdown.

Everything on the page is read from the folders' files; nothing is trained, played or loaded from elsewhere.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pbrl import figures
from pbrl.data.files import replacing
from pbrl.errors import InputError
from pbrl.run import CONFIG, ENVIRONMENT, MEMBERS, METRICS

from . import demo_figures
from .page import Block, Figure, Page, Section, Table, Text, html, markdown
from .tables import (
    Row,
    accuracy_table,
    findings,
    interval_text,
    number,
    numeric,
    percent,
    read_labels,
    read_results,
    read_rows,
    score_table,
    whole,
    words,
)

RESULTS = "results.csv"
STAGES = (
    "SFT and CPL clone all segments in the first half of their updates; P-IQL learns its reward there, and its policy "
    "only begins in the second half."
)
METRIC_NAMES = {
    "score": "normalised score: 0 = random policy, 100 = expert",
    "return": "return per episode",
    "held_out_accuracy": "share of held-out labels predicted",
}
"""What a run may be judged by, the first that it has recorded counts; in words."""


def write(folders: Sequence[Path], out: Path | None = None) -> None:
    """``publish``, and print where the page is."""
    print(publish(folders, out))


def publish(folders: Sequence[Path], out: Path | None = None) -> Path:
    """Write the report of these run folders; the path of the HTML file, beside which the Markdown lies.

    Args:
        folders: what ``pbrl train`` or ``pbrl demo`` left behind.
        out: the HTML file; by default ``report.html`` in the folder, or in the one that all folders have in common.

    Raises:
        InputError: no folder, one that is no run or is damaged, a name not in .html, or an unwritable file.
    """
    if not folders:
        raise InputError("report has no run folders, expected at least one")
    for folder in folders:
        if not (folder / RESULTS).is_file() and not (folder / CONFIG).is_file():
            found = "not a run" if folder.is_dir() else "no such folder"
            raise InputError(f"{folder}: {found}, expected a folder that pbrl train or pbrl demo has made")
    out = Path(os.path.commonpath([folder.resolve() for folder in folders])) / "report.html" if out is None else out
    if out.suffix != ".html":
        raise InputError(f"{out}: the name ends in {out.suffix or 'nothing'!r}, expected .html")
    page = make(folders, out.parent / f"{out.stem}_figures")
    for path, text in ((out, html(page)), (out.with_suffix(".md"), markdown(page, out.parent))):
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return out


def make(folders: Sequence[Path], drawings: Path) -> Page:
    """The page; figures of training runs are drawn into the folder ``drawings``."""
    demos = [folder for folder in folders if (folder / RESULTS).is_file()]
    runs = [read_run(folder) for folder in folders if folder not in demos]
    several = len(folders) > 1
    sections: list[Section] = []
    if len(runs) > 1:
        sections.append(_comparison(runs, drawings))
    for folder in demos:
        sections.extend(_named(_demo_sections(folder), folder.name if several else ""))
    for place, run in enumerate(runs):
        sections.extend(_named(_run_sections(run, drawings, place), run.name if several else ""))
    if several:
        return Page(f"{len(folders)} runs", ", ".join(folder.name for folder in folders), tuple(sections))
    if demos:
        rows = read_results(demos[0] / RESULTS)
        agents = len(dict.fromkeys(row["agent"] for row in rows))
        lead = f"{agents} agents, {len(rows)} members, on {rows[0]['data_set']}; played in {rows[0]['env']}."
        return Page("Preference learners compared", lead, tuple(sections))
    run = runs[0]
    return Page(run.name, run.lead, tuple(sections))


def _named(sections: Sequence[Section], name: str) -> Iterator[Section]:
    for section in sections:
        yield Section(f"{name}: {section.title}" if name else section.title, section.blocks)


# The demo


def _demo_sections(folder: Path) -> list[Section]:
    rows, judged = read_results(folder / RESULTS), read_labels(folder / "labels.csv")
    scores, curves, judges = folder / "scores.png", folder / "curves.png", demo_figures.label_figures(folder)
    if not all(path.is_file() for path in (scores, curves, *judges.values())):
        demo_figures.draw(folder)
    return [
        Section(
            "Scores",
            (
                Figure(scores, "Score of every agent after its last update, by the labels that it learned from."),
                score_table(rows),
                *map(Text, findings(rows)),
            ),
        ),
        Section(
            "Held-out labels",
            (
                Text(
                    "CPL judges a segment by its advantage (the discounted sum of alpha log pi), P-IQL by its learned "
                    "reward, BC and SFT by the likelihood of the actions; BC has seen no labels and is judged by both "
                    "labelers. The pairs are from episodes that no labelled training pair is from."
                ),
                *(
                    Figure(path, f"Held-out pairs by {words(judge)}: mean and range of the seeds, from close to clear.")
                    for judge, path in judges.items()
                ),
                accuracy_table(judged),
            ),
        ),
        Section("Learning curves", (Figure(curves, f"Scores at every evaluation on the way. {STAGES}"),)),
        Section("Settings", (_settings(folder / CONFIG), Text(f"To repeat it: {rows[0].get('command', 'pbrl demo')}"))),
        Section("Members", (_members_of_demo(rows),)),
        Section("Environment", (_settings(folder / ENVIRONMENT),)),
    ]


def _members_of_demo(rows: Sequence[Row]) -> Table:
    columns = ("agent", "labels", "seed", "score_last", "score_best", "best_at", "label_accuracy", "seconds")
    shown = [column for column in columns if column in rows[0]]
    return Table(
        header=tuple(column.replace("_", " ") for column in shown),
        rows=tuple(tuple(row[column] for column in shown) for row in rows),
        words=2,
        fold=f"All {len(rows)} members",
    )


# Training runs


@dataclass(frozen=True, eq=False)
class RunRecord:
    """What the files of a training run say.

    Attributes:
        folder: where they lie.
        config: ``config.json``.
        members: rows of ``members.csv``.
        series: metric -> (updates [N], values [P, N]).
    """

    folder: Path
    config: Mapping[str, Any]
    members: tuple[Row, ...]
    series: Mapping[str, tuple[list[int], np.ndarray[Any, np.dtype[np.float64]]]]

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.resolve().name

    @property
    def lead(self) -> str:
        """What was run, in a sentence."""
        identity = self.config.get("identity")
        identity = identity if isinstance(identity, dict) else {}
        dataset = identity.get("dataset")
        on = f" on {dataset.get('name')}" if isinstance(dataset, dict) else ""
        until = f", {identity['updates']} updates" if "updates" in identity else ""
        count = len(self.members)
        return f"{count} member{'s' * (count > 1)} of {self.config.get('agent')}{on}{until}."

    @property
    def metric(self) -> str | None:
        """What the run is judged by."""
        return next((name for name in METRIC_NAMES if name in self.series), None)

    @property
    def groups(self) -> dict[str, list[int]]:
        """Members that differ in the seed alone, by what they share where it differs from other groups."""
        varied = [
            column
            for column in self.members[0]
            if column not in ("member", "seed") and len({row[column] for row in self.members}) > 1
        ]
        found: dict[str, list[int]] = {}
        for place, row in enumerate(self.members):
            shared = [row[column] if column == "labels" else f"{column}={row[column]}" for column in varied]
            found.setdefault(", ".join(shared) or str(self.config.get("agent")), []).append(place)
        return found


def read_run(folder: Path) -> RunRecord:
    """The record of a training run.

    Raises:
        InputError: a file that is missing or damaged.
    """
    config = read_json(folder / CONFIG)
    if not isinstance(config.get("agent"), str):
        raise InputError(f"{folder / CONFIG}: no agent is named, expected the JSON that pbrl train has written")
    members = read_rows(folder / MEMBERS, ("member", "seed"))
    path = folder / METRICS
    rows = numeric(
        path, read_rows(path, ("member", "updates", "name", "value"), empty=True), ("value",), counts=("updates",)
    )
    series = {}
    place = {row["member"]: position for position, row in enumerate(members)}
    for name in METRIC_NAMES:
        mine = [row for row in rows if row["name"] == name]
        if not mine:
            continue
        updates = sorted({whole(row, "updates") for row in mine})
        values = np.full((len(members), len(updates)), np.nan)
        for row in mine:
            if row["member"] not in place:
                raise InputError(f"{path}: member {row['member']!r} is not in {MEMBERS}, expected one that is")
            values[place[row["member"]], updates.index(whole(row, "updates"))] = number(row, "value")
        series[name] = (updates, values)
    return RunRecord(folder, config, tuple(members), series)


def _run_sections(run: RunRecord, drawings: Path, place: int) -> list[Section]:
    sections = []
    if run.metric is None:
        sections.append(Section("Scores", (Text("Nothing was evaluated yet."),)))
    else:
        drawn = drawings / f"{place}-{run.metric}.png"
        blocks: list[Block] = [_scores([run])]
        if len(run.series[run.metric][0]) > 1:
            _draw([run], drawn)
            blocks.append(
                Figure(drawn, f"{run.metric.replace('_', ' ')}: interquartile mean and middle half of the seeds.")
            )
        sections.append(Section("Scores", tuple(blocks)))
    return [
        *sections,
        Section("Members", (_members(run),)),
        Section("Settings", (_settings(run.folder / CONFIG),)),
        Section("Environment", (_settings(run.folder / ENVIRONMENT),)),
    ]


def _comparison(runs: Sequence[RunRecord], drawings: Path) -> Section:
    judged = [run for run in runs if run.metric is not None]
    if not judged:
        return Section("All runs", (Text("Nothing was evaluated yet."),))
    blocks: list[Block] = [_scores(judged)]
    metrics = {run.metric for run in judged}
    if len(metrics) == 1 and any(len(run.series[str(run.metric)][0]) > 1 for run in judged):
        _draw(judged, drawings / "all.png")
        blocks.append(Figure(drawings / "all.png", "All runs: interquartile mean and middle half of the seeds."))
    return Section("All runs", tuple(blocks))


def _scores(runs: Sequence[RunRecord]) -> Table:
    """A line per run and group of members that differ in the seed alone."""
    lines = []
    for run in runs:
        updates, values = run.series[str(run.metric)]
        accuracy = run.series.get("held_out_accuracy")
        scale = 100.0 if run.metric == "held_out_accuracy" else 1.0
        for group, members in run.groups.items():
            last, best = values[members, -1], np.fmax.reduce(values[members], axis=1)
            own = "-" if accuracy is None else percent(float(accuracy[1][members, -1].mean()))
            cells = (interval_text(list(last * scale)), interval_text(list(best * scale)), own)
            lines.append((run.name, group, str(updates[-1]), str(len(members)), *cells))
    several = len(runs) > 1
    header = ("run", "members", "updates", "seeds", "last", "best", "held-out labels")
    judge = METRIC_NAMES[str(runs[0].metric)] + (" (in %)" if runs[0].metric == "held_out_accuracy" else "")
    return Table(
        header=header if several else header[1:],
        rows=tuple(line if several else line[1:] for line in lines),
        words=2 if several else 1,
        caption=f"{judge[0].upper()}{judge[1:]}. Interquartile mean over seeds [95 % bootstrap interval]. "
        "Last: at the last evaluation, the number to go by. Best: each member at its best evaluation, which flatters.",
    )


def _draw(runs: Sequence[RunRecord], path: Path) -> None:
    """Learning curves of all groups of the runs."""
    curves = {}
    for run in runs:
        updates, values = run.series[str(run.metric)]
        for group, members in run.groups.items():
            curves[f"{run.name}: {group}" if len(runs) > 1 else group] = (updates, values[members])
    metric = str(runs[0].metric)
    title = runs[0].name if len(runs) == 1 else "All runs"
    figures.learning_curves(curves, path, title=title, axis=METRIC_NAMES[metric].partition(":")[0])


def _members(run: RunRecord) -> Table:
    columns = list(run.members[0])
    cells: list[tuple[str, ...]] = []
    if run.metric is not None:
        updates, values = run.series[run.metric]
        for row, curve in zip(run.members, values):
            seen = np.isfinite(curve).any()
            best = int(np.nanargmax(curve)) if seen else 0
            ends = (_short(curve[-1]), _short(curve[best]), str(updates[best]) if seen else "-")
            cells.append((*row.values(), *ends))
        columns += [f"last {run.metric}", f"best {run.metric}", "best at"]
    else:
        cells = [tuple(row.values()) for row in run.members]
    return Table(tuple(columns), tuple(cells), words=0, fold=f"All {len(cells)} members")


def _short(value: float) -> str:
    return "diverged" if math.isnan(value) else f"{value:.4g}"


# Both


def _settings(path: Path) -> Table:
    """A JSON file as a table of two columns."""
    rows = tuple(flat(read_json(path)))
    return Table(("setting", "value"), rows, words=2, fold=path.name if len(rows) > 16 else "")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        InputError: no such file, or something else in it.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: unreadable ({error.strerror}), expected a JSON file of a run") from error
    except (ValueError, RecursionError):
        raise InputError(f"{path}: damaged, expected a JSON file") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}, expected a JSON object")
    return content


def flat(content: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """The leaves of nested JSON, by dotted names."""
    for name, value in content.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", _value(value)


def _value(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(item, str | int | float) for item in value):
        return ", ".join(map(str, value)) or "none"
    return value if isinstance(value, str) else "-" if value is None else json.dumps(value)
