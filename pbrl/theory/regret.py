"""Regret of learners: exact values of what was played, on the true model, and growth rates with their intervals.

Pseudo-regret, never realised returns: an episode's regret is V* minus the exact value of the plan that it was played
by. Between two plans that is constant, so the cumulative regret is known at every episode.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError
from .check import Measured
from .episodes import batches, sample_counts
from .episodic import backward_induction, from_start, policy_value
from .learner import Plan, TabularLearner
from .mdps import EpisodicMDP, Floats
from .measures import RESAMPLES, resampled

ROUNDING = 1e-9
PER_DECADE = 20


@dataclass(frozen=True, eq=False)
class RegretTrace:
    """What P members played in N plans.

    Attributes:
        counts: [N] episodes of each plan.
        value: [N, P] exact value of each plan.
        lower: [N, P] the learner's own lower bound on it.
        upper: [N, P] the learner's own upper bound on V*.
        optimum: [P] V*.
    """

    counts: NDArray[np.int64]
    value: Floats
    lower: Floats
    upper: Floats
    optimum: Floats

    @property
    def episodes(self) -> int:
        """All episodes of a member."""
        return int(self.counts.sum())

    @property
    def ends(self) -> NDArray[np.int64]:
        """[N] episodes played when a plan ended."""
        ends: NDArray[np.int64] = self.counts.cumsum()
        return ends

    def at(self, episodes: ArrayLike) -> Floats:
        """[P, len(episodes)] cumulative regret after so many episodes; exact at any number, not just between plans.

        Raises:
            InputError: a number of episodes that was not played.
        """
        when = np.asarray(episodes, dtype=np.float64)
        if when.min() < 0 or when.max() > self.episodes:
            raise InputError(f"regret after {when.min():g} to {when.max():g} episodes, expected 0 to {self.episodes}")
        total = np.cumsum((self.optimum - self.value) * self.counts[:, None], axis=0)  # [N, P]
        ends, total = np.r_[0, self.ends], np.vstack([np.zeros_like(self.optimum), total])
        return np.stack([np.interp(when, ends, total[:, p]) for p in range(total.shape[1])])

    def grid(self, low: float, high: float) -> NDArray[np.int64]:
        """Whole numbers of episodes from ``low`` to ``high``, evenly spaced on a log scale, each once."""
        points = max(2, round(PER_DECADE * np.log10(high / low)) + 1)
        return np.unique(np.geomspace(low, high, points).round().astype(np.int64))

    def slope(self, low: float, high: float, *, seed: int = 0) -> Measured:
        """Exponent at which the mean regret of the members grows between two numbers of episodes.

        Least squares on a log-log grid; the interval is a bootstrap over members (never over points in time).
        """
        when = self.grid(low, high)
        regret = self.at(when)
        x = np.log(when) - np.log(when).mean()
        drawn = np.random.default_rng(seed).multinomial(len(regret), np.full(len(regret), 1 / len(regret)), RESAMPLES)

        def rate(mean: Floats) -> Floats:
            logs = np.log(np.maximum(mean, 1e-300))
            slope: Floats = (logs * x).sum(-1) / (x * x).sum()
            return slope

        return resampled(float(rate(regret.mean(0))), rate(drawn @ regret / len(regret)))

    def violations(self, threshold: float | Floats) -> NDArray[np.int64]:
        """[P] episodes that were played by a plan whose exact value is below the threshold."""
        below = self.value < np.asarray(threshold) - ROUNDING
        bad: NDArray[np.int64] = (below * self.counts[:, None]).sum(0)
        return bad


def play(
    learner: TabularLearner,
    mdp: EpisodicMDP,
    episodes: int,
    *,
    growth: float = 0.05,
    watch: Callable[[int], object] = bool,
) -> RegretTrace:
    """Let P members learn an MDP, planning anew each time the episodes have grown by ``growth``; 0: for every episode.

    ``watch`` hears how many episodes have been played. A learner that has already played goes on from there.

    Raises:
        InputError: no episodes, a negative growth, or an MDP with another number of members.
    """
    size = len(learner.keys)
    if mdp.reward.ndim == 4 and len(mdp.reward) != size:
        raise InputError(f"{mdp.name} holds {len(mdp.reward)} MDPs for {size} members, expected 1 or as many")
    optimum = np.broadcast_to(from_start(mdp, backward_induction(mdp).value), (size,))
    rows: list[tuple[int, Floats, Floats, Floats]] = []
    for count in batches(episodes, growth):
        plan = learner.plan(count)
        rows.append((count, plan_value(mdp, plan), plan.lower, plan.upper))
        learner.update(sample_counts(mdp, plan.policies, plan.weights, count, learner.keys, learner.episodes), count)
        watch(learner.episodes)
    counts, value, lower, upper = zip(*rows)
    return RegretTrace(np.array(counts), np.stack(value), np.stack(lower), np.stack(upper), optimum)


def plan_value(mdp: EpisodicMDP, plan: Plan) -> Floats:
    """[P] the exact expected return of an episode of a plan, over the draw of its policy too."""
    values = [
        from_start(mdp, policy_value(mdp, plan.policies[:, n])) * plan.weights[:, n]
        for n in range(plan.weights.shape[1])
    ]
    value: Floats = np.sum(values, axis=0)
    return value
