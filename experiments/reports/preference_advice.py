"""Which preference learner to begin with: sentences made from the study's numbers, and as sure as these allow."""

from __future__ import annotations

import math

from pbrl.statistics import Interval

from .page import Table
from .preference_findings import labelled, listed, order, unbeaten
from .preference_rows import UNLABELLED, Study, short
from .preference_tables import over_tasks, scale_words, seeds
from .score_tables import interval_text, words

PUBLISHED = {"cpl": 500_000, "cpl_bc": 500_000, "cpl_kl": 500_000, "sft": 500_000, "ipl": 1_000_000}
"""Updates that the authors' public configurations ask for: jhejna/cpl's ``mw_state_dense`` at b4f1973, and
jhejna/inverse-preference-learning's ``gym_locomotion`` at 0928345."""


def standings(study: Study, labels: str) -> list[tuple[str, Interval]]:
    """The agents that learn from these labels and their scores over all tasks with the most of them, best first."""
    found = {agent: over_all(study, agent, labels, study.budgets[-1]) for agent in labelled(study)}
    there = [(agent, score) for agent, score in found.items() if math.isfinite(score.point)]
    return sorted(there, key=lambda one: -one[1].point)


def over_all(study: Study, agent: str, labels: str, budget: int) -> Interval:
    """An agent's score over all tasks, from labels without faults."""
    if labels in UNLABELLED:
        return over_tasks(study, agent, labels=labels)
    return over_tasks(study, agent, labels=labels, budget=budget, noise="none")


def leaders(study: Study, labels: str) -> list[str]:
    """The agent with the highest score over all tasks, then those that are not told apart from it."""
    ranked = standings(study, labels)
    return [agent for agent, score in ranked if order(score, ranked[0][1]) == "level"]


def advice(study: Study) -> list[str]:
    """What to begin with for each kind of labels, how many labels, and how sure that is; [] where nothing was compared.

    Sentences are Markdown: what each is about stands out.
    """
    if not study.budgets:
        return []
    picks = [(ranked[0][0], labels) for labels in study.labels if len(ranked := standings(study, labels)) > 1]
    if not picks:
        return []
    return [*(_pick(study, labels) for _, labels in picks), _amount(study, picks), _sure(study, picks)]


def _pick(study: Study, labels: str) -> str:
    ranked = standings(study, labels)
    (best, score), level = ranked[0], leaders(study, labels)[1:]
    lower = [agent for agent, _ in ranked[1:] if agent not in level]
    others = [f"{listed(level)} {'is' if len(level) == 1 else 'are'} not told apart from it"] if level else []
    others += [f"{listed(lower)} {'is' if len(lower) == 1 else 'are'} lower"] if lower else []
    tasks = len(study.datasets)
    return (
        f"**Labels by {words(labels)}: begin with {best}.** With {study.budgets[-1]} labels its score over the {tasks} "
        f"tasks is the highest, {_cell(score)}; {', and '.join(others)}. On {unbeaten(study, labels)[best]} of {tasks} "
        "single tasks no other agent with these labels is clearly better."
    )


def _amount(study: Study, picks: list[tuple[str, str]]) -> str:
    parts = []
    for agent, labels in picks:
        scores = [over_all(study, agent, labels, budget) for budget in study.budgets]
        enough = len(scores) - 1
        while enough and order(scores[enough - 1], scores[-1]) == "level":
            enough -= 1
        told = "more would help" if enough == len(scores) - 1 else f"not told apart from {study.budgets[enough]} on"
        points = listed([f"{score.point:.0f}" for score in scores])
        parts.append(f"{agent} ({words(labels)}) scores {points} ({told})")
    return f"**How many labels?** With {listed(list(map(str, study.budgets)))} of them {'; '.join(parts)}."


def _sure(study: Study, picks: list[tuple[str, str]]) -> str:
    updates = int(study.members[0]["updates"])
    shares = [f"{100 * updates / PUBLISHED[agent]:.2g} % of {agent}'s" for agent in dict(picks) if agent in PUBLISHED]
    budget = f"All made {updates} updates ({listed(shares)} published ones), with {seeds(study)} seeds"
    told, doubt = [f"{budget} and small networks." if shares else f"{updates} updates."], False
    if "bc" in study.agents:
        cloning = over_all(study, "bc", "none", 0)
        sides: dict[str, list[str]] = {}
        for agent, labels in picks:
            side = order(over_all(study, agent, labels, study.budgets[-1]), cloning)
            sides.setdefault(side, []).append(f"{agent} ({words(labels)})")
        texts = {"above": "above that", "level": "not told apart from that", "below": "below that"}
        parts = [
            f"{text} {'is' if len(sides[side]) == 1 else 'are'} {listed(sides[side])}"
            for side, text in texts.items()
            if side in sides
        ]
        told.append(f"Cloning all data without a label scores {_cell(cloning)} over the tasks: {'; '.join(parts)}.")
        doubt = set(sides) != {"above"}
    if "iql" in study.agents:
        told.append(f"IQL with the true reward scores {_cell(over_all(study, 'iql', 'true_reward', 0))}.")
    doubt = doubt or any(len(leaders(study, labels)) > 1 for _, labels in picks)
    return (
        f"**How sure is that? {'Not very.' if doubt else 'At this budget only.'}** {' '.join(told)} So this is where "
        "to begin, beside cloning, and no ranking at the published budgets."
    )


def short_table(study: Study) -> Table:
    """The rows that the advice rests on: the best agents for each kind of labels, and those that get none."""
    most = study.budgets[-1]
    rows = [(agent, labels) for labels in study.labels for agent in leaders(study, labels)]
    rows += [(agent, study.of(agent=agent)[0]["labels"]) for agent in study.agents if agent not in labelled(study)]
    lines = []
    for agent, labels in rows:
        wanted = {"agent": agent, "labels": labels, "noise": "none"}
        wanted |= {} if labels in UNLABELLED else {"budget": str(most)}
        cells = [study.scores(**wanted, dataset=name) for name in study.datasets]
        texts = [interval_text(cell, 0) if cell else "-" for cell in cells]
        lines.append((agent, words(labels), _cell(over_all(study, agent, labels, most)), *texts))
    return Table(
        header=("agent", "labels", "all tasks", *map(short, study.datasets)),
        rows=tuple(lines),
        words=2,
        caption=f"Scores after the last update with {most} labelled pairs: interquartile mean over {seeds(study)} "
        "seeds, or over tasks and seeds together [95 % bootstrap interval]. For each kind of labels the agent with the "
        f"highest score over all tasks, and those not told apart from it. {scale_words()}",
    )


def _cell(found: Interval) -> str:
    """``49 [46, 53]``."""
    return "-" if math.isnan(found.point) else f"{found.point:z.0f} [{found.low:z.0f}, {found.high:z.0f}]"
