"""The offline study's tables, and what its scores show in sentences made from the numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pbrl.statistics import Interval, iqm, stratified_bootstrap

from .offline_rows import Offline, short
from .page import Table
from .preference_findings import listed, order
from .rows import Row, number
from .score_tables import BOOTSTRAP_SEED, interval, interval_text


def last_table(found: Offline) -> Table:
    """A line per agent: the score after the last update on each data set, and over all."""
    lines = []
    for agent in found.agents:
        cells = [_cell(found.scores(agent=agent, dataset=name)) for name in found.datasets]
        over = over_datasets(found, agent)
        text = "-" if math.isnan(over.point) else f"{over.point:.1f} [{over.low:.1f}, {over.high:.1f}]"
        lines.append((agent, *cells, text))
    data = [found.of_data(name) for name in found.datasets]
    lines.append(("the data", *(f"{score:.1f}" for score in data), f"{np.mean(data):.1f}"))
    return Table(
        header=("agent", *map(short, found.datasets), "all"),
        rows=tuple(lines),
        words=1,
        caption=f"Scores after the last update, the ones to go by: interquartile mean over {_seeds(found)} seeds "
        f"[95 % bootstrap interval], {_episodes(found)} episodes each. {scale_words(found)} All: interquartile mean "
        "over seeds and data sets (interval of a bootstrap within data sets). The data: mean return of their episodes.",
    )


def best_table(found: Offline) -> Table:
    """A line per agent: the score at each seed's best evaluation."""
    return Table(
        header=("agent", *map(short, found.datasets)),
        rows=tuple(
            (agent, *(_cell(found.scores("score_best", agent=agent, dataset=name)) for name in found.datasets))
            for agent in found.agents
        ),
        words=1,
        caption="Best scores, which flatter: each seed at the best of its own evaluations in training.",
    )


def published_table(rows: Sequence[Row]) -> Table:
    """A line per agent: what others have published about D4RL's data sets."""
    datasets = list(dict.fromkeys(row["dataset"] for row in rows))
    found = {(row["agent"], row["dataset"]): row for row in rows}
    agents = list(dict.fromkeys(row["agent"] for row in rows))
    return Table(
        header=("agent", *datasets),
        rows=tuple((agent, *(_published(found.get((agent, name))) for name in datasets)) for agent in agents),
        words=1,
        caption=f"Other data, another simulator, other budgets: last scores on D4RL's own data sets, mean ± standard "
        f"deviation over {rows[0]['seeds']} seeds, as printed by {rows[0]['source']}.",
    )


def scale_words(found: Offline) -> str:
    """What counts 0 and 100."""
    if found.members[0]["source"] == "D4RL":
        return "0 and 100 are D4RL's reference returns, of MuJoCo's simulator of 2020; played in Gymnasium's v4 tasks."
    return "0 = random policy, 100 = the best policy of the run that made the data, which is no expert."


def findings(found: Offline) -> list[str]:
    """Sentences; those whose rows are missing are left out."""
    told = (_best(found), _cloning(found), _data(found), _random(found), _gap(found), _lost(found))
    return [text for text in told if text]


def over_datasets(found: Offline, agent: str) -> Interval:
    """IQM over seeds and data sets, and its interval; NaN where a member diverged or a data set is missing."""
    columns = [found.scores(agent=agent, dataset=name) for name in found.datasets]
    if not all(columns) or len({len(column) for column in columns}) > 1:
        return Interval(math.nan, math.nan, math.nan)
    return stratified_bootstrap(np.array(columns).T, iqm, seed=BOOTSTRAP_SEED)


def _cell(scores: Sequence[float]) -> str:
    return interval_text(scores) if scores else "-"


def _published(row: Row | None) -> str:
    return "-" if row is None else f"{number(row, 'score'):.1f} ± {number(row, 'deviation'):.1f}"


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


def _cloning(found: Offline) -> str:
    """Who lies apart from cloning, and where."""
    if "bc" not in found.agents:
        return ""
    parts = []
    for agent in [name for name in found.agents if name != "bc"]:
        pairs = [(_interval(found, agent, name), _interval(found, "bc", name)) for name in found.datasets]
        sides = [order(*pair) for pair in pairs if all(math.isfinite(one.low) for one in pair)]
        parts.append(f"{agent} above on {sides.count('above')} and below on {sides.count('below')}")
    return (
        f"Against cloning (bc), by whose intervals lie apart, of {len(found.datasets)} data sets: {'; '.join(parts)}."
        if parts
        else ""
    )


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


def _seeds(found: Offline) -> int:
    return len({row["seed"] for row in found.members})


def _episodes(found: Offline) -> str:
    return " or ".join(map(str, sorted({int(row["episodes"]) for row in found.members})))
