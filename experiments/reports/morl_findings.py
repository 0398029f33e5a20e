"""What the study of fronts shows, in sentences made from the numbers."""

from __future__ import annotations

import math

from .morl_rows import Fronts
from .morl_tables import short
from .preference_findings import listed

PLAIN, EXTENDED, LAGRANGIAN, SWEEP = "c_morl, no extension", "c_morl", "c_morl, lagrangian", "ppo"
SIMULATED = "mo-"
"""How the ids of MuJoCo tasks begin."""


def findings(study: Fronts) -> list[str]:
    """Sentences; those whose rows are missing are left out."""
    told = [
        _beside(study, EXTENDED, PLAIN, "The extension stage, beside the first stage that goes on instead,"),
        _beside(study, EXTENDED, LAGRANGIAN, "The barrier, beside the Lagrangian,"),
        _beside(study, EXTENDED, SWEEP, "C-MORL, beside the last policies of the fixed-weight sweep,"),
        _known(study),
        _drawn(study),
        _still(study),
        _served(study),
    ]
    return [sentence for sentence in told if sentence]


def in_short(study: Fronts) -> list[str]:
    """Who is above whom on which tasks, what is found of the known fronts, and what is worth nothing."""
    told = [
        _apart(study, EXTENDED, PLAIN, "The extension stage (c_morl), beside the first stage that goes on instead,"),
        _simulated(study),
        _apart(study, EXTENDED, LAGRANGIAN, "The barrier (c_morl), beside the Lagrangian,"),
        _apart(study, EXTENDED, SWEEP, "C-MORL, beside the last policies of the fixed-weight sweep (ppo),"),
        _known(study),
        _still(study),
    ]
    return [sentence for sentence in told if sentence]


def _apart(study: Fronts, one: str, other: str, what: str) -> str:
    """The tasks on which every seed agrees on which of two agents has the larger hypervolume, and the others."""
    sides: dict[str, list[str]] = {"raises": [], "lowers": [], "differ": []}
    for env in study.tasks:
        mine, theirs = (study.values("hypervolume", env=env, agent=agent) for agent in (one, other))
        if not mine or not theirs:
            continue
        above, below = (all(sign * a > sign * b for a, b in zip(mine, theirs)) for sign in (1.0, -1.0))
        base, won = sum(theirs), sum(mine) - sum(theirs)
        change = f"{100 * won / base:+.1f} %" if base > 0 else "from 0" if won > 0 else "0"
        sides["raises" if above else "lowers" if below else "differ"].append(f"{env} ({change})")
    if not any(sides.values()):
        return ""
    parts = [f"{side} the hypervolume of every seed on" for side in ("raises", "lowers")]
    parts = [f"{text} {listed(sides[side])}" for text, side in zip([*parts, "seeds differ on"], sides) if sides[side]]
    return f"{what} {'; '.join(parts)}."


def _simulated(study: Fronts) -> str:
    """What the extension stage adds on MuJoCo's tasks."""
    pairs = [
        tuple(study.values("hypervolume", env=env, agent=agent) for agent in (EXTENDED, PLAIN))
        for env in study.tasks
        if env.startswith(SIMULATED)
    ]
    pairs = [(mine, theirs) for mine, theirs in pairs if mine and theirs]
    means = sum(sum(mine) > sum(theirs) for mine, theirs in pairs)
    every = sum(all(a > b for a, b in zip(mine, theirs)) for mine, theirs in pairs)
    told = f"On {means} of {len(pairs)} MuJoCo tasks the extension stage raises the mean hypervolume"
    return f"{told}, on {every} that of every seed." if pairs else ""


def _beside(study: Fronts, one: str, other: str, what: str) -> str:
    """How two agents' hypervolumes differ, seed by seed: equal seeds have had the same first stage."""
    parts = []
    for env in study.tasks:
        mine, theirs = (study.values("hypervolume", env=env, agent=agent) for agent in (one, other))
        if not mine or not theirs:
            continue
        higher, lower = (sum(sign * a > sign * b for a, b in zip(mine, theirs)) for sign in (1.0, -1.0))
        base, won = sum(theirs), sum(mine) - sum(theirs)
        change = f"by {100 * won / base:+.1f} %" if base > 0 else "from 0" if won > 0 else "by nothing"
        parts.append(f"{change} on {env} (higher on {higher}, lower on {lower} of {len(mine)} seeds)")
    return f"{what} changes the mean hypervolume {listed(parts)}." if parts else ""


def _known(study: Fronts) -> str:
    """How much of the known fronts is found."""
    parts = []
    for env in study.tasks:
        known = study.values("known_hypervolume", env=env)
        if not known or math.isnan(known[0]):
            continue
        shares = {}
        for agent in study.agents:
            if values := study.values("hypervolume", env=env, agent=agent):
                shares[agent] = sum(values) / len(values) / known[0]
        best = max(shares, key=lambda agent: shares[agent])
        parts.append(f"{100 * shares[best]:.1f} % on {env} ({best})")
    return f"Of the hypervolume of the known fronts, the best way's mean reaches {listed(parts)}." if parts else ""


def _drawn(study: Fronts) -> str:
    """What the sets are worth when actions are drawn as in training, where that was measured."""
    parts = []
    for env in study.tasks:
        for agent in study.agents:
            values = study.values("drawn_hypervolume", env=env, agent=agent)
            if values and all(map(math.isfinite, values)):
                parts.append(f"{short(sum(values) / len(values))} for {agent} on {env}")
    told = "With actions drawn as in training (limits may be held by chance moves), the mean hypervolume is"
    return f"{told} {listed(parts)}." if parts else ""


def _still(study: Fronts) -> str:
    """Which sets are worth no more than doing nothing."""
    level = []
    for env in study.tasks:
        for agent in study.agents:
            rows = study.values("hypervolume", env=env, agent=agent)
            still = study.values("still_hypervolume", env=env, agent=agent)
            beaten = sum(value <= nothing for value, nothing in zip(rows, still))
            if beaten:
                level.append(f"{agent} on {env} ({beaten} of {len(rows)} seeds)")
    if not level:
        return "Every front has a larger hypervolume than doing nothing."
    return f"No larger hypervolume than doing nothing: {listed(level)}."


def _served(study: Fronts) -> str:
    """What is lost by an archive that takes its policies for what few greedy episodes of training gained."""
    parts = []
    for env in study.tasks:
        best, served = (study.values(name, env=env, agent=EXTENDED) for name in ("expected_utility", "served_utility"))
        pairs = [(a, b) for a, b in zip(best, served) if math.isfinite(a) and math.isfinite(b)]
        if pairs:
            mean = [sum(side) / len(pairs) for side in zip(*pairs)]
            parts.append(f"{short(mean[1])} of {short(mean[0])} on {env}")
    told = "Served by what its archive takes the policies for, C-MORL's expected utility is, of the best possible,"
    return f"{told} {listed(parts)}." if parts else ""
