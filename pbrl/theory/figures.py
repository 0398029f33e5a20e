"""Figures of learners in MDPs: regret on log axes with bands, values against a threshold, and rates of errors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from ..data.files import replacing
from ..errors import InputError
from ..figures import FAINT, PALETTE, STYLE
from .mdps import Floats
from .regret import ROUNDING, RegretTrace

BAND = (0.1, 0.9)


def regret_figure(
    traces: Mapping[str, RegretTrace],
    path: str | Path,
    *,
    title: str,
    threshold: float | None = None,
) -> None:
    """Cumulative regret of each learner and, beside it, the value of what it played.

    Left: mean over members on log axes, with the band of their middle 80 %. Right: the exact value of each episode,
    mean and the least over members, against V* and, if there is one, the threshold; a mark below the axis is an episode
    below the threshold.

    Raises:
        InputError: nothing to draw, or an unwritable path.
    """
    if not traces:
        raise InputError("a regret figure has nothing to draw, expected at least one learner")
    with rc_context(STYLE):
        figure = Figure(figsize=(11.0, 4.4), dpi=160)
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2)
        rugs = 0
        for number, (name, trace) in enumerate(traces.items()):
            _regret(left, trace, name, PALETTE[number % len(PALETTE)])
            rugs += _value(right, trace, PALETTE[number % len(PALETTE)], threshold, rugs)
        first = next(iter(traces.values()))
        right.axhline(float(first.optimum.mean()), color="#888888", lw=1, ls=(0, (4, 3)))
        right.text(
            0.01, float(first.optimum.mean()), " V*", transform=right.get_yaxis_transform(), va="bottom", fontsize=9
        )
        if threshold is not None:
            right.axhline(threshold, color="#333333", lw=1.2)
            right.text(0.01, threshold, " threshold", transform=right.get_yaxis_transform(), va="bottom", fontsize=9)
        left.set(xscale="log", yscale="log", xlabel="episodes", ylabel="cumulative pseudo-regret")
        right.set(xscale="log", xlabel="episode", ylabel="exact value: mean, least of all seeds")
        right.tick_params(axis="x", pad=4 + 6 * rugs)  # labels below the rows of marks
        left.set_title(title)
        left.legend(frameon=False, fontsize=9, loc="upper left")
        for axes in (left, right):
            axes.grid(color=FAINT, lw=0.6)
        figure.subplots_adjust(wspace=0.28)
        with replacing(Path(path)) as temporary:
            figure.savefig(temporary, format="png", bbox_inches="tight", pad_inches=0.15, metadata={"Software": None})


def rates(axes: Axes, errors: Mapping[str, tuple[Floats, Floats]], slope: float = -0.5) -> None:
    """Errors against a size on log axes: geometric means, the middle half of the repetitions, and a rate to compare.

    Args:
        axes: to draw in.
        errors: name -> (sizes [N], errors [N, repetitions]).
        slope: of a dashed line through the first point of the first curve.
    """
    for number, (name, (sizes, values)) in enumerate(errors.items()):
        low, high = np.quantile(values, (0.25, 0.75), axis=1)
        axes.fill_between(sizes, low, high, color=PALETTE[number], alpha=0.15, lw=0)
        axes.plot(sizes, np.exp(np.log(values).mean(1)), color=PALETTE[number], lw=2, marker="o", ms=4, label=name)
    sizes, values = next(iter(errors.values()))
    line = np.exp(np.log(values[0]).mean()) * (sizes / sizes[0]) ** slope
    axes.plot(sizes, line, color="#888888", lw=1, ls=(0, (4, 3)), label=f"slope {slope:g}")
    axes.set(xscale="log", yscale="log")
    axes.minorticks_off()
    axes.yaxis.set_major_locator(LogLocator(10, (1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.grid(color=FAINT, lw=0.6)


def _regret(axes: Axes, trace: RegretTrace, name: str, colour: str) -> None:
    when = trace.grid(1, trace.episodes)
    regret = trace.at(when)
    low, high = np.quantile(regret, BAND, axis=0)
    axes.fill_between(when, np.maximum(low, 1e-3), np.maximum(high, 1e-3), color=colour, alpha=0.15, lw=0)
    axes.plot(when, np.maximum(regret.mean(0), 1e-3), color=colour, lw=2, label=name)


def _value(axes: Axes, trace: RegretTrace, colour: str, threshold: float | None, above: int) -> bool:
    """Draws values, and marks below the axis under ``above`` rows of others; whether there are any."""
    starts = trace.ends - trace.counts + 1
    axes.step(starts, trace.value.mean(1), color=colour, lw=2, where="post")
    axes.step(starts, trace.value.min(1), color=colour, lw=1, alpha=0.6, where="post")
    if threshold is None or not trace.violations(threshold).any():
        return False
    bad = (trace.value < threshold - ROUNDING).any(1)
    height = np.full(int(bad.sum()), -0.022 - 0.024 * above)
    axes.plot(starts[bad], height, "|", color=colour, ms=5, transform=axes.get_xaxis_transform(), clip_on=False)
    return True
