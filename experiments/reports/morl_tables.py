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
        ends = (f"({corner})", f"({still})", f"{number(first, 'gamma'):g}", first["episodes"])
        lines.append((env, f"{int(first['env_steps']):,}", *ends))
    return Table(
        header=("task", "steps", "reference point", "doing nothing", "discount", "episodes"),
        rows=tuple(lines),
        words=1,
        caption="Steps of the environment for a front, all policies and stages together, and those that measure "
        "policies for the archive; the corner of the hypervolume and what doing nothing returns, in raw discounted "
        "returns; the discount of training and of these; episodes that each policy of a set plays to be measured.",
    )


def volume_table(study: Fronts, agents: Sequence[str]) -> Table:
    """A line per task: the hypervolume of the fronts of ``agents``."""
    lines = []
    for env in study.tasks:
        first = study.of(env=env)[0]
        by = [study.values("hypervolume", env=env, agent=agent) for agent in agents]
        known, still = (number(first, name) for name in ("known_hypervolume", "still_hypervolume"))
        unit, words = _unit(max(study.values("hypervolume", env=env)))
        cells = [spread([value / unit for value in values]) if values else "-" for values in by]
        lines.append((f"{env}{words}", *cells, spread([known / unit]), short(still / unit)))
    return Table(
        header=("task", *agents, "best possible", "doing nothing"),
        rows=tuple(lines),
        words=1,
        caption=f"Hypervolume: mean over {_seeds(study)} [lowest, highest], of raw discounted returns of new greedy "
        "episodes; best possible: of the known front, where there is one; doing nothing: of a policy that does.",
    )


def _unit(value: float) -> tuple[float, str]:
    """What numbers up to ``value`` are told in, and that in words after a task's name."""
    return (1e6, ", millions") if value >= 1e6 else (1e3, ", thousands") if value >= 1e4 else (1.0, "")


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
    """Three digits, or all before the point: ``58270``, ``12.3``, ``1.23e+06``; 0 for what rounding leaves of it."""
    value = 0.0 if abs(value) < ROUNDING else value
    return f"{value:.0f}" if 999.5 <= abs(value) < 1e6 else f"{value:.3g}"
