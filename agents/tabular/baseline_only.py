"""The baseline and nothing else: what it costs never to explore, a comparator for conservative learners.

Deviations: none, there is no paper.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pbrl.members import Members, shared
from pbrl.theory.baselines import Origin, baseline_of
from pbrl.theory.learner import Metrics, Plan, TabularSpec
from pbrl.theory.mdps import Floats
from pbrl.theory.model import CountedModel


@dataclass(frozen=True)
class BaselineOnlyConfig:
    """Settings of the baseline."""

    baseline: Origin = shared("given")
    """The policy: given, or from offline transitions cloned or pessimistic (at delta 0.1)."""


class BaselineOnly:
    """Stacked baselines."""

    def __init__(self, spec: TabularSpec, members: Members[BaselineOnlyConfig]) -> None:
        self.model = CountedModel(spec, members)
        self.baseline = baseline_of(spec, members.shared.baseline, np.full(len(members), 0.1))

    @property
    def keys(self) -> NDArray[np.int64]:
        """[P] the members' keys."""
        return self.model.keys

    @property
    def episodes(self) -> int:
        """How many episodes have been seen."""
        return self.model.episodes

    def plan(self, _: int, /) -> Plan:
        """The baseline."""
        return Plan.single(self.baseline)

    def update(self, counts: Floats, episodes: int) -> Metrics:
        """Count, though nothing follows from it."""
        return self.model.add(counts, episodes)

    def state_dict(self) -> dict[str, Any]:
        """The counts."""
        return self.model.state_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restores the counts."""
        self.model.load_state_dict(state_dict)
