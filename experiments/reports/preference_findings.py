"""What the preference study's scores show, in sentences made from the numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from pbrl.statistics import Interval

from .preference_rows import UNLABELLED, Study, short
from .preference_tables import interval_cell, over_tasks
from .score_tables import interval, words

ENOUGH = 0.9
"""The share of the score of IQL with the true reward that P-IQL was to reach."""


def findings(study: Study) -> list[str]:
    """Sentences; those whose rows are missing are left out."""
    if not study.budgets:
        return []
    told = [
        _unbeaten(study),
        _reward_learning(study),
        _contrast(study),
        _against_cloning(study),
        _labels(study),
        _budgets(study),
        _faults(study),
        _best(study),
    ]
    return [sentence for sentence in told if sentence]


def in_short(study: Study) -> list[str]:
    """Those for the README: what labels are worth beside the true reward, of which kind, and with faults."""
    told = [_reward_learning(study), _labels(study), _faults(study)] if study.budgets else []
    return [sentence for sentence in told if sentence]


def _score(study: Study, agent: str, dataset: str, labels: str, budget: int, noise: str = "none") -> Interval:
    wanted: dict[str, object] = {"agent": agent, "dataset": dataset, "labels": labels}
    if labels not in UNLABELLED:
        wanted |= {"budget": budget, "noise": noise}
    return interval(study.scores(**wanted))


def order(one: Interval, other: Interval) -> str:
    """Where one interval lies: "above" or "below" the other, or "level" with it where they overlap."""
    if one.low > other.high:
        return "above"
    return "below" if one.high < other.low else "level"


def listed(names: Sequence[str]) -> str:
    """``a, b and c``."""
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def unbeaten(study: Study, labels: str) -> dict[str, int]:
    """On how many tasks nobody who learns from the same labels lies above each agent, with the most of them."""
    counts = dict.fromkeys(labelled(study), 0)
    for dataset in study.datasets:
        scores = {agent: _score(study, agent, dataset, labels, study.budgets[-1]) for agent in counts}
        scores = {agent: score for agent, score in scores.items() if math.isfinite(score.low)}
        for agent, score in scores.items():
            counts[agent] += all(order(other, score) != "above" for other in scores.values())
    return counts


def _unbeaten(study: Study) -> str:
    parts = []
    for labels in study.labels:
        counts = unbeaten(study, labels)
        ranked = sorted(counts, key=lambda agent: -counts[agent])
        parts.append(f"{words(labels)} labels {listed([f'{agent} {counts[agent]}' for agent in ranked])}")
    return (
        f"On so many of {len(study.datasets)} tasks, with {study.budgets[-1]} labels, no other agent that learned from "
        f"the same labels is clearly better: {'; '.join(parts)}. Clearly: its whole interval is higher, which is hard "
        "to reach where an agent's seeds differ much."
    )


def _reward_learning(study: Study) -> str:
    """P-IQL with the most labels beside IQL on the true reward."""
    if not {"p_iql", "iql"} <= set(study.agents) or "partial_return" not in study.labels:
        return ""
    most, parts, reached = study.budgets[-1], [], 0
    for dataset in study.datasets:
        one = _score(study, "p_iql", dataset, "partial_return", most).point
        goal = _score(study, "iql", dataset, "true_reward", 0).point
        if math.isfinite(one) and goal > 0:
            reached += one >= ENOUGH * goal
            parts.append(f"{100 * one / goal:.0f} % on {short(dataset)}")
    if not parts:
        return ""
    return (
        f"P-IQL with {most} partial-return labels reaches, of the score of IQL with the true reward: {listed(parts)}; "
        f"that is {100 * ENOUGH:.0f} % or more on {reached} of {len(parts)} tasks."
    )


def _contrast(study: Study) -> str:
    """CPL beside SFT, both with the most regret labels."""
    if not {"cpl", "sft"} <= set(study.agents) or "regret" not in study.labels:
        return ""
    most = study.budgets[-1]
    sides: dict[str, list[str]] = {}
    for dataset in study.datasets:
        pair = [_score(study, agent, dataset, "regret", most) for agent in ("cpl", "sft")]
        if all(math.isfinite(one.low) for one in pair):
            room = ", with little room below 100" if pair[1].point >= 95.0 else ""
            told = f"{short(dataset)} ({interval_cell(pair[0])} against {interval_cell(pair[1])}{room})"
            sides.setdefault(order(*pair), []).append(told)
    texts = {"above": "above SFT's on", "level": "not apart from SFT's on", "below": "below SFT's on"}
    parts = [f"{text} {listed(sides[side])}" for side, text in texts.items() if side in sides]
    return f"With {most} regret labels, CPL's interval lies {'; '.join(parts)}." if parts else ""


def _against_cloning(study: Study) -> str:
    """On how many tasks each agent's interval lies apart from that of cloning all data."""
    if "bc" not in study.agents:
        return ""
    most, parts = study.budgets[-1], []
    for agent in [name for name in study.agents if name != "bc"]:
        for labels in dict.fromkeys(row["labels"] for row in study.of(agent=agent)):
            sides = [
                order(_score(study, agent, dataset, labels, most), _score(study, "bc", dataset, "none", 0))
                for dataset in study.datasets
                if study.of(agent=agent, dataset=dataset)
            ]
            named = agent if labels in UNLABELLED else f"{agent} ({words(labels)})"
            counts = {side: sides.count(side) for side in ("above", "below")}
            if any(counts.values()):
                told = [f"{side} on {count}" for side, count in counts.items() if count]
                parts.append(f"{named} {' and '.join(told)}")
    return (
        f"Against behaviour cloning of all data, by whose intervals lie apart (with {most} labels without faults), of "
        f"{len(study.datasets)} tasks: {'; '.join([*parts, 'all others on none']) if parts else 'all on none'}."
    )


