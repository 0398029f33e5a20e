"""The figure of the study of agents that go online: scores from the last evaluation before the first step on."""

from __future__ import annotations

from pathlib import Path

from pbrl.figures import PALETTE

from .online_rows import read_online
from .panels import cut, panelled
from .preference_rows import matching, short
from .rows import number, whole

FIGURE = "curves.png"


def draw(folder: Path, prefix: str = "") -> None:
    """Write the figure beside the study's tables.

    Raises:
        InputError: a table that is missing or damaged, or a folder that cannot be written.
    """
    study = read_online(folder, prefix)
    colours = {agent: PALETTE[place % len(PALETTE)] for place, agent in enumerate(study.agents)}
    title = "Score online, from the last evaluation on data alone: IQM over seeds, 95 % interval"
    path = folder / f"{prefix}{FIGURE}"
    with panelled(path, ["score"], list(map(short, study.datasets)), title, shared=False) as panels:
        for dataset in study.datasets:
            axes = panels["score", short(dataset)]
            for agent, colour in colours.items():
                if rows := matching(study.curves, dataset=dataset, agent=agent):
                    x = [whole(row, "env_steps") for row in rows]
                    score, low, high = ([number(row, end) for row in rows] for end in ("score", "low", "high"))
                    axes.fill_between(x, low, high, color=colour, alpha=0.12, lw=0)
                    axes.plot(x, score, color=colour, lw=1.4, marker="o", ms=2.5, label=agent)
            axes.set_xlabel("environment steps of each member")
            axes.locator_params(axis="x", nbins=4)
            cut(axes)
