"""The figures of a demo folder, drawn from its tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pbrl import figures
from pbrl.statistics import GapAccuracy

from .rows import GAPS, Row, groups, number, read_curves, read_labels, read_results, whole
from .score_tables import words


def draw(folder: Path) -> None:
    """Write ``scores.png``, ``curves.png`` and a ``labels_N.png`` per labeler into a folder with the tables of a demo.

    Raises:
        InputError: a table that is missing or damaged, or a folder that cannot be written.
    """
    rows = read_results(folder / "results.csv")
    about = f"{rows[0]['env']}, {rows[0]['data_set']}"
    references = {"no action": number(rows[0], "score_still"), "expert": 100.0}
    figures.score_bars(
        {
            (agent, words(labels)): [number(row, "score_last") for row in members]
            for (agent, labels), members in groups(rows).items()
        },
        folder / "scores.png",
        title=f"Scores after the last update ({about})",
        axis="score",
        references=references,
    )
    figures.learning_curves(
        {
            _series(agent, labels): _curve(points)
            for (agent, labels), points in groups(read_curves(folder / "curves.csv")).items()
        },
        folder / "curves.png",
        title=f"Scores in training ({about})",
        axis="score: interquartile mean, middle half of seeds",
        references=references,
    )
    for judge, path in label_figures(folder).items():
        judged = groups([row for row in read_labels(folder / "labels.csv") if row["judge"] == judge])
        figures.accuracy_by_gap(
            {agent: _gap(lines) for (agent, _), lines in judged.items()},
            path,
            title=f"Held-out pairs ordered as {words(judge)} orders them",
        )


def label_figures(folder: Path) -> dict[str, Path]:
    """Where the accuracy by gap is drawn, for each labeler in ``labels.csv``."""
    judges = dict.fromkeys(row["judge"] for row in read_labels(folder / "labels.csv"))
    return {judge: folder / f"labels_{place}.png" for place, judge in enumerate(judges, start=1)}


def _series(agent: str, labels: str) -> str:
    return agent if labels in ("none", "true_reward") else f"{agent}, {words(labels)}"


def _curve(points: list[Row]) -> tuple[list[int], list[list[float]]]:
    """Counts of updates [N] and scores [P, N]."""
    updates = sorted({whole(point, "updates") for point in points})
    score = {(point["seed"], whole(point, "updates")): number(point, "score") for point in points}
    seeds = dict.fromkeys(point["seed"] for point in points)
    return updates, [[score.get((seed, update), np.nan) for update in updates] for seed in seeds]


def _gap(rows: list[Row]) -> GapAccuracy:
    """Accuracy [P, gaps] of the members in ``rows``."""
    seeds = list(dict.fromkeys(row["seed"] for row in rows))
    at = {(row["seed"], row["gap"]): row for row in rows}
    first = [at[seeds[0], gap] for gap in GAPS]
    return GapAccuracy(
        low=np.array([number(row, "gap_low") for row in first]),
        high=np.array([number(row, "gap_high") for row in first]),
        count=np.array([whole(row, "pairs") for row in first]),
        accuracy=np.array([[number(at[seed, gap], "accuracy") for gap in GAPS] for seed in seeds]),
    )
