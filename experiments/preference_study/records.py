"""From the stacks' files to the study's tables: a row per member, and sums over members where rows would be many."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pbrl.data.files import replacing
from pbrl.data.reference_scores import normalise
from pbrl.statistics import iqm

from ..reports.rows import GAPS, write_rows
from ..reports.score_tables import interval
from .settings import Condition

Result = Mapping[str, Any]
Members = Iterator[tuple[int, int, Condition, int]]


def members(result: Result) -> Members:
    """Place in the stack, place of the settings, condition and seed of each member."""
    for index, (place, labels, budget, noise, seed) in enumerate(result["members"]):
        yield index, place, Condition(labels, budget, noise), seed


def write(results: Sequence[Result], folder: Path, command: str) -> None:
    """``preferences.csv`` and the tables beside it, and ``config.json`` with all settings."""
    write_rows(folder / "preferences.csv", [row for one in results for row in member_rows(one, command)])
    write_rows(folder / "curves.csv", [row for one in results for row in curve_rows(one)])
    judges = [one for one in results if one["accuracy"] is not None]
    for name, make in (("gaps.csv", gap_rows), ("odds.csv", odds_rows)):
        rows = [row for one in judges for row in make(one)]
        if rows:
            write_rows(folder / name, rows)
    with replacing(folder / "config.json") as temporary:
        settings = {stack_name(one): one["description"] for one in results}
        temporary.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def stack_name(result: Result) -> str:
    """The agent and its data set."""
    return f"{result['description']['agent']} on {result['data']['name']}"


def scores(result: Result) -> np.ndarray[Any, np.dtype[np.float64]]:
    """[P, N] scores at every evaluation."""
    returns = np.asarray(result["returns"], dtype=np.float64)
    return np.asarray(normalise(returns, result["reference"]))


def member_rows(result: Result, command: str) -> Iterator[dict[str, object]]:
    """A row per member: scores, and what is needed to make them again."""
    score, about = scores(result), result["description"]
    for index, _, condition, seed in members(result):
        mine, made = score[index], result["made"][index]
        best = int(np.nanargmax(mine)) if np.isfinite(mine).any() else -1
        yield {
            "agent": about["agent"],
            "dataset": result["data"]["name"],
            "labels": condition.labels,
            "budget": condition.budget,
            "noise": condition.noise,
            "seed": seed,
            "score_last": f"{mine[-1]:.3f}",
            "score_best": f"{mine[best]:.3f}",
            "best_at": result["updates"][best],
            "return_last": f"{result['returns'][index][-1]:.4f}",
            "held_out_accuracy": "" if result["accuracy"] is None else f"{result['accuracy'][index]:.4f}",
            "calibration_error": "" if result["odds"] is None else f"{calibration_error(result['odds'][index]):.4f}",
            "label_errors": f"{result['label_errors'][index]:.4f}",
            "episodes": result["episodes"],
            "updates": result["updates"][-1],
            "segment_length": about["task"]["segment_length"],
            "env": result["data"]["env"],
            "data": result["data"]["rows"],
            "reference_low": f"{result['reference'][0]:.4f}",
            "reference_high": f"{result['reference'][1]:.4f}",
            "members": made["members"],
            "seconds": made["seconds"],
            "device": made["device"],
            "threads": made["threads"],
            "versions": ", ".join(f"{name} {value}" for name, value in made["versions"].items()),
            "command": command,
        }


def calibration_error(odds: Sequence[Sequence[float]]) -> float:
    """Mean over pairs of the distance, in a member's bins, between its mean prediction and how often it is right."""
    count, sure, agrees = np.asarray(odds)
    return float(np.abs(sure - agrees).sum() / count.sum()) if count.sum() else np.nan


def by_condition(result: Result) -> dict[Condition, list[int]]:
    """Places in the stack of the members that differ in the seed alone."""
    found: dict[Condition, list[int]] = {}
    for index, _, condition, _ in members(result):
        found.setdefault(condition, []).append(index)
    return found


