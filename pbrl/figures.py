"""Figures from plain numbers: score bars, learning curves, accuracy by gap. PNG, drawn off screen, written atomically.

Colours are Okabe and Ito's, which colour-blind readers can tell apart; every series is also named in the drawing.
"""

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
from matplotlib.ticker import MaxNLocator, PercentFormatter
from matplotlib.transforms import blended_transform_factory
from numpy.typing import ArrayLike, NDArray

from .data.files import replacing
from .errors import InputError
from .statistics import GapAccuracy, iqm, stratified_bootstrap

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F", "#000000")
INK, FAINT = "#333333", "#DDDDDD"
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 14,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#999999",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": "#999999",
    "xtick.labelcolor": INK,
    "ytick.color": "#999999",
    "ytick.labelcolor": INK,
}


def score_bars(
    scores: Mapping[tuple[str, str], ArrayLike],
    path: str | Path,
    *,
    title: str,
    axis: str,
    references: Mapping[str, float] | None = None,
    seed: int = 0,
) -> None:
    """One line per agent and kind of labels: IQM, its 95 % bootstrap interval, and every seed as a dot.

    Args:
        scores: (agent, labels) -> [S] scores; lines of one agent stand together, in order of appearance, and a colour
            means one kind of labels. NaN (a seed that diverged) is counted in the margin, and left out of the IQM.
        path: where the PNG goes.
        title: what the figure shows, in words.
        axis: what the scores are, with their unit.
        references: name -> score, drawn as vertical lines.
        seed: of the bootstrap.

    Raises:
        InputError: nothing to draw, or an unwritable path.
    """
    if not scores:
        raise InputError("score bars have no scores, expected at least one agent")
    agents = list(dict.fromkeys(agent for agent, _ in scores))
    labels = list(dict.fromkeys(label for _, label in scores))
    colours = {label: PALETTE[i % len(PALETTE)] for i, label in enumerate(labels)}
    with _figure(path, (8.0, 1.5 + 0.36 * len(scores) + 0.28 * len(agents))) as axes:
        margin = blended_transform_factory(axes.transAxes, axes.transData)
        position, ticks = 0.0, []
        for agent in agents:
            first = position
            for label in (label for label in labels if (agent, label) in scores):
                values = np.asarray(scores[agent, label], dtype=np.float64).ravel()
                finite = values[np.isfinite(values)]
                note = label
                if finite.size:
                    interval = stratified_bootstrap(finite, iqm, seed=seed)
                    _dots(axes, finite, position, colours[label])
                    axes.plot(
                        [interval.low, interval.high],
                        [position] * 2,
                        color=colours[label],
                        lw=6,
                        alpha=0.35,
                        solid_capstyle="butt",
                    )
                    axes.plot(
                        [interval.point] * 2,
                        [position - 0.3, position + 0.3],
                        color=colours[label],
                        lw=2.5,
                        solid_capstyle="butt",
                    )
                    note += f"  {interval.point:.{1 if abs(interval.point) < 1000 else 0}f}"
                if finite.size < values.size:
                    note += f"  ({values.size - finite.size} of {values.size} diverged)"
                axes.text(1.02, position, note, color=colours[label], transform=margin, va="center", fontsize=9)
                position += 1.0
            ticks.append((first + position - 1.0) / 2)
            position += 0.8
        _references(axes, references or {})
        axes.set_yticks(ticks, agents, fontsize=11)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_ylim(position - 1.2, -0.7)
        axes.grid(axis="x", color=FAINT, lw=0.8)
        axes.set_title(title, pad=26 if references else 14)
        axes.set_xlabel(f"{axis}: line = interquartile mean, band = its 95 % interval, dot = one seed", fontsize=9)


def learning_curves(
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]],
    path: str | Path,
    *,
    title: str,
    axis: str,
    progress: str = "updates",
    references: Mapping[str, float] | None = None,
) -> None:
    """One curve per name: IQM over the members, with a band over their middle half (25 % to 75 %).

    Args:
        curves: name -> (x [N], values [P, N]).
        path: where the PNG goes.
        title: what the figure shows, in words.
        axis: what the values are, with their unit.
        progress: what x counts.
        references: name -> value, drawn as horizontal lines.

    Raises:
        InputError: nothing to draw, shapes that do not fit, or an unwritable path.
    """
    if not curves:
        raise InputError("learning curves have nothing to draw, expected at least one curve")
    with _figure(path, (8.0, 4.5)) as axes:
        ends: list[tuple[float, str, str]] = []
        for number, (name, (x, y)) in enumerate(curves.items()):
            steps, values = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
            if values.ndim != 2 or steps.shape != values.shape[1:] or not values.size:
                raise InputError(
                    f"curve {name!r} has shapes {list(steps.shape)} and {list(values.shape)}, expected [N], [P, N]"
                )
            colour = PALETTE[number % len(PALETTE)]
            middle = iqm(values, axis=0)
            low, high = np.quantile(values, [0.25, 0.75], axis=0)
            axes.fill_between(steps, low, high, color=colour, alpha=0.15, lw=0)
            axes.plot(steps, middle, color=colour, lw=2)
            ends.append((float(middle[-1]), name, colour))
        for name, value in (references or {}).items():
            axes.axhline(value, color="#888888", lw=1, ls=(0, (4, 3)))
            ends.append((value, name, "#777777"))
        axes.margins(x=0)
        _end_labels(axes, ends)
        axes.grid(axis="y", color=FAINT, lw=0.8)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.set_title(title)
        axes.set_xlabel(progress)
        axes.set_ylabel(axis)


