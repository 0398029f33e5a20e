"""From the stacks' files to the study's tables: a row per member, and a row per agent and evaluation."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pbrl.data.files import replacing
from pbrl.handover import handover

from ..reports.rows import write_rows
from ..reports.score_tables import interval
from .settings import PROTOCOL

Result = Mapping[str, Any]


def write(results: Sequence[Result], folder: Path, command: str) -> None:
    """``offline_to_online.csv``, ``curves.csv`` and ``config.json`` with the command line of each stack."""
    write_rows(folder / "offline_to_online.csv", [row for one in results for row in member_rows(one, command)])
    write_rows(folder / "curves.csv", [row for one in results for row in curve_rows(one)])
    with replacing(folder / "config.json") as temporary:
        settings = {f"{one['agent']} on {one['dataset']}": one["description"] for one in results}
        temporary.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def protocol(agent: str) -> str:
    """Where updates online draw from, in a word or two."""
    kind = PROTOCOL[agent].get("replay", "own rollouts")
    return f"{kind} {PROTOCOL[agent]['replay_share']:g}" if kind == "mixed" else str(kind)


def member_rows(result: Result, command: str) -> Iterator[dict[str, object]]:
    """A row per member: what became of it, and what is needed to make it again."""
    found = handover(result["env_steps"], result["scores"])
    versions = ", ".join(f"{name} {value}" for name, value in result["versions"].items())
    for place, seed in enumerate(result["seeds"]):
        numbers = {name: f"{getattr(found, name)[place]:.3f}" for name in ("offline", "dip", "last", "best")}
        yield {
            "agent": result["agent"],
            "dataset": result["dataset"],
            "seed": seed,
            **{f"score_{name}": number for name, number in numbers.items()},
            "regret": f"{found.regret[place]:.3f}",
            "replay": protocol(result["agent"]),
            "updates": result["updates"],
            "env_steps": result["env_steps"][-1],
            "evaluations": len(result["env_steps"]) - 1,
            "episodes": result["episodes"],
            "env": result["env"],
            "reference_low": f"{result['reference'][0]:.4f}",
            "reference_high": f"{result['reference'][1]:.4f}",
            "data": result["description"]["rows"],
            "members": len(result["seeds"]),
            "seconds": result["seconds"],
            "device": result["device"],
            "threads": result["threads"],
            "versions": versions,
            "train": "pbrl train " + " ".join(result["description"]["words"]),
            "command": command,
        }


def curve_rows(result: Result) -> Iterator[dict[str, object]]:
    """A row per evaluation from the last offline one on: IQM over seeds and its interval."""
    scores = np.asarray(result["scores"], dtype=np.float64)
    for place, env_steps in enumerate(result["env_steps"]):
        point, low, high = interval(scores[:, place])
        ends = {"score": f"{point:.3f}", "low": f"{low:.3f}", "high": f"{high:.3f}"}
        yield {"agent": result["agent"], "dataset": result["dataset"], "env_steps": env_steps, **ends}
