"""The figures of the study of fronts: sets in two and three dimensions, parallel coordinates above, and growth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pbrl.data.files import replacing
from pbrl.figures import FAINT, PALETTE, STYLE

from .morl_rows import KNOWN, Fronts, numbers, read_fronts
from .preference_rows import matching
from .rows import number, whole

FLAT, DEEP, MANY, ARCHIVES = "fronts_2d.png", "fronts_3d.png", "fronts_parallel.png", "growth_archive.png"
CAPTIONS = {
    FLAT: "Fronts with two objectives: measured points that no other of their set dominates, all seeds",
    DEEP: "Fronts with three objectives",
    MANY: "Fronts with more objectives, as parallel coordinates: a line per point",
    ARCHIVES: "Hypervolume and size of the archives in training, by their own account",
}
_MARKERS = ("o", "s", "^", "D", "v")


def draw(folder: Path, prefix: str = "") -> None:
    """Write the study's figures beside its tables, each where there is a task for it.

    Raises:
        InputError: a table that is missing or damaged, or a folder that cannot be written.
    """
    study = read_fronts(folder, prefix)
    by_kind: dict[str, list[str]] = {FLAT: [], DEEP: [], MANY: []}
    for env in study.tasks:
        objectives = study.objectives(env)
        by_kind[FLAT if objectives == 2 else DEEP if objectives == 3 else MANY].append(env)
    for name, one in ((FLAT, _flat), (DEEP, _deep), (MANY, _parallel)):
        if by_kind[name]:
            one(study, by_kind[name], folder / f"{prefix}{name}")
    if study.growth:
        _growth(study, folder / f"{prefix}{ARCHIVES}")


def _colours(study: Fronts) -> dict[str, str]:
    return {agent: PALETTE[place % len(PALETTE)] for place, agent in enumerate(study.agents)}


@contextmanager
def _panels(
    path: Path, shape: tuple[int, int], title: str, colours: Mapping[str, str], *, width: float = 3.0, **kind: Any
) -> Iterator[list[list[Any]]]:
    """Axes in rows and columns with one legend of the agents; written when the block has ended well."""
    rows, columns = shape
    with rc_context({**STYLE, "axes.titlesize": 9, "axes.titlepad": 5, "font.size": 8}):
        figure = Figure(figsize=(1.8 + width * max(columns, 2), 0.9 + 2.7 * rows), dpi=130)
        FigureCanvasAgg(figure)
        yield figure.subplots(rows, columns, squeeze=False, **kind).tolist()
        handles = [Line2D([], [], color=c, marker="o", ms=4, label=a) for a, c in colours.items()]
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        figure.legend(handles=handles, loc="outside right center", frameon=False)
        figure.tight_layout(rect=(0, 0, 1 - 1.5 / figure.get_figwidth(), 1))
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png", bbox_inches="tight", pad_inches=0.12, metadata={"Software": None})


def _seeds(study: Fronts) -> list[str]:
    return list(dict.fromkeys(row["seed"] for row in study.rows))


def _flat(study: Fronts, tasks: Sequence[str], path: Path) -> None:
    """A panel per task: points, the known front, and doing nothing."""
    columns = min(3, len(tasks))
    rows = -(-len(tasks) // columns)
    title = "Fronts with two objectives (raw discounted returns; a marker per seed)"
    with _panels(path, (rows, columns), title, _colours(study)) as grid:
        for place in range(rows * columns):
            axes = grid[place // columns][place % columns]
            if place >= len(tasks):
                axes.set_visible(False)
                continue
            env = tasks[place]
            known = study.front(env=env, agent=KNOWN)
            if len(known):
                axes.plot(known[:, 0], known[:, 1], color="#BBBBBB", lw=4, marker="o", ms=6, zorder=1)
                beside = {"textcoords": "offset points", "xytext": (5, 6)}
                axes.annotate("known front", known[len(known) // 2], fontsize=7, color="#777777", **beside)
            for agent, colour in _colours(study).items():
                for seed, marker in zip(_seeds(study), _MARKERS * len(_seeds(study))):
                    points = study.front(env=env, agent=agent, seed=seed)
                    if len(points):
                        axes.plot(points[:, 0], points[:, 1], color=colour, marker=marker, ms=3.5, lw=0.6, alpha=0.75)
            _mark_still(study, env, axes)
            axes.grid(color=FAINT, lw=0.7)
            axes.set_title(env)
            axes.set_xlabel("objective 1")
            axes.set_ylabel("objective 2")


def _mark_still(study: Fronts, env: str, axes: Any) -> None:
    """What doing nothing is worth: a cross, or words where it lies outside the reference point, far from the fronts."""
    row = study.of(env=env)[0]
    still, corner = numbers(row["still"]), numbers(row["reference_point"])
    look = {"fontsize": 7, "color": "#555555"}
    if all(value > least for value, least in zip(still, corner)):
        axes.plot(*still, color="black", marker="x", ms=6, ls="")
        axes.annotate("do nothing", still, textcoords="offset points", xytext=(4, 4), **look)
    else:
        values = ", ".join(f"{value:.4g}" for value in still)
        axes.text(0.03, 0.03, f"do nothing: ({values}),\noutside the reference point", transform=axes.transAxes, **look)


def _deep(study: Fronts, tasks: Sequence[str], path: Path) -> None:
    """A cube per task."""
    title = "Fronts with three objectives (raw discounted returns)"
    with _panels(path, (1, len(tasks)), title, _colours(study), subplot_kw={"projection": "3d"}) as grid:
        for env, axes in zip(tasks, grid[0]):
            for agent, colour in _colours(study).items():
                points = study.front(env=env, agent=agent)
                if len(points):
                    axes.scatter(*points.T, color=colour, s=9, alpha=0.8, depthshade=False)
            axes.scatter(*numbers(study.of(env=env)[0]["still"]), color="black", marker="x", s=30)
            axes.set_title(env)
            for k, set_label in enumerate((axes.set_xlabel, axes.set_ylabel, axes.set_zlabel), start=1):
                set_label(f"objective {k}", labelpad=2)
            axes.tick_params(labelsize=6, pad=0)


def _parallel(study: Fronts, tasks: Sequence[str], path: Path) -> None:
    """A row per task, a panel per agent, a line per point of the first seed."""
    agents, seed = study.agents, _seeds(study)[0]
    title = f"Fronts with more than three objectives, seed {seed}: a line per point"
    with _panels(path, (len(tasks), len(agents)), title, _colours(study), sharey="row") as grid:
        for env, line in zip(tasks, grid):
            objectives = np.arange(1, study.objectives(env) + 1)
            for agent, axes in zip(agents, line):
                points = study.front(env=env, agent=agent, seed=seed)
                for values in points:
                    axes.plot(objectives, values, color=_colours(study)[agent], lw=0.7, alpha=0.6)
                axes.set_title(f"{agent}: {len(points)} points")
                axes.set_xticks(objectives)
                axes.grid(axis="x", color=FAINT, lw=0.8)
                axes.set_xlabel("objective")
            line[0].set_ylabel(f"{env}\ndiscounted return")


def _growth(study: Fronts, path: Path) -> None:
    """Two rows of panels, a column per task: hypervolume and number of archived policies against steps."""
    title = "Archives in training, by their own account: mean over seeds, and their range"
    looks = (("hypervolume", "hypervolume"), ("points", "policies"))
    kept = {row["agent"] for row in study.growth}
    colours = {agent: colour for agent, colour in _colours(study).items() if agent in kept}
    with _panels(path, (2, len(study.tasks)), title, colours, width=2.3, sharex="col") as grid:
        for (column, label), line in zip(looks, grid):
            for env, axes in zip(study.tasks, line):
                for agent, colour in colours.items():
                    rows = matching(study.growth, env=env, agent=agent)
                    steps = sorted({whole(row, "env_steps") for row in rows})
                    values = [[number(row, column) for row in matching(tuple(rows), env_steps=x)] for x in steps]
                    axes.fill_between(steps, list(map(min, values)), list(map(max, values)), color=colour, alpha=0.12)
                    axes.plot(steps, [float(np.mean(one)) for one in values], color=colour, lw=1.3)
                axes.set_title(env if column == "hypervolume" else "")
                axes.set_ylabel(label if env == study.tasks[0] else "")
                axes.set_xlabel("environment steps" if column == "points" else "")
                axes.grid(color=FAINT, lw=0.7)
                axes.locator_params(axis="x", nbins=4)
