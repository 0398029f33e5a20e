"""The study of fronts as a table: what each way to a front is worth on each task."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .morl_rows import Fronts, numbers
from .page import Table
from .rows import Row, number

ROUNDING = 1e-12


def quality_table(study: Fronts) -> Table:
    """A line per task and agent: what a set is worth beside its hypervolume."""
    lines = []
    for env in study.tasks:
        for agent in study.agents:
            rows = study.of(env=env, agent=agent)
            if rows:
                lines.append((env, agent, *_cells(rows)))
    return Table(
        header=("task", "agent", "of the known", "expected utility", "as served", "sparsity", "points"),
        rows=tuple(lines),
        words=2,
        caption=f"Mean over {_seeds(study)} [lowest, highest]. Of the known: the share of the best front's "
        "hypervolume, where that is known. Expected utility: mean over a grid of preference weights of the best "
        "weighed return; as served: of the policy that the agent itself would choose for the weights. Sparsity falls "
        "when points are merely added: read it with their number.",
    )


def task_table(study: Fronts) -> Table:
    """A line per task: what its fronts are measured by."""
    lines = []
    for env in study.tasks:
        first = study.of(env=env)[0]
        corner, still = (", ".join(short(one) for one in numbers(first[name])) for name in ("reference_point", "still"))
        lines.append((env, f"({corner})", f"({still})", f"{number(first, 'gamma'):g}", first["episodes"]))
    return Table(
        header=("task", "reference point", "doing nothing", "discount", "episodes"),
        rows=tuple(lines),
        words=1,
        caption="The corner of the hypervolume and what doing nothing returns, in raw discounted returns; the discount "
        "of training and of these; episodes that each policy of a set plays to be measured.",
    )


def volume_table(study: Fronts) -> Table:
    """A line per task: the hypervolume of each way to a front."""
    lines = []
    for env in study.tasks:
        rows = study.of(env=env)
        by = [study.values("hypervolume", env=env, agent=agent) for agent in study.agents]
        known, still = (number(rows[0], name) for name in ("known_hypervolume", "still_hypervolume"))
        unit = _unit(max(value for values in by for value in values))
        cells = [spread([value / unit for value in values]) if values else "-" for values in by]
        ends = (spread([known / unit]), short(still / unit))
        lines.append((env, f"{int(rows[0]['env_steps']):,}", f"{unit:,}", *cells, *ends))
    return Table(
        header=("task", "steps", "unit", *study.agents, "best possible", "doing nothing"),
        rows=tuple(lines),
        words=1,
        caption=f"Hypervolume, in the unit of its line: mean over {_seeds(study)} [lowest, highest], "
        "of raw discounted returns of new greedy episodes; of the known front, where there is one; "
        "and of a policy that does nothing. Steps: of the environment for a front, all policies and stages together.",
    )


def _unit(value: float) -> int:
    """A power of 1000 in which numbers up to ``value`` have at most four digits."""
    unit = 1
    while value / unit >= 1e4:
        unit *= 1000
    return unit


def _cells(rows: Sequence[Row]) -> tuple[str, ...]:
    volume, known = [number(row, "hypervolume") for row in rows], number(rows[0], "known_hypervolume")
    share = "-" if math.isnan(known) else spread([100 * value / known for value in volume], " %")
    names = ("expected_utility", "served_utility", "sparsity", "points")
    return (share, *(spread([number(row, name) for row in rows]) for name in names))


def _seeds(study: Fronts) -> str:
    seeds = len({row["seed"] for row in study.rows})
    return f"{seeds} seed{'' if seeds == 1 else 's'}"


def spread(values: Sequence[float], unit: str = "") -> str:
    """``12.1 [11.8, 12.5]``: mean, lowest and highest; one number where all are equal."""
    mean = sum(values) / len(values)
    if math.isnan(mean):
        return "-"
    ends = [short(value) for value in (min(values), max(values))]
    text = f"{short(mean)}{unit}"
    return text if ends[0] == ends[1] else f"{text} [{ends[0]}, {ends[1]}]"


def short(value: float) -> str:
    """Four digits: ``58270``, ``12.34``, ``1.234e+06``; 0 for what rounding leaves of it."""
    value = 0.0 if abs(value) < ROUNDING else value
    return f"{value:.0f}" if 1e3 <= abs(value) < 1e6 else f"{value:.4g}"
