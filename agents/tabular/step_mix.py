"""StepMix: conservative exploration, safe in every episode, by mixing at one step (Li, Huang, Shen & Yang, ICML 2023).

Each episode's policy must be worth at least a threshold, as a safe baseline is. Let pi be the greedy policy of upper
values, pi^j the policy that plays the baseline before stage j and pi from there on (pi^0 is pi, pi^H the baseline), and
LCB a lower bound that holds for all policies at once:

- LCB(pi^0) >= threshold: play pi. Otherwise, LCB(pi^H) < threshold: play the baseline.
- Else take the least j with LCB(pi^j) >= threshold and play pi^j, mixed at stage j - 1: there the baseline has weight
  rho = (threshold - LCB(pi^{j-1})) / (LCB(pi^j) - LCB(pi^{j-1})).

With probability at least 1 - delta no episode violates; the regret keeps its order, the price of safety is additive.

Deviations:
- "rigorous" widths, the default: the lower bound is the worst case over the L1 balls of ``pbrl.theory.model`` (a robust
  dynamic program), and the upper one Hoeffding's, each at delta / 2: valid as they stand. The lower bound is concave in
  rho, so rho needs no search. "paper" widths follow the published form with constants from memory (``Bernstein``).
- The baseline may be learned from recorded transitions (cloned, or pessimistic); these then also count as experience.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from pbrl.members import Members, shared
from pbrl.theory.baselines import Origin, baseline_of, threshold_of
from pbrl.theory.learner import Plan, TabularSpec
from pbrl.theory.mdps import Floats
from pbrl.theory.model import hoeffding, l1_radius
from pbrl.theory.optimism import Bernstein, optimistic
from pbrl.theory.robust import worst_policy_value

from .ucbvi import UCBVI, UCBVIConfig


@dataclass(frozen=True)
class StepMixConfig(UCBVIConfig):
    """Settings of StepMix."""

    widths: Literal["rigorous", "paper"] = shared("rigorous")
    """Confidence widths: proved as they stand, or of the published form (practical)."""
    baseline: Origin = shared("given")
    """The safe policy: given, or from offline transitions cloned or pessimistic."""


class StepMix(UCBVI):
    """Stacked StepMix."""

    def __init__(self, spec: TabularSpec, members: Members[StepMixConfig]) -> None:
        super().__init__(spec, members)
        self.config = members.shared
        self.baseline = baseline_of(spec, self.config.baseline, self.delta)
        self.threshold = threshold_of(spec, len(members))

    def plan(self, _: int, /) -> Plan:
        """The mixture of the docstring, per member."""
        policies, lower, upper = self.candidates()
        horizon, size = self.baseline.shape[1], np.arange(len(lower))
        safe = lower >= self.threshold[:, None]
        first = np.where(safe.any(1), safe.argmax(1), horizon)  # the least safe j; the baseline where none is
        before = np.maximum(first - 1, 0)
        low, high = lower[size, before], lower[size, first]
        mixes = (first > 0) & safe[size, first] & safe[:, -1]
        weight = np.where(mixes, (self.threshold - low) / np.where(mixes, high - low, 1.0), 1.0)[:, None, None, None]
        policy = weight * policies[size, first] + (1.0 - weight) * policies[size, before]
        return Plan.single(policy, np.where(mixes, self.threshold, high), upper)

    def candidates(self) -> tuple[Floats, Floats, Floats]:
        """The policies pi^j [P, H + 1, H, S, A], their lower bounds [P, H + 1], and the upper bound on V* [P]."""
        model, horizon = self.model, self.baseline.shape[1]
        visits, law, half = model.visits, model.law, self.delta / 2
        if self.config.widths == "paper":
            bounds = Bernstein(law, model.reward, visits, half, self.width)
            upper, _, greedy = bounds.upper()
        else:
            upper, greedy = optimistic(law, model.reward, self.scaled(hoeffding(visits, half)))
        stage, switch = np.arange(horizon), np.arange(horizon + 1)
        keeps = (stage < switch[:, None])[..., None, None]  # [H + 1, H, 1, 1]
        policies = np.where(keeps, self.baseline[:, None], greedy[:, None])
        if self.config.widths == "paper":
            lower = np.stack([bounds.policy_lower(policies[:, j], upper)[:, 0] for j in switch], axis=1)
        else:
            radius = self.scaled(l1_radius(visits, half))
            lower = worst_policy_value(law[:, None], model.reward[:, None], policies, radius[:, None])[:, :, 0]
        return policies, (lower * model.spec.start).sum(-1), model.from_start(upper[:, 0])
