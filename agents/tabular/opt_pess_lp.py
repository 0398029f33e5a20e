"""OptPess-LP: optimistic objective, pessimistic constraint, by occupancies (after Liu et al., NeurIPS 2021).

Exploration under a hard constraint, as for constrained MDPs in general: here what is constrained, the expected return
of every episode, is also what is maximised. With the estimated transitions, a penalty p_h(s, a) that bounds what they
can be wrong about, and the baseline's certified margin m = V(baseline; r - p) - threshold:

    m <= 0:    play the baseline
    otherwise: max V(pi; r + (1 + 2 H / m) p)  subject to  V(pi; r - p) >= threshold,    a linear program

V(pi; r - p) under the estimate is at most the true value of pi, for all policies at once, so no episode violates. The
large factor on p is what optimism costs where not even the optimal policy is certified: some mixture of it with the
baseline is, and the bonus makes up for the mixing. It is why regret here pays 1 / margin on its leading term, and
StepMix does not.

Deviations:
- p = (H - h - 1) radius / 2 with the L1 radius of ``pbrl/theory/model.py``, and the factor 1 + 2 H / m, are derived
  here; the paper's constants differ, and it takes the baseline's value for known where m is certified by counts.
- One constraint has one multiplier, so the program is solved by bisection over it, for all members at once: its optimum
  is a mixture of the occupancies of two greedy policies.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pbrl.members import Members, shared
from pbrl.theory.baselines import Origin, baseline_of, threshold_of
from pbrl.theory.episodic import occupancy, policy_value
from pbrl.theory.learner import Plan, TabularSpec
from pbrl.theory.mdps import EpisodicMDP, Floats
from pbrl.theory.model import l1_radius

from .ucbvi import UCBVI, UCBVIConfig

BISECTIONS = 50


@dataclass(frozen=True)
class OptPessLPConfig(UCBVIConfig):
    """Settings of OptPess-LP."""

    baseline: Origin = shared("given")
    """The safe policy: given, or from offline transitions cloned or pessimistic."""


class OptPessLP(UCBVI):
    """Stacked OptPess-LP."""

    def __init__(self, spec: TabularSpec, members: Members[OptPessLPConfig]) -> None:
        super().__init__(spec, members)
        self.baseline = baseline_of(spec, members.shared.baseline, self.delta)
        self.threshold = threshold_of(spec, len(members))

    def plan(self, _: int, /) -> Plan:
        """The program's policy where the baseline is certified, else the baseline."""
        model, horizon = self.model, self.baseline.shape[1]
        left = np.arange(horizon - 1, -1, -1.0)[:, None, None]
        penalty = 0.5 * left * self.scaled(l1_radius(model.visits, self.delta))
        safe, law = model.reward - penalty, model.law
        certified = self._worth(law, safe, self.baseline)
        margin = certified - self.threshold
        known = margin > 1e-6
        factor = 1.0 + 2.0 * horizon / np.where(known, margin, 1.0)
        bold = model.reward + factor[:, None, None, None] * penalty
        policy = constrained(law, model.spec.start, bold, safe, np.where(known, self.threshold, -np.inf))
        policy = np.where(known[:, None, None, None], policy, self.baseline)
        upper = np.where(known, np.minimum(self._worth(law, bold, policy), horizon), horizon)
        return Plan.single(policy, np.where(known, self._worth(law, safe, policy), certified), upper)

    def _worth(self, law: Floats, reward: Floats, policy: Floats) -> Floats:
        """[P] the value of a policy from the start under estimated transitions."""
        return self.model.from_start(policy_value(_estimate(law, reward, self.model.spec.start), policy)[:, 0])


def _estimate(law: Floats, reward: Floats, start: Floats) -> EpisodicMDP:
    return EpisodicMDP(law, reward, start, name="estimate")


def constrained(law: Floats, start: Floats, objective: Floats, safe: Floats, threshold: Floats) -> Floats:
    """[P, H, S, A] policies of largest ``objective`` among those whose ``safe`` return reaches the threshold.

    Args:
        law: [P, H, S, A, S'].
        start: [S].
        objective: [P, H, S, A] rewards to maximise.
        safe: [P, H, S, A] rewards whose sum is constrained.
        threshold: [P], below the largest return that can be reached.
    """

    def best(weight: Floats) -> tuple[Floats, Floats]:
        return _greedy(law, start, objective + weight[:, None, None, None] * safe, safe)

    low, high = np.zeros(len(law)), np.ones(len(law))
    (loose, least), (tight, most) = best(low), best(high)
    free = least >= threshold
    while (most < threshold).any():  # the return rises with the weight, and reaches the threshold
        high = np.where(most < threshold, 4.0 * high, high)
        tight, most = best(high)
    for _ in range(BISECTIONS):
        policy, value = best(0.5 * (low + high))
        holds = value >= threshold
        low, high = np.where(holds, low, 0.5 * (low + high)), np.where(holds, 0.5 * (low + high), high)
        chosen = holds[:, None, None, None]
        tight, most = np.where(chosen, policy, tight), np.where(holds, value, most)
        loose, least = np.where(chosen, loose, policy), np.where(holds, least, value)
    share = np.where(free, 0.0, (threshold - least) / np.where(free, 1.0, most - least))[:, None, None, None]
    one, two = (occupancy(_estimate(law, safe, start), policy) for policy in (loose, tight))
    visits = (1.0 - share) * one + share * two
    total = visits.sum(-1, keepdims=True)
    elsewhere = np.where(free[:, None, None, None], loose, tight)
    policies: Floats = np.where(total > 0.0, visits / np.where(total > 0.0, total, 1.0), elsewhere)
    return policies


def _greedy(law: Floats, start: Floats, reward: Floats, safe: Floats) -> tuple[Floats, Floats]:
    """The greedy policy [P, H, S, A] of a reward, and its return [P] of another one."""
    size, horizon, states, actions = reward.shape
    values = np.zeros((size, states, 2))
    policy: Floats = np.zeros_like(reward)
    for h in reversed(range(horizon)):
        ahead = law[:, h].reshape(size, states * actions, states) @ values  # [P, S A, 2]
        q = np.stack([reward[:, h], safe[:, h]], axis=-1) + ahead.reshape(size, states, actions, 2)
        act = q[..., 0].argmax(-1)[..., None]
        np.put_along_axis(policy[:, h], act, 1.0, -1)
        values = np.take_along_axis(q, act[..., None], axis=2)[:, :, 0]
    return policy, (values[..., 1] * start).sum(-1)
