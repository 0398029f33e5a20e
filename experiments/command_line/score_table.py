"""The table at a run's end: last and best score of each group of members that differ in the seed alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from pbrl.fronts.front import Weighing
from pbrl.handover import handover
from pbrl.records import lineage
from pbrl.records.run import Run
from pbrl.statistics import iqm, stratified_bootstrap

from . import front_file
from .plan import Plan
from .turns import summary

WORDS = {"updates": "updates", "env_steps": "environment steps"}
"""What a run's series count, in words."""
FRONT = ("hypervolume", "expected_utility", "sparsity", "front_points")
"""What a run records of fronts."""


def main_metric(run: Run) -> str | None:
    """What a run is judged by: its normalised score, its return, or its accuracy on held-out labels."""
    recorded = {row["name"] for row in run.metrics()}
    return next((name for name in ("score", "return", "held_out_accuracy") if name in recorded), None)


def title(metric: str) -> str:
    """What a metric is, in words."""
    return {
        "score": "normalised score (0: random, 100: expert)",
        "return": "return",
        "held_out_accuracy": "share of held-out labels predicted",
    }.get(metric, metric.replace("_", " "))


def interval(values: Sequence[float] | NDArray[np.float64]) -> str:
    """IQM and its 95 % interval; members without a number are left out, and counted."""
    array = np.asarray(values, dtype=np.float64)
    finite = array[np.isfinite(array)]
    lost = f" ({len(array) - len(finite)} of {len(array)} diverged)" if len(finite) < len(array) else ""
    if not len(finite):
        return f"-{lost}"
    digits = 3 if np.abs(finite).max() <= 1 else 1
    point, low, high = stratified_bootstrap(finite, iqm, seed=0)
    ends = f" [{low:.{digits}f}, {high:.{digits}f}]" if np.isfinite(low) else ""
    return f"{point:.{digits}f}{ends}{lost}"


def render(planned: Plan, run: Run) -> Iterator[Table | str]:
    """What to print."""
    metric = main_metric(run)
    if metric is None:
        if summary(run.folder):
            yield summary(run.folder)
        return
    updates, values = run.series(metric)
    scores = np.asarray(values)  # [P, N]
    accuracy = np.asarray(run.series("held_out_accuracy")[1])
    groups = planned.population.groups
    several = _objectives(run)
    judge = f"return weighed by {_weights(planned)}" if several else title(metric)
    table = Table(title=f"{planned.request.agent}: {judge}, IQM over seeds with 95 % interval", title_justify="left")
    table.add_column("members")
    table.add_column("seeds", justify="right")
    table.add_column(f"last (at {updates[-1]} {WORDS[run.count]})", justify="right")
    table.add_column("best of all evaluations (optimistic)", justify="right")
    if accuracy.size and metric != "held_out_accuracy":
        table.add_column("held-out labels predicted", justify="right")
    # From data into the simulator: what the change does. Regret is measured from the expert's score, 100.
    changed = handover(updates, scores) if run.count == "env_steps" and updates[0] == 0 and len(updates) > 1 else None
    if changed is not None:
        for name in ("offline", "dip", *(["regret per step"] if metric == "score" else [])):
            table.add_column(name, justify="right")
    for group in dict.fromkeys(groups):
        mine = [i for i, name in enumerate(groups) if name == group]
        highest = np.where(np.isnan(scores[mine, -1]), np.nan, np.fmax.reduce(scores[mine], axis=1))
        row = [group, str(len(mine)), interval(scores[mine, -1]), interval(highest)]
        if accuracy.size and metric != "held_out_accuracy":
            row.append(interval(accuracy[mine, -1]))
        if changed is not None:
            row += [interval(changed.offline[mine]), interval(changed.dip[mine])]
            row += [interval(changed.regret[mine])] if metric == "score" else []
        table.add_row(*row)
    yield table
    if several:
        yield _vectors(planned, run, several)
    if planned.turns is not None:
        told, last = summary(run.folder), np.where(np.isnan(scores[:, -1]), -np.inf, scores[:, -1])
        best = planned.population.names[int(last.argmax())]
        yield (
            f"{told + '; ' if told else ''}best at the end: member {int(last.argmax())} (at first {best}), "
            f"{last.max():.4g}, chosen by this very score"
        )
    if len(set(groups)) == len(groups):
        yield "One seed says little: give several, as in --seed 0 1 2 3 4 5 6 7, for intervals."


def _objectives(run: Run) -> list[str]:
    """The names of the returns of each objective, where there are several."""
    recorded = {row["name"] for row in run.metrics()}
    return sorted((name for name in recorded if name.startswith("return_")), key=lambda name: int(name[7:]))


def _weights(planned: Plan) -> str:
    """The preference weights, or that they differ."""
    assert isinstance(planned.learner, Weighing)  # who else has returns of several objectives
    rows = {" ".join(f"{x:.3g}" for x in row) for row in planned.learner.weights.tolist()}
    return rows.pop() if len(rows) == 1 else "each member's own weights"


def _vectors(planned: Plan, run: Run, names: Sequence[str]) -> Table:
    """The last return of each objective, and what fronts are worth, of each group of members."""
    told = planned.identity.get("front")
    what = "the last return of each objective"
    if told is not None:
        corner = "none" if told["reference"] is None else " ".join(f"{x:g}" for x in told["reference"])
        what += f"; fronts at reference point {corner} and discount {told['gamma']:g}"
    made = Table(title=what, title_justify="left")
    made.add_column("members")
    columns = {name: run.series(name)[1] for name in (*names, *FRONT)}
    columns = {name: values for name, values in columns.items() if values}
    for name in columns:
        made.add_column(name.replace("_", " "), justify="right")
    groups = planned.population.groups
    for group in dict.fromkeys(groups):
        mine = [i for i, name in enumerate(groups) if name == group]
        made.add_row(group, *(interval([values[i][-1] for i in mine]) for values in columns.values()))
    return made


def draw(planned: Plan, run: Run) -> None:
    """Learning curves of the groups, as PNG in the run's folder."""
    from pbrl import figures  # matplotlib takes a second to import

    from ..reports import run_figures

    groups = planned.population.groups
    for metric in ("score", "return", "held_out_accuracy", "hypervolume", "expected_utility"):
        updates, values = run.series(metric)
        if len(updates) < 2 or (metric == "return" and main_metric(run) == "score"):
            continue
        array = np.asarray(values)
        curves = {
            group: (updates, array[[i for i, name in enumerate(groups) if name == group]])
            for group in dict.fromkeys(groups)
        }
        figures.learning_curves(
            curves,
            run.figures / f"{metric}.png",
            title=f"{planned.request.agent}: {metric}",
            axis=title(metric),
            progress=WORDS[run.count],
        )
    rows = lineage.read(run.folder)
    if len(rows) > len(groups):
        run_figures.draw_lineage(rows, run.figures / "lineage.png", count=run.count)
    points = front_file.read(run.folder)
    if points:
        fronts = {planned.population.names[member]: each for member, each in points.items()}
        run_figures.draw_fronts(fronts, run.figures / "front.png", title=f"{planned.request.agent}: fronts at the end")
