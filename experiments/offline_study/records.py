"""From the stacks' files to the study's tables: a row per member, and curves."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pbrl.data.files import replacing
from pbrl.data.reference_scores import normalise
from pbrl.statistics import iqm

from ..reports.rows import write_rows
from ..reports.score_tables import interval

Result = Mapping[str, Any]
TOLD = ("hidden", "batch_size", "actor_decay")
"""Settings that have a column of their own, or follow from one."""


def write(results: Sequence[Result], folder: Path, command: str) -> None:
    """``offline.csv``, ``curves.csv``, and ``config.json`` with all settings."""
    write_rows(folder / "offline.csv", [row for one in results for row in member_rows(one, command)])
    write_rows(folder / "curves.csv", [row for one in results for row in curve_rows(one)])
    settings = {f"{one['description']['agent']} on {_dataset(one)}": one["description"] for one in results}
    with replacing(folder / "config.json") as temporary:
        temporary.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def scores(result: Result) -> np.ndarray[Any, np.dtype[np.float64]]:
    """[P, N] scores at every evaluation."""
    returns = np.asarray(result["returns"], dtype=np.float64)
    return np.asarray(normalise(returns, result["reference"]))


def member_rows(result: Result, command: str) -> Iterator[dict[str, object]]:
    """A row per member: scores, and what is needed to make them again."""
    score, about = scores(result), result["description"]
    task, config = about["task"], about["config"]
    settings = {name: value for name, value in result["settings"].items() if name not in TOLD}
    for seed, mine, returns in zip(result["seeds"], score, result["returns"]):
        best = int(np.nanargmax(mine)) if np.isfinite(mine).any() else -1
        yield {
            "agent": about["agent"],
            "dataset": task["dataset"],
            "seed": seed,
            "score_last": f"{mine[-1]:.3f}",
            "score_best": f"{mine[best]:.3f}",
            "best_at": result["updates"][best],
            "return_last": f"{returns[-1]:.4f}",
            "score_of_data": f"{normalise(result['data_return'], result['reference']):.3f}",
            "budget": about["scale"]["budget"],
            "updates": result["updates"][-1],
            "widths": " ".join(map(str, config["hidden"])),
            "batch": config["batch_size"],
            "settings": json.dumps(settings, sort_keys=True),
            "episodes": result["episodes"],
            "env": task["env"],
            "source": "generated" if task["tier"] else "D4RL",
            "transitions": result["transitions"],
            "data": about["rows"],
            "reference_low": f"{result['reference'][0]:.4f}",
            "reference_high": f"{result['reference'][1]:.4f}",
            "members": len(result["seeds"]),
            "seconds": result["seconds"],
            "device": result["device"],
            "threads": result["threads"],
            "versions": ", ".join(f"{name} {value}" for name, value in result["versions"].items()),
            "command": command,
        }


def curve_rows(result: Result) -> Iterator[dict[str, object]]:
    """A row per evaluation: IQM over seeds and its interval."""
    score = scores(result)
    for place, updates in enumerate(result["updates"]):
        low, high = interval(score[:, place])[1:]
        ends = {"score": f"{iqm(score[:, place]):.3f}", "low": f"{low:.3f}", "high": f"{high:.3f}"}
        yield {"agent": result["description"]["agent"], "dataset": _dataset(result), "updates": updates, **ends}


def _dataset(result: Result) -> str:
    return str(result["description"]["task"]["dataset"])
