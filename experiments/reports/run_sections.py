"""The sections of the report that are about training runs: what their files say, each and compared."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pbrl import figures
from pbrl.data.files import SUFFIXES
from pbrl.errors import InputError
from pbrl.records import lineage
from pbrl.records.run import CONFIG, ENVIRONMENT, MEMBERS, METRICS, progress

from ..command_line import front_file
from . import run_figures
from .page import Block, Figure, Section, Table, Text
from .rows import Row, number, numeric, read_rows, whole
from .score_tables import interval_text, percent
from .settings_table import read_json, settings_table

METRIC_NAMES = {
    "score": "normalised score: 0 = random policy, 100 = expert",
    "return": "return per episode",
    "held_out_accuracy": "share of held-out labels predicted",
}
"""What a run may be judged by, the first that it has recorded counts; in words."""
FRONT_NAMES = ("hypervolume", "expected_utility", "sparsity", "front_points")
"""What else a run records where there are several objectives, beside return_0, return_1, ..."""


@dataclass(frozen=True, eq=False)
class RunRecord:
    """What the files of a training run say.

    Attributes:
        folder: where they lie.
        config: ``config.json``.
        members: rows of ``members.csv``; labels from a file are called by the file's name.
        series: metric -> (counts [N], values [P, N]); several objectives have return_0 and so on.
        count: what is counted: "updates" or "env_steps".
    """

    folder: Path
    config: Mapping[str, Any]
    members: tuple[Row, ...]
    series: Mapping[str, tuple[list[int], np.ndarray[Any, np.dtype[np.float64]]]]
    count: str = "updates"

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
        online = identity.get("online")
        if isinstance(online, dict):
            place = identity.get("simulator")
            where = place.get("env") if isinstance(place, dict) else "the simulator"
            until = until if isinstance(dataset, dict) else ""
            until += f", {online.get('env_steps')} steps of each in {where}"
        count = len(self.members)
        return f"{count} member{'s' * (count > 1)} of {self.config.get('agent')}{on}{until}."

    @property
    def metric(self) -> str | None:
        """What the run is judged by."""
        return next((name for name in METRIC_NAMES if name in self.series), None)

    @property
    def place(self) -> str:
        """Where its members were played: returns and scores of other places do not compare; "" if unknown."""
        identity = self.config.get("identity")
        simulator = identity.get("simulator") if isinstance(identity, dict) else None
        return str(simulator.get("env", "")) if isinstance(simulator, dict) else ""

    @property
    def objectives(self) -> list[str]:
        """The names of the returns of each objective, where there are several."""
        return sorted((name for name in self.series if name.startswith("return_")), key=lambda name: int(name[7:]))

    @property
    def population_based(self) -> bool:
        """Whether members copied each other as they trained."""
        identity = self.config.get("identity")
        return isinstance(identity, dict) and isinstance(identity.get("population_based"), dict)

    @property
    def groups(self) -> dict[str, list[int]]:
        """Members that differ in the seed alone, by their labels and by what else differs from other groups."""
        if self.population_based:
            return {"the population": list(range(len(self.members)))}
        told = [
            column
            for column in self.members[0]
            if column not in ("member", "seed") and len({row[column] for row in self.members}) > 1
        ]
        if "labels" not in told and self.members[0].get("labels", "none") not in ("", "none"):
            told.insert(0, "labels")
        found: dict[str, list[int]] = {}
        for place, row in enumerate(self.members):
            shared = [row[column] if column == "labels" else f"{column}={row[column]}" for column in told]
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
    members = _with_short_labels(read_rows(folder / MEMBERS, ("member", "seed")))
    path = folder / METRICS
    read = read_rows(path, ("member", "updates", "name", "value"), empty=True)
    counted = [name for name in ("updates", "env_steps") if read and name in read[0]]
    rows = numeric(path, read, ("value",), counts=counted)
    series = {}
    count, rows = progress(rows)
    place = {row["member"]: position for position, row in enumerate(members)}
    vectors = sorted({row["name"] for row in rows if re.fullmatch(r"return_\d+", row["name"])})
    for name in (*METRIC_NAMES, *vectors, *FRONT_NAMES):
        mine = [row for row in rows if row["name"] == name]
        if not mine:
            continue
        counts = sorted({whole(row, count) for row in mine})
        values = np.full((len(members), len(counts)), np.nan)
        for row in mine:
            if row["member"] not in place:
                raise InputError(f"{path}: member {row['member']!r} is not in {MEMBERS}, expected one that is")
            values[place[row["member"]], counts.index(whole(row, count))] = number(row, "value")
        series[name] = (counts, values)
    return RunRecord(folder, config, tuple(members), series, count)


def _with_short_labels(members: Sequence[Row]) -> list[Row]:
    """The rows with label files by their stems, unless two of them have the same."""
    names = {row["labels"] for row in members if "labels" in row}
    short = {name: Path(name).stem if name.endswith((".npz", *SUFFIXES)) else name for name in names}
    if len(set(short.values())) < len(short):
        return list(members)
    return [{**row, "labels": short[row["labels"]]} if "labels" in row else row for row in members]


def run_sections(run: RunRecord, drawings: Path, place: int) -> list[Section]:
    """The sections on one run, the one at ``place``; its figure is drawn into the folder ``drawings``."""
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
        if run.objectives:
            blocks.append(_vectors(run))
        sections.append(Section("Scores", tuple(blocks)))
    sections += _fronts(run, drawings / f"{place}-front.png") + _lineage(run, drawings / f"{place}-lineage.png")
    return [
        *sections,
        Section("Members", (_members(run),)),
        Section("Settings", (settings_table(run.folder / CONFIG),)),
        Section("Environment", (settings_table(run.folder / ENVIRONMENT),)),
    ]


def comparison(runs: Sequence[RunRecord], drawings: Path) -> Section:
    """The section on several runs together; its figure is drawn into the folder ``drawings``."""
    judged = [run for run in runs if run.metric is not None]
    if not judged:
        return Section("All runs", (Text("Nothing was evaluated yet."),))
    blocks: list[Block] = []
    for metric in METRIC_NAMES:
        for turn, place in enumerate(dict.fromkeys(_kind(run, metric) for run in judged)):
            mine = [run for run in judged if run.metric == metric and _kind(run, metric) == place]
            if mine:
                blocks.append(_scores(mine, named=True))
            if len(mine) > 1 and any(len(run.series[metric][0]) > 1 for run in mine):
                drawn = drawings / f"all-{metric}{f'-{turn}' if turn else ''}.png"
                _draw(mine, drawn)
                what = f"{metric.replace('_', ' ')}: interquartile mean and middle half of the seeds."
                blocks.append(Figure(drawn, f"{len(mine)} runs, {what}"))
    return Section("All runs", tuple(blocks))


def _kind(run: RunRecord, metric: str) -> str:
    """What must be the same for runs to share a table: returns are in units of their simulator, shares are not."""
    return "" if metric == "held_out_accuracy" else run.place


def _vectors(run: RunRecord) -> Table:
    """The last return of each objective, and what fronts are worth."""
    columns = [*run.objectives, *(name for name in FRONT_NAMES if name in run.series)]
    rows = [
        (group, *(interval_text(list(run.series[name][1][members, -1])) for name in columns))
        for group, members in run.groups.items()
    ]
    identity = run.config.get("identity")
    told = identity.get("front") if isinstance(identity, dict) else None
    caption = "The return above is weighed; here each objective, at the last evaluation."
    if isinstance(told, dict):
        corner = told.get("reference")
        where = "none" if corner is None else " ".join(f"{x:g}" for x in corner)
        caption += (
            f" Fronts: the policies of each archive, played anew; reference point {where}, discount "
            f"{told.get('gamma')}. Sparsity is best for a single point: read it beside the number of points."
        )
    return Table(("members", *(name.replace("_", " ") for name in columns)), tuple(rows), words=1, caption=caption)


def _fronts(run: RunRecord, drawn: Path) -> list[Section]:
    points = front_file.read(run.folder)
    if not points:
        return []
    named = {f"seed {run.members[member].get('seed', member)} (member {member})": x for member, x in points.items()}
    run_figures.draw_fronts(named, drawn, title=f"{run.name}: fronts at the last evaluation")
    caption = "What the policies of each archive returned; those that another one dominates are left out."
    return [Section("Fronts", (Figure(drawn, caption),))]


def _lineage(run: RunRecord, drawn: Path) -> list[Section]:
    rows = lineage.read(run.folder)
    descent = lineage.founders(rows)
    if len(descent) < 2:
        return []
    run_figures.draw_lineage(rows, drawn, count=run.count)
    copies = sum(row["member"] != row["source"] for row in rows)
    told = (
        f"{len(descent) - 1} turns, {copies} copies; the members at the end descend from "
        f"{len(set(descent[-1]))} of {len(descent[-1])}. Settings in the table of members are those of the beginning."
    )
    return [Section("Lineage", (Text(told), Figure(drawn, "Who became a copy of whom, and the settings that vary.")))]


def _scores(runs: Sequence[RunRecord], *, named: bool = False) -> Table:
    """A line per run and group of members that differ in the seed alone; all runs are judged by the same metric."""
    metric = str(runs[0].metric)
    by_labels = metric == "held_out_accuracy"
    lines = []
    for run in runs:
        updates, values = run.series[metric]
        accuracy = run.series.get("held_out_accuracy")
        scale = 100.0 if by_labels else 1.0
        for group, members in run.groups.items():
            last, best = values[members, -1], np.fmax.reduce(values[members], axis=1)
            own = "-" if accuracy is None else percent(float(accuracy[1][members, -1].mean()))
            cells = (interval_text(list(last * scale)), interval_text(list(best * scale)), own)
            at = f"{updates[-1]} steps online" if run.count == "env_steps" else str(updates[-1])
            line = (run.name, group, at, str(len(members)), *cells)
            lines.append(line[not named : len(line) - by_labels])
    header = ("run", "members", "updates", "seeds", "last", "best", "held-out labels")
    judge = METRIC_NAMES[metric] + (" (in %)" if by_labels else "")
    judge += f", in {runs[0].place}" if named and runs[0].place and not by_labels else ""
    judge += ", weighed" if runs[0].objectives and metric == "return" else ""
    return Table(
        header=header[not named : len(header) - by_labels],
        rows=tuple(lines),
        words=1 + named,
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
    counts = {"updates": "updates", "env_steps": "environment steps"}
    x = " or ".join(dict.fromkeys(counts[run.count] for run in runs))
    figures.learning_curves(curves, path, title=title, axis=METRIC_NAMES[metric].partition(":")[0], progress=x)


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
    fold = f"All {len(cells)} members" if len(cells) > 1 else "The only member"
    return Table(tuple(columns), tuple(cells), words=0, fold=fold)


def _short(value: float) -> str:
    return "diverged" if math.isnan(value) else f"{value:.4g}"