def _named(result: Result, condition: Condition) -> dict[str, object]:
    return {"agent": result["description"]["agent"], "dataset": result["data"]["name"], **vars(condition)}


def curve_rows(result: Result) -> Iterator[dict[str, object]]:
    """A row per condition and evaluation: IQM over seeds and its interval."""
    score = scores(result)
    for condition, mine in by_condition(result).items():
        for place, updates in enumerate(result["updates"]):
            low, high = interval(score[mine, place])[1:]
            point = iqm(score[mine, place])
            ends = {"score": f"{point:.3f}", "low": f"{low:.3f}", "high": f"{high:.3f}"}
            yield {**_named(result, condition), "updates": updates, **ends}


def gap_rows(result: Result) -> Iterator[dict[str, object]]:
    """A row per condition and fifth of the held-out pairs, from close calls to clear ones: mean accuracy over seeds."""
    for condition, mine in by_condition(result).items():
        accuracy = np.mean([result["gaps"][index]["accuracy"] for index in mine], axis=0)
        first = result["gaps"][mine[0]]
        for gap, share, high, pairs in zip(GAPS, accuracy, first["high"], first["pairs"]):
            told = {"gap_high": f"{high:.6g}", "pairs": pairs, "accuracy": f"{share:.4f}"}
            yield {**_named(result, condition), "gap": gap, **told}


def odds_rows(result: Result) -> Iterator[dict[str, object]]:
    """A row per condition and bin of predicted probabilities that holds any, over all seeds."""
    if result["odds"] is None:
        return
    for condition, mine in by_condition(result).items():
        count, sure, agrees = np.sum([result["odds"][index] for index in mine], axis=0)
        for place in np.flatnonzero(count).tolist():
            shares = {
                "predicted": f"{sure[place] / count[place]:.4f}",
                "observed": f"{agrees[place] / count[place]:.4f}",
            }
            yield {**_named(result, condition), "bin": place, "count": int(count[place]), **shares}


def write_search(results: Sequence[Result], folder: Path) -> None:
    """``search.csv``: mean scores of every setting on every task and kind of labels; the best mean rank is chosen."""
    write_rows(folder / "search.csv", search_rows(results))


def search_rows(results: Sequence[Result]) -> list[dict[str, object]]:
    """See ``write_search``. Ranks are among the settings of an agent on the same data and labels; 1 is the best."""
    rows: list[dict[str, Any]] = []
    for result in results:
        score = scores(result)
        found: dict[tuple[int, Condition], list[int]] = {}
        for index, place, condition, _ in members(result):
            found.setdefault((place, condition), []).append(index)
        for (place, condition), mine in found.items():
            accuracy = "" if result["accuracy"] is None else f"{np.mean([result['accuracy'][i] for i in mine]):.4f}"
            rows.append(
                {
                    **_named(result, condition),
                    "settings": json.dumps(result["settings"][place], sort_keys=True),
                    "score_last": f"{np.nan_to_num(score[mine, -1], nan=-np.inf).mean():.3f}",
                    "held_out_accuracy": accuracy,
                    "seeds": " ".join(str(result["members"][index][-1]) for index in mine),
                    "updates": result["updates"][-1],
                    "episodes": result["episodes"],
                }
            )
    for row in rows:
        rivals = [other for other in rows if all(other[name] == row[name] for name in ("agent", "dataset", "labels"))]
        row["rank"] = 1 + sum(float(other["score_last"]) > float(row["score_last"]) for other in rivals)
    ranks: dict[tuple[str, str], list[int]] = {}
    for row in rows:
        ranks.setdefault((row["agent"], row["settings"]), []).append(row["rank"])
    mean = {key: float(np.mean(found)) for key, found in ranks.items()}
    best = {agent: min((key for key in mean if key[0] == agent), key=lambda key: mean[key]) for agent, _ in mean}
    for row in rows:
        key = row["agent"], row["settings"]
        row["mean_rank"] = f"{mean[key]:.3f}"
        row["chosen"] = "yes" if best[row["agent"]] == key else ""
    return rows
