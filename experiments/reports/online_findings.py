"""What the study of agents that go online shows, in sentences that follow from its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan

from pbrl.statistics import Interval

from .online_rows import OnlineStudy
from .preference_findings import listed
from .preference_rows import short
from .score_tables import interval

FAMILY = ("fam_o2o", "ro2o", "uni_o4")
"""Agents that were made to go online."""
BASELINE = "iql"
GAINS, SAVINGS = 2, 1
"""What was asked of each of the family: gains on so many data sets, and a lower regret on so many."""
REASONS = {"score_offline": "begins at", "score_dip": "dips by", "gain": "gains"}


def findings(study: OnlineStudy) -> list[str]:
    """Of the agents made to go online whether they reach what was asked, and why not; of the others where they gain."""
    sentences = []
    for agent in FAMILY:
        if agent in study.agents:
            sentences += [_improves(study, agent), _saves(study, agent)]
    return sentences + [_gains(study, agent) for agent in study.agents if agent not in FAMILY]


def in_short(study: OnlineStudy) -> list[str]:
    """A line per agent: where it gains, and where its regret lies apart from the baseline's; the family first."""
    others = [agent for agent in study.agents if agent not in FAMILY]
    return [_aims(study, agent) for agent in (*FAMILY, *others) if agent in study.agents]


def aims(study: OnlineStudy) -> str:
    """What the family was to reach, before the sentences that say whether it did; "" without any of it."""
    family = [agent for agent in FAMILY if agent in study.agents]
    if not family:
        return ""
    return (
        f"What {listed(family)} were to reach: a gain online on {GAINS} data sets at least, and on {SAVINGS} a lower "
        f"regret than fine-tuned {BASELINE}'s. By whose intervals lie apart:"
    )


def gained(study: OnlineStudy, agent: str) -> list[str]:
    """The data sets on which an agent's gain over its own offline score is above 0 with its whole interval."""
    return [name for name in study.datasets if _of(study, "gain", agent, name).low > 0]


def saved(study: OnlineStudy, agent: str) -> list[str]:
    """The data sets on which an agent's regret is lower than the baseline's, and the intervals lie apart."""
    return [name for name in study.datasets if side(study, agent, name) == "lower"]


def wasted(study: OnlineStudy, agent: str) -> list[str]:
    """The data sets on which an agent's regret is higher than the baseline's, and the intervals lie apart."""
    return [name for name in study.datasets if side(study, agent, name) == "higher"]


def side(study: OnlineStudy, agent: str, name: str) -> str:
    """Where the interval of an agent's regret lies beside the baseline's: "lower", "higher", or "not told apart"."""
    own, other = (_of(study, "regret", each, name) for each in (agent, BASELINE))
    return "lower" if own.high < other.low else "higher" if own.low > other.high else "not told apart"


def lost(study: OnlineStudy, agent: str) -> list[str]:
    """The data sets on which an agent's gain is below 0 with its whole interval."""
    return [name for name in study.datasets if _of(study, "gain", agent, name).high < 0]


def _of(study: OnlineStudy, what: str, agent: str, name: str) -> Interval:
    """The gain, or a column, of an agent on a data set; NaN where it is missing."""
    wanted = {"agent": agent, "dataset": name}
    return interval(study.gains(**wanted) if what == "gain" else study.column(what, **wanted))


def _gains(study: OnlineStudy, agent: str) -> str:
    rises = gained(study, agent)
    falls = lost(study, agent)
    parts = [f"gains online on {_names(rises)}"] if rises else []
    parts += [f"loses on {_names(falls)}"] if falls else []
    rest = [name for name in study.datasets if name not in (*rises, *falls) and study.of(agent=agent, dataset=name)]
    parts += [f"cannot be told from its offline score on {_names(rest)}"] if rest else []
    return f"{agent} {', '.join(parts)} (intervals of the gain)."


def _aims(study: OnlineStudy, agent: str) -> str:
    """Both aims of an agent in one sentence, with a verdict for those that had them."""
    rises, falls, lower, higher = gained(study, agent), lost(study, agent), saved(study, agent), wasted(study, agent)
    aims = [(GAINS, len(rises)), (SAVINGS, len(lower))]
    asked = [f" (aim: {least}, {'' if many >= least else 'not '}reached)" for least, many in aims]
    asked = asked if agent in FAMILY else ["", ""]
    text = f"{agent} gains online on {_names(rises)}{asked[0]}" + (f", loses on {_names(falls)}" if falls else "")
    if agent == BASELINE or BASELINE not in study.agents:
        return f"{text}."
    above = [f"{short(name)}{_why(study, agent, name, ('score_offline',))}" for name in higher]
    text += f"; its regret is lower than that of fine-tuned {BASELINE} on {_names(lower)}{asked[1]}"
    return f"{text}{', higher on ' if above else ''}{listed(above) if above else ''}."


def _improves(study: OnlineStudy, agent: str) -> str:
    """Whether an agent gains on as many data sets as were asked for; where it does not, what it did."""
    rises = gained(study, agent)
    verdict = "reached" if len(rises) >= GAINS else "not reached"
    told = f"{agent} improves online over its own offline score on {_names(rises)} (aim: {GAINS}, {verdict})"
    rest = [name for name in study.datasets if name not in rises and study.of(agent=agent, dataset=name)]
    parts = []
    for name in rest if len(rises) < GAINS else ():
        gain, dip = (_of(study, what, agent, name) for what in ("gain", "score_dip"))
        parts.append(
            f"{short(name)} {gain.point:+.1f} [{gain.low:.1f}, {gain.high:.1f}], with a dip of {dip.point:.1f}"
        )
    return f"{told}{': ' if parts else ''}{'; '.join(parts)}."


def _saves(study: OnlineStudy, agent: str) -> str:
    """Whether an agent's regret is below the baseline's as often as was asked for, and what part its start has."""
    lower = saved(study, agent)
    verdict = "reached" if len(lower) >= SAVINGS else "not reached"
    parts = []
    for name in study.datasets:
        own, other = (_of(study, "regret", each, name) for each in (agent, BASELINE))
        if isnan(own.point) or isnan(other.point):
            continue
        told = f"{short(name)} {side(study, agent, name)}, {own.point:.1f} against {other.point:.1f}"
        parts.append(f"{told}{_why(study, agent, name)}")
    if not parts:
        return f"Regret of {agent}: there is no {BASELINE} to compare it with."
    asked = f"aim: {SAVINGS}, {verdict}"
    return f"{agent} has a lower regret than fine-tuned {BASELINE} on {_names(lower)} ({asked}): {'; '.join(parts)}."


def _why(study: OnlineStudy, agent: str, name: str, told: Sequence[str] = tuple(REASONS)) -> str:
    """What tells the two apart: the score that they begin with, the dip, and the gain, where they differ by a point."""
    parts = []
    for what in told:
        own, other = (_of(study, what, each, name).point for each in (agent, BASELINE))
        if abs(own - other) >= 1.0:
            parts.append(f"{REASONS[what]} {own:.1f} against {other:.1f}")
    return f" ({', '.join(parts)})" if parts else ""


def _names(datasets: Sequence[str]) -> str:
    return listed(list(map(short, datasets))) if datasets else "no data set"
