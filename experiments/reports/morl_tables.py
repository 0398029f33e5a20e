"""The study of fronts as a table: what each way to a front is worth on each task."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .morl_rows import Fronts
from .page import Table
from .rows import Row, number


def front_table(study: Fronts) -> Table:
    """A line per task and agent."""
    lines = []
    for env in study.tasks:
        for agent in study.agents:
            rows = study.of(env=env, agent=agent)
            if rows:
                lines.append((env, agent, *_cells(rows)))
    seeds = len({row["seed"] for row in study.rows})
    return Table(
        header=(
            "task",
            "agent",
            "steps",
            "hypervolume",
            "of the known",
            "doing nothing",
            "expected utility",
            "as served",
            "sparsity",
            "points",
            "reference, discount",
        ),
        rows=tuple(lines),
        words=2,
        caption=f"Mean over {seeds} seed{'' if seeds == 1 else 's'} [lowest, highest]. Steps: of the environment, all "
        "policies and stages together, and those that measure policies for the archive. Then every policy of a set "
        "plays the same new episodes greedily: hypervolume in raw discounted returns, that of the do-nothing policy "
        "beside it, and the "
        "share of the best front's where that is known. Expected utility: mean over a grid of preference weights of "
        "the best weighed return; as served: of the policy that the agent itself would choose for the weights. "
        "Sparsity falls when points are merely added: read it with their number.",
    )


def _cells(rows: Sequence[Row]) -> tuple[str, ...]:
    first = rows[0]
    volume, known = [number(row, "hypervolume") for row in rows], number(first, "known_hypervolume")
    share = "-" if math.isnan(known) else spread([100 * value / known for value in volume], " %")
    corner, gamma = first["reference_point"].replace("|", ", "), number(first, "gamma")
    return (
        first["env_steps"],
        spread(volume),
        share,
        f"{number(first, 'still_hypervolume'):.3g}",
        *(spread([number(row, column) for row in rows]) for column in ("expected_utility", "served_utility")),
        *(spread([number(row, column) for row in rows]) for column in ("sparsity", "points")),
        f"({corner}), {gamma:g}",
    )


def spread(values: Sequence[float], unit: str = "") -> str:
    """``12.1 [11.8, 12.5]``: mean, lowest and highest; one number where all are equal."""
    mean = sum(values) / len(values)
    if math.isnan(mean):
        return "-"
    ends = [short(value) for value in (min(values), max(values))]
    text = f"{short(mean)}{unit}"
    return text if ends[0] == ends[1] else f"{text} [{ends[0]}, {ends[1]}]"


def short(value: float) -> str:
    """Four digits: ``58270``, ``12.34``, ``1.234e+06``."""
    return f"{value:.0f}" if 1e3 <= abs(value) < 1e6 else f"{value:.4g}"