def accuracy_by_gap(series: Mapping[str, GapAccuracy], path: str | Path, *, title: str) -> None:
    """One curve per name: held-out accuracy from the closest calls to the clearest, in quantile bins of the true gap.

    The curve is the mean over members, its band their range. Bins are drawn by rank, so series whose gaps have other
    units share the axis. The grey band is where guessing would land on as many pairs, 95 times of 100.

    Args:
        series: name -> what ``pbrl.statistics.accuracy_by_gap`` gives, accuracy [P, bins] or [bins].
        path: where the PNG goes.
        title: what the figure shows, in words.

    Raises:
        InputError: nothing to draw, other numbers of bins, or an unwritable path.
    """
    sizes = {len(one.count) for one in series.values()}
    if len(sizes) != 1:
        raise InputError(f"accuracy by gap has series of {sorted(sizes) or 'no'} bins, expected one number for all")
    bins = sizes.pop()
    place = np.arange(1, bins + 1)
    with _figure(path, (8.0, 4.5)) as axes:
        half = 0.98 / np.sqrt(min(one.count.min() for one in series.values()))  # 1.96 standard errors at one half
        axes.axhspan(0.5 - half, 0.5 + half, color="#000000", alpha=0.06, lw=0)
        axes.axhline(0.5, color="#888888", lw=1, ls=(0, (4, 3)))
        axes.text(bins, 0.5, "guessing ", ha="right", va="bottom", fontsize=9, color="#777777")
        ends = []
        for number, (name, one) in enumerate(series.items()):
            colour, accuracy = PALETTE[number % len(PALETTE)], np.atleast_2d(one.accuracy)
            axes.fill_between(place, accuracy.min(axis=0), accuracy.max(axis=0), color=colour, alpha=0.12, lw=0)
            axes.plot(place, accuracy.mean(axis=0), color=colour, lw=2, marker="o", ms=5)
            ends.append((float(accuracy[:, -1].mean()), name, colour))
        lowest = min(float(np.nanmin(one.accuracy)) for one in series.values())
        axes.set_ylim(min(0.5 - 1.2 * half, lowest - 0.03), 1.02)
        _end_labels(axes, ends)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        names = [f"{100 * (i - 1) / bins:.0f}-{100 * i / bins:.0f}%" for i in place]
        axes.set_xticks(place, names)
        axes.grid(axis="y", color=FAINT, lw=0.8)
        axes.set_title(title)
        axes.set_xlabel("pairs by true gap, from the closest calls to the clearest")
        axes.set_ylabel("ordered rightly")


@contextmanager
def _figure(path: str | Path, size: tuple[float, float]) -> Iterator[Axes]:
    """Axes to draw on; the PNG is written when the block has ended well."""
    with rc_context(STYLE):
        figure = Figure(figsize=size, dpi=160)
        FigureCanvasAgg(figure)
        yield figure.add_subplot()
        with replacing(Path(path)) as temporary:
            figure.savefig(temporary, format="png", bbox_inches="tight", pad_inches=0.15, metadata={"Software": None})


def _dots(axes: Axes, values: NDArray[np.float64], position: float, colour: str) -> None:
    """The seeds, shifted up and down by rank, so that equal scores stay apart; no random jitter."""
    order = np.argsort(np.argsort(values, kind="stable"), kind="stable")
    axes.scatter(values, position + 0.12 * ((order % 3) - 1), s=14, color=colour, alpha=0.75, lw=0, zorder=3)


def _references(axes: Axes, references: Mapping[str, float]) -> None:
    above = blended_transform_factory(axes.transData, axes.transAxes)
    for name, value in references.items():
        axes.axvline(value, color="#888888", lw=1, ls=(0, (4, 3)), zorder=1)
        axes.text(value, 1.01, name, transform=above, ha="center", va="bottom", fontsize=9, color="#777777")


def _end_labels(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Names at the right end of their curves, moved apart where they would overlap."""
    low, high = axes.get_ylim()
    step = 0.05 * (high - low)
    ends = sorted(end for end in ends if np.isfinite(end[0]))
    heights: list[float] = []
    for value, _, _ in ends:
        heights.append(max(value, heights[-1] + step) if heights else value)
    shift = (sum(heights) - sum(end[0] for end in ends)) / len(ends) if ends else 0.0
    place = blended_transform_factory(axes.transAxes, axes.transData)
    for height, (_, name, colour) in zip(heights, ends):
        axes.text(1.015, height - shift, name, transform=place, va="center", color=colour, fontsize=10)
