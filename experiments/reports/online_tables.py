"""The tables of the study of agents that go online: what each gained and lost, and what it missed on the way."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan

from .online_findings import BASELINE, side
from .online_rows import OnlineStudy
from .page import Table
from .preference_rows import short
from .score_tables import interval, interval_text


def change_table(study: OnlineStudy) -> Table:
    """A line per data set and agent: scores before, last and best, the dip, and the gain of each member."""
    lines = []
    for dataset in study.datasets:
        for agent in study.agents:
            wanted = {"dataset": dataset, "agent": agent}
            if not (rows := study.of(**wanted)):
                continue
            names = ("score_offline", "score_last", "score_best", "score_dip")
            cells = [interval_text(study.column(name, **wanted)) for name in names]
            rose = sum(gain > 0 for gain in study.gains(**wanted))
            gains = interval_text(study.gains(**wanted))
            lines.append((short(dataset), agent, *cells, gains, f"{rose} of {len(rows)}"))
    episodes = either(sorted({int(row["episodes"]) for row in study.members}))
    return Table(
        header=("data", "agent", "offline", "last", "best", "dip", "gain", "rose"),
        rows=tuple(lines),
        words=2,
        caption="Scores of greedy episodes in environments of their own "
        f"({episodes} per evaluation, the same every time): interquartile mean over {_seeds(study)} seeds "
        "[95 % bootstrap interval]; 0 = random policy, 100 = the best policy of the run that made the data. Offline: "
        "before the first step online. Best: each seed at its best evaluation, which flatters. Dip: how far the worst "
        "evaluation online lies below the offline score. Gain: each seed's last score less its own offline score. "
        "Rose: the seeds whose gain is above 0.",
    )


MARKS = {"lower": " ↓", "higher": " ↑", "not told apart": ""}


def short_table(study: OnlineStudy) -> Table:
    """A line per agent: on each data set the score before and after, and the regret, in two columns."""
    lines = []
    for agent in study.agents:
        cells = []
        for name in study.datasets:
            wanted = {"dataset": name, "agent": agent}
            before, after = (interval(study.column(which, **wanted)).point for which in ("score_offline", "score_last"))
            regret = interval(study.column("regret", **wanted)).point
            mark = "" if agent == BASELINE else MARKS[side(study, agent, name)]
            cells += ["-", "-"] if isnan(before) else [f"{before:.1f} → {after:.1f}", f"{regret:.1f}{mark}"]
        lines.append((agent, *cells))
    return Table(
        header=("agent", *(head for name in study.datasets for head in (short(name), "regret"))),
        rows=tuple(lines),
        words=1,
        caption="Score before the first step online → after the last; regret: what is missing to a score of 100 "
        f"on average over the steps online, {MARKS['lower']} where its interval lies below that of {BASELINE}, "
        f"{MARKS['higher']} above. Interquartile means over {_seeds(study)} seeds; 0 = random policy, 100 = the best "
        "policy of the run that made the data.",
    )


def regret_table(study: OnlineStudy) -> Table:
    """A line per agent: what was missing to 100 on average over the steps online."""
    lines = []
    for agent in study.agents:
        found = [study.column("regret", dataset=name, agent=agent) for name in study.datasets]
        lines.append((agent, *(interval_text(cell) if cell else "-" for cell in found)))
    steps = {name: sorted({int(row["env_steps"]) for row in study.of(dataset=name)}) for name in study.datasets}
    told = ", ".join(f"{short(name)} {' to '.join(str(n) for n in _ends(counts))}" for name, counts in steps.items())
    return Table(
        header=("agent", *map(short, study.datasets)),
        rows=tuple(lines),
        words=1,
        caption="Regret: what an evaluation misses to a score of 100, on average over the environment steps online "
        f"(straight lines between evaluations), interquartile mean over {_seeds(study)} seeds [95 % bootstrap "
        f"interval]; times the number of steps ({told}) it is the cumulative regret.",
    )


def either(counts: Sequence[int]) -> str:
    """``1,000 or 2,500``."""
    return " or ".join(f"{count:,}" for count in counts)


def _ends(counts: list[int]) -> list[int]:
    return counts[:1] if len(counts) == 1 else [counts[0], counts[-1]]


def _seeds(study: OnlineStudy) -> int:
    return len({row["seed"] for row in study.members})
