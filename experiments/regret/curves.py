"""Plays tabular agents in a study and tells how their regret grows."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

import agents
from pbrl import rng
from pbrl.data.files import replacing
from pbrl.members import sweep
from pbrl.theory.dueling import duel
from pbrl.theory.every_episode import ucbvi_every_episode
from pbrl.theory.measures import share
from pbrl.theory.regret import RegretTrace, play

from .studies import Study, dueling_spec

COLUMNS = ("learner", "seed", "episodes", "regret", "violating_episodes", "least_value")


@dataclass(frozen=True)
class Curve:
    """What one kind of learner did.

    Attributes:
        name: the agent and the settings that were varied.
        trace: of all its seeds.
        seconds: that it took.
    """

    name: str
    trace: RegretTrace
    seconds: float


def learner(name: str, study: Study, seeds: Sequence[int], settings: Mapping[str, Any]) -> Any:
    """A stack of a tabular agent, one member per seed, with those of the settings that it has."""
    found = agents.find_tabular(name)
    known = {field.name for field in fields(found.config)}
    return found.make(study.spec, sweep(found.config(**{k: v for k, v in settings.items() if k in known}), seeds))


def run(
    name: str,
    study: Study,
    seeds: Sequence[int],
    episodes: int,
    growth: float,
    settings: Mapping[str, Any],
    watch: Callable[[int], object] = bool,
) -> Curve:
    """One agent's curve. UCBVI that plans for every episode (``growth`` 0) is compiled.

    Learners from preferences play two episodes a round and plan for every one.
    """
    began = time.perf_counter()
    if name in agents.dueling_names():
        asking = agents.find_dueling(name)
        known = {field.name for field in fields(asking.config)}
        members = sweep(asking.config(**{k: v for k, v in settings.items() if k in known}), seeds)
        played = duel(asking.make(dueling_spec(study), members), study.mdp, max(1, episodes // 2)).regret
        return Curve(name, played, time.perf_counter() - began)
    if name == "ucbvi" and growth == 0.0 and study.mdp.reward.ndim == 3 and study.spec.offline is None:
        config = agents.find_tabular(name).config
        chosen = config(**{key: value for key, value in settings.items() if key in ("delta", "width")})
        same = np.ones(len(seeds))
        keys = rng.keys(seeds).numpy()
        trace = ucbvi_every_episode(study.mdp, episodes, keys, chosen.delta * same, chosen.width * same)
        return Curve(name, trace, time.perf_counter() - began)
    trace = play(learner(name, study, seeds, settings), study.mdp, episodes, growth=growth, watch=watch)
    return Curve(name, trace, time.perf_counter() - began)


def decades(episodes: int) -> list[tuple[float, float]]:
    """The last three decades of a run, or as many as it has, the last one first."""
    return [(episodes / 10 ** (i + 1), episodes / 10**i) for i in range(3) if episodes / 10 ** (i + 1) >= 1]


def row(curve: Curve, study: Study) -> tuple[str, ...]:
    """Cells: learner, regret, slopes of the last decades, violating seeds with their bound, least value, seconds."""
    trace = curve.trace
    slopes = [trace.slope(low, high) for low, high in decades(trace.episodes)]
    bad = int((trace.violations(study.threshold) > 0).sum())
    regret = trace.at([trace.episodes])[:, 0]
    return (
        curve.name,
        f"{regret.mean():.4g}",
        "  ".join(f"{s.estimate:.2f} [{s.low:.2f}, {s.high:.2f}]" for s in slopes) or "-",
        f"{bad} of {len(regret)} (< {share(bad, len(regret)).high:.3g})",
        f"{trace.value.min():.4g}",
        f"{curve.seconds:.1f}",
    )


HEADER = ("learner", "regret", "slopes, last decade first", "seeds that violate (95 %)", "least value", "seconds")


def write(curves: Sequence[Curve], study: Study, seeds: Sequence[int], path: Path) -> None:
    """A CSV: cumulative regret of every seed on a log grid of episodes."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for curve in curves:
            when = curve.trace.grid(1, curve.trace.episodes)
            regret, bad = curve.trace.at(when), curve.trace.violations(study.threshold)
            least = curve.trace.value.min(0)
            for p, seed in enumerate(seeds):
                for k, value in zip(when, regret[p]):
                    table.writerow([curve.name, seed, int(k), f"{value:.9g}", int(bad[p]), f"{least[p]:.9g}"])
