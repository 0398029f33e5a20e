"""What the study of agents that go online shows, in sentences that follow from its numbers."""

from __future__ import annotations

from .online_rows import OnlineStudy
from .preference_findings import listed
from .preference_rows import short
from .score_tables import interval

FAMILY = ("fam_o2o", "ro2o", "uni_o4")
"""Agents that were made to go online."""
BASELINE = "iql"


def findings(study: OnlineStudy) -> list[str]:
    """For each agent where it gains online, and for those made for it, whose regret is below plain fine-tuning's."""
    sentences = [_gains(study, agent) for agent in study.agents]
    made = [agent for agent in FAMILY if agent in study.agents]
    if BASELINE in study.agents:
        sentences += [_regret(study, agent) for agent in made]
    if made and BASELINE in study.agents:
        sentences.append(_verdict(study, made))
    return sentences


def gained(study: OnlineStudy, agent: str) -> list[str]:
    """The data sets on which an agent's gain over its own offline score is above 0 with its whole interval."""
    return [name for name in study.datasets if _low(study.gains(agent=agent, dataset=name)) > 0]


def saved(study: OnlineStudy, agent: str) -> list[str]:
    """The data sets on which an agent's regret is lower than the baseline's, and the intervals lie apart."""
    found = []
    for name in study.datasets:
        own = interval(study.column("regret", agent=agent, dataset=name))
        other = interval(study.column("regret", agent=BASELINE, dataset=name))
        if own.high < other.low:
            found.append(name)
    return found


def _low(values: list[float]) -> float:
    return interval(values).low if values else float("nan")


def _gains(study: OnlineStudy, agent: str) -> str:
    rises = gained(study, agent)
    falls = [name for name in study.datasets if interval(study.gains(agent=agent, dataset=name)).high < 0]
    parts = [f"gains online on {listed(list(map(short, rises)))}"] if rises else []
    parts += [f"loses on {listed(list(map(short, falls)))}"] if falls else []
    rest = [name for name in study.datasets if name not in (*rises, *falls) and study.of(agent=agent, dataset=name)]
    parts += [f"cannot be told from its offline score on {listed(list(map(short, rest)))}"] if rest else []
    return f"{agent} {', '.join(parts)} (intervals of the gain)."


def _regret(study: OnlineStudy, agent: str) -> str:
    parts = []
    for name in study.datasets:
        own = interval(study.column("regret", agent=agent, dataset=name))
        other = interval(study.column("regret", agent=BASELINE, dataset=name))
        side = "lower" if own.high < other.low else "higher" if own.low > other.high else "not told apart"
        parts.append(f"{side} on {short(name)} ({own.point:.1f} against {other.point:.1f})")
    return f"Regret of {agent} beside that of fine-tuned {BASELINE}: {', '.join(parts)}."


def _verdict(study: OnlineStudy, made: list[str]) -> str:
    reached = [agent for agent in made if len(gained(study, agent)) >= 2 and saved(study, agent)]
    missed = [agent for agent in made if agent not in reached]
    what = "a gain on at least two data sets and a lower regret than plain fine-tuning on at least one"
    parts = [f"{listed(reached)} {'reach' if len(reached) > 1 else 'reaches'} {what}"] if reached else []
    for agent in missed:
        shy = [] if len(gained(study, agent)) >= 2 else [f"gains on {len(gained(study, agent))}"]
        shy += [] if saved(study, agent) else ["has no lower regret anywhere"]
        parts.append(f"{agent} does not ({' and '.join(shy)})" if reached else f"{agent} {' and '.join(shy)}")
    begin = "" if reached else f"None reaches {what}: "
    return f"{begin}{'; '.join(parts)}."