def _sides(told: Mapping[str, list[str]], texts: Mapping[str, str]) -> str:
    return "; ".join(f"{text} for {listed(told[side])}" for side, text in texts.items() if side in told)


def _labels(study: Study) -> str:
    """Which kind of labels gives the higher scores over all tasks."""
    if not {"partial_return", "regret"} <= set(study.labels):
        return ""
    told: dict[str, list[str]] = {}
    for agent in labelled(study):
        pair = [
            over_tasks(study, agent, labels=labels, budget=study.budgets[-1], noise="none")
            for labels in ("regret", "partial_return")
        ]
        if all(math.isfinite(one.low) for one in pair):
            told.setdefault(order(*pair), []).append(agent)
    texts = {"above": "higher with regret labels", "below": "higher with partial-return labels"}
    texts["level"] = "not told apart by the kind of labels"
    over = f"Over the {len(study.thorough)} tasks with all budgets"
    return f"{over}, scores with {study.budgets[-1]} labels are {_sides(told, texts)}." if told else ""


def _budgets(study: Study) -> str:
    """What more labels bring, over all tasks."""
    if len(study.budgets) < 2:
        return ""
    few, most = study.budgets[0], study.budgets[-1]
    told: dict[str, list[str]] = {}
    for agent in labelled(study):
        for labels in study.labels:
            pair = [over_tasks(study, agent, labels=labels, budget=count, noise="none") for count in (most, few)]
            if all(math.isfinite(one.low) for one in pair):
                side, what = order(*pair), words(labels)
                change = "" if side == "level" else f", {pair[1].point:.0f} to {pair[0].point:.0f}"
                told.setdefault(side, []).append(f"{agent} ({what}{change})")
    texts = {"above": "higher", "below": "lower", "level": "not told apart"}
    over = f"Over the {len(study.thorough)} tasks with all budgets"
    return f"{over}, scores with {most} labels instead of {few} are {_sides(told, texts)}." if told else ""


def _faults(study: Study) -> str:
    """What labels with faults cost."""
    noisy = [name for name in study.noises if name != "none"]
    if not noisy:
        return ""
    parts = []
    for noise in noisy:
        rows = study.of(noise=noise)
        budget, tasks = int(rows[0]["budget"]), list(dict.fromkeys(row["dataset"] for row in rows))
        wrong = sum(float(row["label_errors"]) for row in rows) / len(rows)
        told: dict[str, list[str]] = {}
        for agent in labelled(study):
            for labels in study.labels:
                pair = [
                    over_tasks(study, agent, tasks, labels=labels, budget=budget, noise=kind)
                    for kind in (noise, "none")
                ]
                if all(math.isfinite(one.low) for one in pair):
                    change = f"{agent} ({words(labels)}, {pair[1].point:.0f} to {pair[0].point:.0f})"
                    told.setdefault(order(*pair), []).append(change)
        name = {"beta": "drawn by their odds", "mistakes": "turned round at random"}[noise]
        costly = f"cost {listed(told['below'])} something" if "below" in told else "cost no agent anything"
        gain = f", raise {listed(told['above'])}" if "above" in told else ""
        parts.append(f"{budget} labels {name} ({100 * wrong:.0f} % wrong) {costly}{gain}")
    return f"By whose intervals lie apart: {'; '.join(parts)}."


def _best(study: Study) -> str:
    """The highest score with labels on each task."""
    parts = []
    for dataset in study.datasets:
        found = {
            f"{agent} ({words(labels)})": point
            for agent in labelled(study)
            for labels in study.labels
            if math.isfinite(point := _score(study, agent, dataset, labels, study.budgets[-1]).point)
        }
        if found:
            best = max(found, key=lambda name: found[name])
            parts.append(f"{best} with {found[best]:.1f} on {short(dataset)}")
    return f"The highest score with {study.budgets[-1]} labels: {listed(parts)}." if parts else ""


def labelled(study: Study) -> list[str]:
    """The agents that learn from labels."""
    return [agent for agent in study.agents if study.of(agent=agent)[0]["labels"] not in UNLABELLED]
