"""EpsMix: conservative exploration by a coin per episode (Li, Huang, Shen & Yang, ICML 2023).

As StepMix, but whole episodes are mixed: with probability epsilon the greedy policy pi of upper values is played, else
the baseline, with epsilon = (LCB(baseline) - threshold) / (LCB(baseline) - LCB(pi)), 1 where LCB(pi) reaches the
threshold, and 0 where not even the baseline is certified.

The constraint holds for the value of the mixture, the *expectation over the coin*: a realised episode may be one of the
unsafe branch.

Deviations: those of StepMix.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pbrl.theory.learner import Plan

from .step_mix import StepMix, StepMixConfig


@dataclass(frozen=True)
class EpsMixConfig(StepMixConfig):
    """Settings of EpsMix."""


class EpsMix(StepMix):
    """Stacked EpsMix."""

    def plan(self, _: int, /) -> Plan:
        """The greedy policy and the baseline, with their weights."""
        policies, lower, upper = self.candidates()
        greedy, safe = lower[:, 0], lower[:, -1]
        mixes = (greedy < self.threshold) & (safe >= self.threshold)
        share = (safe - self.threshold) / np.where(mixes, safe - greedy, 1.0)
        weight = np.where(mixes, share, (greedy >= self.threshold).astype(np.float64))
        weights = np.stack([weight, 1.0 - weight], axis=1)
        certified = np.where(mixes, self.threshold, np.where(weight > 0.0, greedy, safe))
        return Plan(policies[:, [0, -1]], weights, certified, upper)
