"""The options of ``pbrl train`` for population-based training. Their docstrings are the command line's help."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import tyro

from pbrl.errors import InputError

Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help_behavior_hint="")]


@dataclass(frozen=True)
class PopulationOptions:
    """Population-based training (Jaderberg et al. 2017), for any agent.

    All members of the run are one population. From time to time they are ranked; the worst become copies of the best
    (weights, optimiser, statistics and settings) and go on with varied settings, each with its own seed, replay and
    running episodes. The settings in members.csv are those at the beginning; lineage.csv tells the rest.
    """

    population_based: Flag = False
    """Train the members as such a population."""
    exploit_every: int = 1
    """Evaluations between turns. Members are ranked by what was evaluated since the last turn: score or return (of an
    agent with an archive the hypervolume of its front), with --episodes 0 the returns of their training episodes, and
    without a simulator the held-out labels."""
    exploit_share: float = 0.2
    """Share of the members that is replaced, by copies of as many of the best; at most one half."""
    explore: tuple[str, ...] = ()
    """Settings that a copy varies, such as lr entropy_weight. By default those that have several values, or lr."""
    explore_factors: tuple[float, float] = (0.8, 1.2)
    """A copy multiplies each of these settings by one of the two, at even chances."""
    explore_range: tuple[float, float] = (0.1, 10.0)
    """They stay between these multiples of the smallest and the largest value at the beginning."""
    explore_resample: float = 0.0
    """Chance that a setting is drawn anew from this range instead, evenly by its logarithm."""

    def __post_init__(self) -> None:
        if self.exploit_every < 1:
            raise InputError(f"exploit_every is {self.exploit_every}, expected at least 1")
        if not 0.0 < self.exploit_share <= 0.5:
            raise InputError(f"exploit_share is {self.exploit_share:g}, expected above 0 and at most 0.5")
        if not all(0.0 < factor < math.inf for factor in self.explore_factors) or self.explore_factors == (1.0, 1.0):
            found = " ".join(f"{factor:g}" for factor in self.explore_factors)
            raise InputError(f"explore_factors are {found}, expected two numbers above 0 that are not both 1")
        low, high = self.explore_range
        if not 0.0 < low <= 1.0 <= high < math.inf or low == high:
            raise InputError(f"explore_range is {low:g} {high:g}, expected one at most 1 and one at least 1, above 0")
        if not 0.0 <= self.explore_resample <= 1.0:
            raise InputError(f"explore_resample is {self.explore_resample:g}, expected at least 0 and at most 1")
        if len(set(self.explore)) < len(self.explore):
            raise InputError(f"explore has {' '.join(self.explore)}, expected each setting once")
