"""What a demo's scores show, in sentences that follow from the numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pbrl.statistics import Interval

from .rows import Group, Row, groups, number
from .score_tables import interval, words


def findings(rows: Sequence[Row]) -> list[str]:
    """What the last scores show, in sentences made from the numbers: whose intervals lie apart."""
    found = {group: interval([number(row, "score_last") for row in members]) for group, members in groups(rows).items()}
    found = {group: one for group, one in found.items() if math.isfinite(one.low)}
    sentences = []
    verdicts: dict[str, list[str]] = {}
    for agent in dict.fromkeys(agent for agent, _ in found):
        one, other = found.get((agent, "partial_return")), found.get((agent, "regret"))
        if one and other:
            verdicts.setdefault(_order(one, other), []).append(agent)
    texts = {
        "overlap": "the intervals with partial-return and with regret labels overlap",
        "above": "partial-return labels score higher, with intervals apart",
        "below": "regret labels score higher, with intervals apart",
    }
    parts = [f"for {_listed(verdicts[verdict])} {text}" for verdict, text in texts.items() if verdict in verdicts]
    if parts:
        sentences.append("Between the labels: " + "; ".join(parts) + ".")
    if baseline := found.get(("bc", "none")):
        sides: dict[str, list[str]] = {}
        for group, one in found.items():
            if group != ("bc", "none"):
                sides.setdefault(_order(one, baseline), []).append(_named(group))
        texts = {"above": "above it", "below": "below it", "overlap": "not told apart from it"}
        parts = [f"{_listed(sides[side])} {text}" for side, text in texts.items() if side in sides]
        if parts:
            sentences.append(
                "Against behaviour cloning of all data, by whose intervals lie apart: " + "; ".join(parts) + "."
            )
    if still := [number(row, "score_still") for row in rows if row.get("score_still")]:
        under = [_named(group) for group, one in found.items() if one.low <= still[0]]
        if len(under) == len(found):
            verdict = "no agent's interval lies above that"
        elif under:
            verdict = f"all intervals but {'that' if len(under) == 1 else 'those'} of {_listed(under)} lie above that"
        else:
            verdict = "every agent's interval lies above that"
        sentences.append(f"Doing nothing at all (action 0) scores {still[0]:.1f}; {verdict}.")
    return sentences


def _order(one: Interval, other: Interval) -> str:
    if one.low > other.high:
        return "above"
    return "below" if one.high < other.low else "overlap"


def _named(group: Group) -> str:
    agent, labels = group
    return agent if labels in ("none", "true_reward") else f"{agent} ({words(labels)})"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
