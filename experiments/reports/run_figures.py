"""The figures of training runs beside their curves: who became a copy of whom, and the fronts that were found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from pbrl.data.files import replacing
from pbrl.figures import FAINT, PALETTE, STYLE
from pbrl.records import lineage

MOST_SETTINGS = 4
"""So many explored settings get a panel."""


def draw_lineage(rows: Sequence[lineage.Row], path: Path, *, count: str) -> None:
    """A line per member through the turns, in the colour of whom it descends from; arrows are copies.

    Below it each explored setting.

    Args:
        rows: of ``lineage.csv``.
        path: where the PNG goes.
        count: "updates" or "env_steps", by which turns are placed.
    """
    column = count if any(int(row["env_steps"]) for row in rows) else "updates"
    places = sorted({(int(row["updates"]), int(row["env_steps"])) for row in rows})
    x = [updates if column == "updates" else steps for updates, steps in places]
    descent = lineage.founders(rows)
    members = range(len(descent[0]))
    at = {(int(row["updates"]), int(row["env_steps"]), int(row["member"])): row for row in rows}
    names = [name for name in rows[0] if name not in lineage.FIXED][:MOST_SETTINGS]
    with _panels(path, 1 + len(names), 0.6 + 0.22 * len(members)) as panels:
        top, *below = panels
        ends = [*x[1:], x[-1] + max(1, (x[-1] - x[0]) // max(1, len(x) - 1))]
        for turn, (place, begin, end) in enumerate(zip(places, x, ends)):
            for member in members:
                row, colour = at[(*place, member)], PALETTE[descent[turn][member] % len(PALETTE)]
                top.plot([begin, end], [member, member], color=colour, lw=2, solid_capstyle="butt")
                origin = int(row["source"])
                if origin != member:
                    arrow = {"arrowstyle": "->", "color": colour, "lw": 1, "shrinkA": 0, "shrinkB": 1}
                    top.annotate("", (begin, member), (begin, origin), arrowprops=arrow)
                for axes, name in zip(below, names):
                    value = float(row[name])
                    axes.plot([begin, end], [value, value], color=colour, lw=1.4, alpha=0.8, solid_capstyle="butt")
        top.set_ylabel("member")
        top.yaxis.set_major_locator(MaxNLocator(integer=True))
        top.invert_yaxis()
        top.set_title("Population-based training: an arrow is a copy, a colour one member of the beginning")
        for axes, name in zip(below, names):
            axes.set_ylabel(name)
            axes.set_yscale("log")
        panels[-1].set_xlabel("environment steps" if column == "env_steps" else "updates")


def draw_fronts(fronts: Mapping[str, NDArray[np.float64]], path: Path, *, title: str) -> None:
    """Points [N, K] of each member, by name: two objectives as a plane, more as a line per point.

    Args:
        fronts: name -> points that no other one dominates; at least one.
        path: where the PNG goes.
        title: what the figure shows, in words.
    """
    objectives = next(iter(fronts.values())).shape[1]
    with _panels(path, 1, 3.6) as (axes,):
        for place, (name, points) in enumerate(fronts.items()):
            colour = PALETTE[place % len(PALETTE)]
            if objectives == 2:
                ordered = points[points[:, 0].argsort()]
                axes.plot(*ordered.T, color=colour, marker="o", ms=4, lw=1, drawstyle="steps-pre", label=name)
                continue
            for number, point in enumerate(points):
                axes.plot(range(objectives), point, color=colour, lw=1, alpha=0.6, label="" if number else name)
        axes.set_title(title)
        axes.set_xlabel("objective 0" if objectives == 2 else "objective")
        axes.set_ylabel("objective 1" if objectives == 2 else "return")
        if objectives > 2:
            axes.set_xticks(range(objectives))
        if len(fronts) <= 2 * len(PALETTE):
            axes.legend(frameon=False, fontsize=8)


@contextmanager
def _panels(path: Path, count: int, first: float) -> Iterator[list[Axes]]:
    """Panels one below the other on one axis, the first so many inches high; written when the block has ended well."""
    settings: dict[Any, Any] = {**STYLE, "axes.titlesize": 10, "font.size": 9}
    with rc_context(settings):
        heights = [max(2.0, first), *[1.5] * (count - 1)]
        figure = Figure(figsize=(8.0, sum(heights)), dpi=130)
        FigureCanvasAgg(figure)
        grid = figure.subplots(count, 1, squeeze=False, sharex=True, gridspec_kw={"height_ratios": heights})
        panels = [row[0] for row in grid.tolist()]
        for axes in panels:
            axes.grid(color=FAINT, lw=0.7)
        yield panels
        figure.tight_layout()
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png", bbox_inches="tight", pad_inches=0.12, metadata={"Software": None})
