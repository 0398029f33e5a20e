"""UCBVI: optimism in the face of uncertainty by value iteration (Azar, Osband & Munos, ICML 2017).

    U_h(s) = max_a min(r + (H - h), r + estimate U_{h+1} + width (H - h) sqrt(L / (2 n)))

for stages h = 1..H, with L = log(2 S A H / delta) + log(e (1 + n)), and plays the greedy policy of U. This is "plain
optimism": it knows no baseline and no threshold.

Deviations:
- The bonus is Hoeffding's for the one fixed V*, uniform in n, of stage-dependent counts: valid with probability
  1 - delta, with its constants (``pbrl/theory/model.py``); the paper's two bonuses have larger ones.
- It may plan anew only when the number of episodes has grown by some percent (the loop decides).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pbrl.members import Members, check_range
from pbrl.theory.learner import Metrics, Plan, TabularSpec
from pbrl.theory.mdps import Floats
from pbrl.theory.model import CountedModel, column, hoeffding
from pbrl.theory.optimism import optimistic


@dataclass(frozen=True)
class UCBVIConfig:
    """Settings of UCBVI."""

    delta: float = 0.1
    """Probability that a confidence bound fails, over all episodes."""
    width: float = 1.0
    """Factor on the bonus: 1 is what the proof needs, less is a heuristic."""

    def __post_init__(self) -> None:
        check_range(self, "delta", 0.0, 1.0, open_low=True)
        check_range(self, "width", 0.0)


class UCBVI:
    """Stacked UCBVI."""

    def __init__(self, spec: TabularSpec, members: Members[UCBVIConfig]) -> None:
        self.model = CountedModel(spec, members)
        self.delta, self.width = column(members, "delta"), column(members, "width")

    @property
    def keys(self) -> NDArray[np.int64]:
        """[P] the members' keys."""
        return self.model.keys

    @property
    def episodes(self) -> int:
        """How many episodes have been seen."""
        return self.model.episodes

    def plan(self, _: int, /) -> Plan:
        """The greedy policy of the upper values."""
        upper, policy = self.optimism()
        return Plan.single(policy, upper=self.model.from_start(upper[:, 0]))

    def optimism(self) -> tuple[Floats, Floats]:
        """Upper values [P, H + 1, S] and their greedy policy [P, H, S, A]."""
        model = self.model
        return optimistic(model.law, model.reward, self.scaled(hoeffding(model.visits, self.delta)))

    def scaled(self, bound: Floats) -> Floats:
        """A bound [P, H, S, A] times the members' widths; of an infinite one nothing is left at width 0."""
        width = self.width[:, None, None, None]
        return np.where(width > 0.0, np.maximum(width, 1e-300) * bound, 0.0)

    def update(self, counts: Floats, episodes: int) -> Metrics:
        """Count."""
        return self.model.add(counts, episodes)

    def state_dict(self) -> dict[str, Any]:
        """The counts."""
        return self.model.state_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restores the counts."""
        self.model.load_state_dict(state_dict)
