"""Figures of a panel for each task and kind of comparison."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pbrl.data.files import replacing
from pbrl.figures import FAINT, STYLE

LOWEST = -50.0  # score


@contextmanager
def panelled(
    path: Path, rows: Sequence[str], columns: Sequence[str], title: str, *, below: str = "", shared: bool = True
) -> Iterator[dict[tuple[str, str], Axes]]:
    """A panel for each of the ``rows`` x ``columns``; the figure is written when the block has ended well.

    ``below``: what the horizontal axes are. ``shared``: all panels have the same horizontal axis.
    """
    with rc_context({**STYLE, "axes.titlesize": 9, "axes.titlepad": 5, "font.size": 8}):
        figure = Figure(figsize=(1.2 + 2.3 * max(len(columns), 2), 1.2 + 2.0 * len(rows)), dpi=130)
        FigureCanvasAgg(figure)
        grid = figure.subplots(len(rows), len(columns), squeeze=False, sharex=shared)
        panels = {(row, column): grid[i][j] for i, row in enumerate(rows) for j, column in enumerate(columns)}
        for (row, column), axes in panels.items():
            axes.grid(color=FAINT, lw=0.7)
            axes.set_title(column if row == rows[0] else "")
            if column == columns[0]:
                axes.set_ylabel(row)
            if row == rows[-1]:
                axes.set_xlabel(below)
        yield panels
        handles, labels = [], []
        for axes in panels.values():
            for handle, label in zip(*axes.get_legend_handles_labels()):
                if label not in labels:
                    handles.append(handle)
                    labels.append(label)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        legend = figure.legend(handles, labels, loc="center right", frameon=False)
        room = legend.get_window_extent().width / figure.bbox.width
        figure.tight_layout(rect=(0, 0, 1 - room, 1))
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png", bbox_inches="tight", pad_inches=0.12, metadata={"Software": None})


def cut(axes: Axes) -> None:
    """Leave out what lies far below the random policy, where scores of unstable policies have no bottom."""
    low, high = max(axes.dataLim.y0, LOWEST), axes.dataLim.y1
    edge = 0.05 * max(high - low, 1.0)
    axes.set_ylim(low - edge, high + edge)
