"""The offline study's figure: scores in training, a panel for each data set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes

from pbrl.figures import PALETTE

from .offline_rows import Offline, read_offline, short
from .panels import cut, panelled
from .preference_rows import matching
from .rows import number, whole

CURVES = "curves"


def draw(folder: Path) -> None:
    """Write ``curves.png`` beside the study's tables.

    Raises:
        InputError: a table that is missing or damaged, or a folder that cannot be written.
    """
    found = read_offline(folder)
    colours = {agent: PALETTE[place % len(PALETTE)] for place, agent in enumerate(reversed(found.agents))}
    places = {name: _place(name) for name in found.datasets}
    rows, columns = (list(dict.fromkeys(place[axis] for place in places.values())) for axis in (0, 1))
    title = "Score in training: IQM over seeds; right: 95 % intervals at the end; dashed: the data"
    with panelled(folder / f"{CURVES}.png", rows, columns, title) as panels:
        for name, place in places.items():
            axes = panels[place]
            axes.axhline(found.of_data(name), color="#888888", lw=0.9, ls=(0, (4, 3)))
            _lines(found, name, colours, axes)
            cut(axes)
            axes.set_xlabel("updates" if place[0] == rows[-1] else "")
        for place in set(panels) - set(places.values()):
            panels[place].set_visible(False)


def _lines(found: Offline, dataset: str, colours: Mapping[str, str], axes: Axes) -> None:
    """A line for each agent, and beside each other, so that none hides another, their intervals at the end."""
    for place, (agent, colour) in enumerate(colours.items(), start=1):
        rows = matching(found.curves, agent=agent, dataset=dataset)
        if rows:
            x, y = [whole(row, "updates") for row in rows], [number(row, "score") for row in rows]
            axes.plot(x, y, color=colour, lw=1.4, marker="o", ms=2.5, label=agent)
            low, high = (number(rows[-1], end) for end in ("low", "high"))
            axes.vlines(x[-1] * (1.02 + 0.03 * place), low, high, color=colour, lw=1.8)


def _place(dataset: str) -> tuple[str, str]:
    """Row and column of a data set's panel: ``hopper`` and ``medium-expert``."""
    name = short(dataset).removesuffix("-v2").replace(" ", "-")
    task, _, tier = name.partition("-")
    return task, tier
