"""From the pieces' files to the study's tables: a row per front, and the points and the growth of each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.multi_objective import FruitTree, Regulator, SeaTreasure, rules
from pbrl import pareto
from pbrl.data.files import replacing

from ..reports.morl_rows import FRONTS, GROWTH, KNOWN, MORL
from ..reports.rows import write_rows
from .fronts import Result
from .settings import EXTENSIONS, Plan, Task

Floats = NDArray[np.float64]
KNOWN_STEPS = 3000
"""Weights of the regulator's front, which is a curve."""


def write(
    plans: Sequence[Plan], results: Mapping[str, Result], stills: Mapping[str, list[float]], folder: Path, command: str
) -> None:
    """``morl.csv`` and the tables beside it, and ``config.json`` with all settings."""
    done = [(plan, extension, results[f"{plan.name}/{extension}"]) for plan in plans for extension in EXTENSIONS]
    firsts = {plan.name: results[f"{plan.name}/start"] for plan in plans}
    rows = [
        row
        for plan, _, result in done
        for row in front_rows(plan, result, firsts[plan.name], stills[plan.name], command)
    ]
    write_rows(folder / MORL, rows)
    points = [row for plan in plans for row in known_rows(plan.task)]
    write_rows(folder / FRONTS, points + [row for plan, _, result in done for row in point_rows(plan, result)])
    growth = [row for plan, way, result in done for row in growth_rows(plan, way, firsts[plan.name], result)]
    write_rows(folder / GROWTH, growth)
    with replacing(folder / "config.json") as temporary:
        settings = {f"{plan.name}/{way}": result["description"] for plan, way, result in done}
        temporary.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def known_front(task: Task) -> Floats | None:
    """[N, K] the best that there is, where that is known."""
    problem = rules(task.env)
    if isinstance(problem, Regulator):
        return problem.front(task.gamma, KNOWN_STEPS)
    return problem.front(task.gamma) if isinstance(problem, FruitTree | SeaTreasure) else None


def quality(task: Task, told: Floats, measured: Floats) -> dict[str, float]:
    """What a set of policies is worth.

    Args:
        told: [N, K] what the agent takes its policies for.
        measured: [N, K] what they are worth.

    Returns:
        hypervolume, expected utility, sparsity and number of the points as measured, dominated ones aside; and
        the utility when policies are served by what the agent takes them for.
    """
    finite = np.isfinite(measured).all(1)
    told, measured = told[finite], measured[finite]
    if len(measured) == 0:
        return {"hypervolume": 0.0, "expected_utility": np.nan, "served_utility": np.nan, "sparsity": 0.0, "points": 0}
    weights = pareto.simplex_grid(measured.shape[1], task.weight_steps)
    front = measured[pareto.non_dominated(measured)]
    served = measured[pareto.assign(told, weights)]
    return {
        "hypervolume": pareto.hypervolume(front, task.reference),
        "expected_utility": pareto.expected_utility(front, weights),
        "served_utility": float((weights * served).sum(1).mean()),
        "sparsity": pareto.sparsity(front),
        "points": len(front),
    }


def front_rows(
    plan: Plan, result: Result, first: Result, still: Sequence[float], command: str
) -> Iterator[dict[str, object]]:
    """A row per agent and seed: what its front is worth, by which convention, and what is needed to make it again."""
    task = plan.task
    known = known_front(task)
    versions = ", ".join(f"{name} {value}" for name, value in result["versions"].items())
    for agent, fronts in result["sets"].items():
        for seed, front in zip(plan.scale.seeds, fronts):
            told, measured = (
                np.asarray(front[name], dtype=np.float64).reshape(-1, len(task.reference))
                for name in ("told", "measured")
            )
            found = quality(task, told, measured)
            yield {
                "agent": agent,
                "env": task.env,
                "seed": seed,
                "env_steps": result["env_steps"],
                **{
                    name: f"{found[name]:.8g}"
                    for name in ("hypervolume", "expected_utility", "served_utility", "sparsity")
                },
                "points": found["points"],
                "drawn_hypervolume": _drawn(task, front),
                "policies": len(measured),
                "reference_point": pareto.format_reference(task.reference),
                "gamma": task.gamma,
                "weight_steps": task.weight_steps,
                "episodes": plan.episodes,
                "still": pareto.format_reference(still),
                "still_hypervolume": f"{pareto.hypervolume([list(still)], task.reference):.8g}",
                "known_hypervolume": "" if known is None else f"{pareto.hypervolume(known, task.reference):.8g}",
                "updates": result["updates"],
                "first_updates": plan.first_updates,
                "training": plan.scale.policies,
                "seconds": f"{first['seconds'] + result['seconds']:.1f}",
                "threads": result["threads"],
                "versions": versions,
                "command": command,
            }


def _drawn(task: Task, front: Mapping[str, Any]) -> str:
    """The hypervolume when actions are drawn as in training, where that was measured."""
    if not front.get("drawn"):
        return ""
    return f"{pareto.hypervolume(front['drawn'], task.reference):.8g}"


def point_rows(plan: Plan, result: Result) -> Iterator[dict[str, object]]:
    """A row per point that no other of its set dominates, as measured: ``values`` as one word."""
    for agent, fronts in result["sets"].items():
        for seed, front in zip(plan.scale.seeds, fronts):
            measured = np.asarray(front["measured"], dtype=np.float64)
            measured = measured[np.isfinite(measured).all(1)] if measured.ndim == 2 else measured
            if len(measured) == 0:
                continue
            best = measured[pareto.non_dominated(measured)]
            for values in best[np.argsort(best[:, 0])]:
                yield {
                    "agent": agent,
                    "env": plan.task.env,
                    "seed": seed,
                    "values": "|".join(f"{x:.6g}" for x in values),
                }


def known_rows(task: Task) -> Iterator[dict[str, object]]:
    """A row per point of the known front; of a curve, so many that it looks like one."""
    front = known_front(task)
    if front is None:
        return
    front = front[pareto.non_dominated(front)] if len(front) < KNOWN_STEPS else front[:: KNOWN_STEPS // 50]
    for values in front[np.argsort(front[:, 0])]:
        yield {"agent": KNOWN, "env": task.env, "seed": 0, "values": "|".join(f"{x:.6g}" for x in values)}


def growth_rows(plan: Plan, extension: str, first: Result, result: Result) -> Iterator[dict[str, object]]:
    """A row per seed and look at the archive on the way: its size and hypervolume by its own account."""
    for told in (*first["growth"], *result["growth"]):
        for place, seed in enumerate(plan.scale.seeds):
            yield {
                "agent": EXTENSIONS[extension],
                "env": plan.task.env,
                "seed": seed,
                "env_steps": told["env_steps"],
                "hypervolume": f"{told['hypervolume'][place]:.8g}",
                "points": told["points"][place],
            }
