"""B1: does descent converge on a reward learned from data that its own optimal policy collects?"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import expit

from pbrl.theory.check import Check, Control, Measured, Trial
from pbrl.theory.discounted import backup, occupancy, policy_value, soft_value_iteration
from pbrl.theory.instances import dirichlet_discounted
from pbrl.theory.mdps import DiscountedMDP, Floats
from pbrl.theory.measures import exactly

PAPER = "PARL (Chakraborty et al., ICLR 2024)"
STATES, ACTIONS, FEATURES, GAMMA, TEMPERATURE, RIDGE = 5, 3, 3, 0.8, 0.5, 0.01
STEP, ROUNDING = 1.0, 1e-20


@dataclass(frozen=True, eq=False)
class Bilevel:
    """Lower level: the soft-optimal policy of reward phi nu. Upper: cross-entropy of that reward on what it visits.

    Attributes:
        mdp: its reward is the true one, by which pairs of state-action pairs are preferred.
        feature: [S, A, D] phi.
    """

    mdp: DiscountedMDP
    feature: Floats

    @classmethod
    def random(cls, *seed: int) -> Bilevel:
        """Dirichlet transitions, standard normal rewards and features."""
        feature = np.random.default_rng([*seed, 101]).standard_normal((STATES, ACTIONS, FEATURES))
        return cls(dirichlet_discounted(STATES, ACTIONS, GAMMA, seed=seed), feature)

    def _pairs(self, nu: Floats) -> tuple[Floats, Floats, Floats]:
        """Fitted scores' differences [SA, SA], labels [SA, SA] and cross-entropies [SA, SA] of all pairs."""
        score, truth = (self.feature @ nu).ravel(), self.mdp.reward.ravel()
        gap, label = score[:, None] - score, expit(truth[:, None] - truth)
        return gap, label, np.logaddexp(0.0, gap) - label * gap

    def _visits(self, nu: Floats) -> tuple[DiscountedMDP, Floats, Floats]:
        """The fitted MDP, its soft-optimal policy [S, A] and the law [S, A] of what that visits."""
        fitted = replace(self.mdp, reward=self.feature @ nu)
        policy = soft_value_iteration(fitted, TEMPERATURE).policy
        return fitted, policy, occupancy(fitted, policy) * (1.0 - GAMMA)

    def loss(self, nu: Floats) -> float:
        """Mean cross-entropy of pairs drawn from what the policy visits, plus a ridge."""
        law = self._visits(nu)[2].ravel()
        return float(law @ self._pairs(nu)[2] @ law) + 0.5 * RIDGE * float(nu @ nu)

    def gradient(self, nu: Floats, implicit: bool = True) -> Floats:
        """[D] derivative of the loss; without ``implicit`` as if the data did not depend on the reward.

        d log pi = (dQ - dV) / temperature, dV = (I - gamma P_pi)^-1 E_pi dr, and the change of what is visited is the
        policy gradient of each pair's mean loss taken as a reward.
        """
        fitted, policy, visits = self._visits(nu)
        gap, label, entropy = self._pairs(nu)
        law, feature = visits.ravel(), self.feature.reshape(-1, FEATURES)
        slope = law[:, None] * law * (expit(gap) - label)
        direct: Floats = (slope.sum(1) - slope.sum(0)) @ feature + RIDGE * nu
        if not implicit:
            return direct
        chain = np.einsum("ij,ijk->ik", policy, fitted.transition)
        value = np.linalg.solve(np.eye(STATES) - GAMMA * chain, np.einsum("ij,ijd->id", policy, self.feature))
        moved = (self.feature + GAMMA * fitted.transition @ value - value[:, None]) / TEMPERATURE
        reward = ((entropy @ law) + (law @ entropy)).reshape(STATES, ACTIONS)
        paid = replace(fitted, reward=reward)
        q = backup(paid, policy_value(paid, policy))
        direct += np.einsum("ij,ij,ijd->d", visits, q, moved)
        return direct


def _descends(trial: Trial, implicit: bool) -> Measured:
    """Largest slope, over problems, of the log of the least squared derivative so far, against the log of the round.

    Of the last decade of rounds, or of the last one before it is rounding.
    """
    slopes = []
    rounds = trial.pick(200, 400, 5000)
    for seed in range(trial.pick(3, 5, 30)):
        problem, nu = Bilevel.random(trial.seed, seed, 103), np.zeros(FEATURES)
        squares = np.empty(rounds)
        for t in range(rounds):
            exact = problem.gradient(nu)
            squares[t] = float(exact @ exact)
            nu = nu - STEP * (exact if implicit else problem.gradient(nu, False))
        least = np.minimum.accumulate(squares)
        last = int(np.argmax(least < ROUNDING)) if least[-1] < ROUNDING else rounds - 1
        first = max((last + 1) // 10 - 1, 0)
        slopes.append(float(np.log(least[last] / least[first]) / np.log((last + 1) / (first + 1))))
    return exactly(max(slopes), "slopes " + " ".join(f"{slope:.2f}" for slope in slopes))


B1 = Check(
    id="B1",
    paper=PAPER,
    claim="Descent along the whole derivative makes the least squared derivative fall at least as 1 / T.",
    setting="random MDPs S5 A3, gamma 0.8, temperature 0.5, linear rewards of 3 features; preferences between visited "
    "pairs; 200 steps of size 1 at smoke size; slope of the last decade before rounding",
    assumptions=("exact lower level", "a step below the inverse of the smoothness"),
    bound=-1.0,
    bound_says="the paper's rate O(1 / T) for a smooth upper level",
    provenance="paper",
    statistic=lambda trial: _descends(trial, True),
    control=Control("descent along the direct part, which stops elsewhere", lambda trial: _descends(trial, False)),
    after_looking="problems and rounds were made fewer, to fit the standard tier; the slope now ends before rounding",
)
