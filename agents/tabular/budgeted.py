"""Budgeted conservative UCBVI: the threshold holds for the sum of all episodes (after Garcelon et al., AISTATS 2020).

The constraint that StepMix sharpens: sum over episodes of V^{pi_k} >= number of episodes x threshold. What earlier
episodes were certified to be worth beyond the threshold is a budget, which a block of optimistic episodes may spend:

    play pi where budget + episodes (LCB(pi) - threshold) >= 0, else the baseline

So single episodes may be far below the threshold: it is a comparator for StepMix and EpsMix.

Deviations:
- The threshold is a number, not a share of the baseline's value; the lower bound is StepMix's, valid for all policies.
- A block of episodes between two plans is decided about as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pbrl.members import Members
from pbrl.theory.learner import Metrics, Plan, TabularSpec
from pbrl.theory.mdps import Floats

from .step_mix import StepMix, StepMixConfig


@dataclass(frozen=True)
class BudgetedConfig(StepMixConfig):
    """Settings of budgeted conservative UCBVI."""


class Budgeted(StepMix):
    """Stacked budgeted conservative UCBVI."""

    def __init__(self, spec: TabularSpec, members: Members[BudgetedConfig]) -> None:
        super().__init__(spec, members)
        self.budget = np.zeros(len(members))
        self.certain = np.zeros(len(members))
        """[P] what each episode of the present plan is certified to add to the budget."""

    def plan(self, episodes: int, /) -> Plan:
        """The greedy policy where the budget allows it, the baseline elsewhere."""
        policies, lower, upper = self.candidates()
        gain = lower[:, 0] - self.threshold
        bold = self.budget + episodes * gain >= 0.0
        policy = np.where(bold[:, None, None, None], policies[:, 0], policies[:, -1])
        # The baseline is known to reach the threshold, also before its lower bound does.
        self.certain = np.where(bold, gain, np.maximum(lower[:, -1] - self.threshold, 0.0))
        return Plan.single(policy, self.threshold + self.certain, upper)

    def update(self, counts: Floats, episodes: int) -> Metrics:
        """Count, and book what the plan was certified to be worth."""
        self.budget = self.budget + episodes * self.certain
        return {**super().update(counts, episodes), "budget": self.budget}

    def state_dict(self) -> dict[str, Any]:
        """The counts, the budget and the present plan's part in it."""
        return {**super().state_dict(), "budget": self.budget.copy(), "certain": self.certain.copy()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restores them."""
        super().load_state_dict(state_dict)
        self.budget, self.certain = (np.array(state_dict[name], dtype=np.float64) for name in ("budget", "certain"))
