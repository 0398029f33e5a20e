"""What the offline study's scores show, in sentences made from the numbers."""

from __future__ import annotations

import math

from pbrl.statistics import Interval

from .offline_rows import Offline, short
from .offline_tables import over_datasets
from .preference_findings import listed, order
from .rows import number
from .score_tables import interval


def findings(found: Offline) -> list[str]:
    """Sentences; those whose rows are missing are left out."""
    told = (_best(found), _over_all(found), _cloning(found), _data(found), _random(found), _gap(found), _lost(found))
    return [text for text in told if text]


def in_short(found: Offline) -> list[str]:
    """Those of the sentences that tell which agent to pick, and which not."""
    told = (_best(found), _over_all(found), _cloning(found), _random(found), _lost(found))
    return [text for text in told if text]


def _interval(found: Offline, agent: str, dataset: str) -> Interval:
    return interval(found.scores(agent=agent, dataset=dataset))


def _best(found: Offline) -> str:
    """The highest last score on each data set, and who is not told apart from it."""
    parts = []
    for dataset in found.datasets:
        ends = {agent: _interval(found, agent, dataset) for agent in found.agents}
        ends = {agent: one for agent, one in ends.items() if math.isfinite(one.point)}
        if len(ends) > 1:
            best = max(ends, key=lambda agent: ends[agent].point)
            level = [agent for agent, one in ends.items() if agent != best and order(ends[best], one) == "level"]
            beside = f" (not apart: {', '.join(level)})" if level else " (apart from all others)"
            parts.append(f"{best} on {short(dataset)}{beside}")
    return f"The highest last score has {listed(parts)}." if parts else ""


def _over_all(found: Offline) -> str:
    """Who lies apart from cloning over all data sets together."""
    if "bc" not in found.agents or len(found.datasets) < 2:
        return ""
    cloned, sides = over_datasets(found, "bc"), dict[str, list[str]]()
    for agent in found.agents:
        over = over_datasets(found, agent)
        if agent != "bc" and math.isfinite(over.low) and math.isfinite(cloned.low):
            sides.setdefault(order(over, cloned), []).append(agent)
    texts = {"above": "above cloning's", "below": "below it", "level": "not apart from it"}
    parts = [f"{text}: {listed(sides[side])}" for side, text in texts.items() if side in sides]
    return f"Over all data sets together, intervals {'; '.join(parts)}." if parts else ""


def _cloning(found: Offline) -> str:
    """Who lies apart from cloning, and where."""
    if "bc" not in found.agents:
        return ""
    parts = []
    for agent in [name for name in found.agents if name != "bc"]:
        pairs = [(_interval(found, agent, name), _interval(found, "bc", name)) for name in found.datasets]
        sides = [order(*pair) for pair in pairs if all(math.isfinite(one.low) for one in pair)]
        parts.append(f"{agent} above on {sides.count('above')} and below on {sides.count('below')}")
    number = f"of {len(found.datasets)} data sets" if len(found.datasets) > 1 else "on one data set"
    return f"Against cloning (bc), by whose intervals lie apart, {number}: {'; '.join(parts)}." if parts else ""


def _data(found: Offline) -> str:
    """On how many data sets an agent's interval lies above what is in the data."""
    parts = []
    for agent in found.agents:
        above = [name for name in found.datasets if _interval(found, agent, name).low > found.of_data(name)]
        parts.append(f"{agent} {len(above)}")
    return f"Data sets on which the interval lies above the mean of the data's episodes: {', '.join(parts)}."


def _random(found: Offline) -> str:
    """Whose interval reaches down to the random policy."""
    parts: dict[str, list[str]] = {}
    for agent in found.agents:
        for name in found.datasets:
            if found.of(agent=agent, dataset=name) and _interval(found, agent, name).low <= 0.0:
                parts.setdefault(agent, []).append(short(name))
    told = "; ".join(f"{agent} on {listed(names)}" for agent, names in parts.items())
    return f"No better than the random policy, or not told apart from it: {told}." if told else ""


def _gap(found: Offline) -> str:
    """Where choosing the best evaluation would flatter most."""
    gaps = {
        (agent, name): interval(found.scores("score_best", agent=agent, dataset=name)).point
        - _interval(found, agent, name).point
        for agent in found.agents
        for name in found.datasets
        if found.of(agent=agent, dataset=name)
    }
    gaps = {key: gap for key, gap in gaps.items() if math.isfinite(gap)}
    if not gaps:
        return ""
    agent, name = max(gaps, key=lambda key: gaps[key])
    return (
        f"The best evaluation would flatter most for {agent} on {short(name)}: {gaps[agent, name]:.1f} above the last."
    )


def _lost(found: Offline) -> str:
    """Members that diverged."""
    lost = [row for row in found.members if not math.isfinite(number(row, "score_last"))]
    if not lost:
        return "No member diverged."
    where = dict.fromkeys(f"{row['agent']} on {short(row['dataset'])}" for row in lost)
    return f"{len(lost)} of {len(found.members)} members diverged: {listed(list(where))}."
