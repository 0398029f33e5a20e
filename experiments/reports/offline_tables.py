"""The offline study's tables."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pbrl.statistics import Interval, iqm, stratified_bootstrap

from .offline_rows import Offline, short
from .page import Table
from .rows import Row, number
from .score_tables import BOOTSTRAP_SEED, interval_text


def last_table(found: Offline, digits: int = 1) -> Table:
    """A line per agent: the score after the last update on each data set, and over all; with ``digits`` decimals."""
    several, lines = len(found.datasets) > 1, []
    over = " All: interquartile mean over seeds and data sets (interval of a bootstrap within data sets)."
    for agent in found.agents:
        cells = [_cell(found.scores(agent=agent, dataset=name), digits) for name in found.datasets]
        lines.append((agent, *cells, *([_over(found, agent, digits)] if several else [])))
    data = [found.of_data(name) for name in found.datasets]
    data += [float(np.mean(data))] if several else []
    lines.append(("the data", *(f"{score:z.{digits}f}" for score in data)))
    return Table(
        header=("agent", *map(short, found.datasets), *(["all"] if several else [])),
        rows=tuple(lines),
        words=1,
        caption=f"Scores after the last update, the ones to go by: interquartile mean over {_seeds(found)} seeds "
        f"[95 % bootstrap interval], {_episodes(found)} episodes each. {scale_words(found)}{over if several else ''} "
        "The data: mean return of their episodes.",
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
    return (
        "0 = random policy, 100 = the best policy of the run that made the data (for Hopper and HalfCheetah no expert)."
    )


def _over(found: Offline, agent: str, digits: int) -> str:
    over = over_datasets(found, agent)
    ends = ", ".join(f"{end:z.{digits}f}" for end in (over.low, over.high))
    return "-" if math.isnan(over.point) else f"{over.point:z.{digits}f} [{ends}]"


def over_datasets(found: Offline, agent: str) -> Interval:
    """IQM over seeds and data sets, and its interval; NaN where a member diverged or a data set is missing."""
    columns = [found.scores(agent=agent, dataset=name) for name in found.datasets]
    if not all(columns) or len({len(column) for column in columns}) > 1:
        return Interval(math.nan, math.nan, math.nan)
    return stratified_bootstrap(np.array(columns).T, iqm, seed=BOOTSTRAP_SEED)


def _cell(scores: Sequence[float], digits: int = 1) -> str:
    return interval_text(scores, digits) if scores else "-"


def _published(row: Row | None) -> str:
    return "-" if row is None else f"{number(row, 'score'):.1f} ± {number(row, 'deviation'):.1f}"


def _seeds(found: Offline) -> int:
    return len({row["seed"] for row in found.members})


def _episodes(found: Offline) -> str:
    return " or ".join(map(str, sorted({int(row["episodes"]) for row in found.members})))
