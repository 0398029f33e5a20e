"""``front.csv`` in a run's folder: what the policies of each member's archive returned when they were played last."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from pbrl import pareto
from pbrl.data.files import replacing
from pbrl.errors import InputError
from pbrl.evaluation import Floats
from pbrl.fronts.front import Front

NAME = "front.csv"


def read(folder: Path) -> dict[int, Floats]:
    """member -> points [N, K] that none of its own dominates, of a run's front.csv; none where there is no such file.

    Raises:
        InputError: damaged.
    """
    path = folder / NAME
    if not path.is_file():
        return {}
    found: dict[int, list[list[float]]] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if row["dominated"] == "0":
                    point = [float(value) for name, value in row.items() if name.startswith("return_")]
                    found.setdefault(int(row["member"]), []).append(point)
        return {member: np.asarray(points, dtype=np.float64) for member, points in found.items()}
    except (ValueError, TypeError, KeyError):
        raise InputError(f"{path}: damaged, expected the numbers that pbrl train has written") from None


def write(path: Path, front: Front, *, updates: int, env_steps: int) -> None:
    """A row per policy: member, updates, env_steps, row of the archive, dominated by another (0 or 1), and its returns.

    Raises:
        InputError: it cannot be written.
    """
    objectives = front.points[0].shape[1]
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(
            ("member", "updates", "env_steps", "row", "dominated", *(f"return_{k}" for k in range(objectives)))
        )
        for member, (places, points) in enumerate(zip(front.rows, front.points)):
            finite = np.isfinite(points).all(1)
            best = np.zeros(len(points), dtype=bool)
            best[finite] = pareto.non_dominated(points[finite])
            for place, good, point in zip(places, best, points):
                rows.writerow((member, updates, env_steps, int(place), int(not good), *map(repr, point.tolist())))
