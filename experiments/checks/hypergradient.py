"""H1: does the policy's answer to a reward belong in the gradient of a design problem?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pbrl.theory.check import Check, Control, Measured, Trial
from pbrl.theory.discounted import Solution, occupancy, policy_value, soft_value_iteration
from pbrl.theory.instances import dirichlet_discounted
from pbrl.theory.mdps import DiscountedMDP, Floats
from pbrl.theory.measures import exactly

TEMPERATURE, STEP = 0.5, 1e-5


def objective(lower: DiscountedMDP, upper: DiscountedMDP) -> float:
    """The upper reward's value of the lower problem's soft-optimal policy."""
    policy = soft_value_iteration(lower, TEMPERATURE).policy
    return float(policy_value(upper, policy) @ upper.first)


def gradient(lower: DiscountedMDP, upper: DiscountedMDP, direction: Floats, responds: bool) -> float:
    """Derivative of ``objective`` when the rewards of both problems move along ``direction`` [S, A].

    dQ of the lower problem is the value of the direction under its policy, d log pi = (dQ - dV) / temperature, and the
    upper value moves with the policy by the occupancy times Q d log pi; and directly, by the occupancy times direction.
    """
    solved: Solution = soft_value_iteration(lower, TEMPERATURE)
    policy = solved.policy
    moved = replace(lower, reward=direction)
    change = policy_value(moved, policy)
    q_change = direction + lower.gamma * lower.transition @ change
    log_change = (q_change - change[:, None]) / TEMPERATURE
    visits = occupancy(upper, policy)
    q_upper = upper.reward + upper.gamma * upper.transition @ policy_value(upper, policy)
    explicit = float((visits * direction).sum())
    return explicit + (float((visits * q_upper * log_change).sum()) if responds else 0.0)


def _error(trial: Trial, responds: bool) -> Measured:
    """Largest relative difference between the derivative and central differences of the objective."""
    worst = 0.0
    for seed in range(trial.pick(5, 30, 100)):
        lower = dirichlet_discounted(6, 3, 0.9, seed=[trial.seed, seed])
        draw = np.random.default_rng([trial.seed, seed, 1])
        upper = replace(lower, reward=draw.standard_normal(lower.reward.shape))
        direction = draw.standard_normal(lower.reward.shape)
        ends = [
            objective(*(replace(m, reward=m.reward + sign * STEP * direction) for m in (lower, upper)))
            for sign in (1.0, -1.0)
        ]
        numeric = (ends[0] - ends[1]) / (2.0 * STEP)
        found = gradient(lower, upper, direction, responds)
        worst = max(worst, abs(found - numeric) / (1.0 + abs(numeric)))
    return exactly(worst)


H1 = Check(
    id="H1",
    paper="PARL (Chakraborty et al., ICLR 2024)",
    claim="The gradient of a design problem holds the policy's response to the reward, which is exact in closed form.",
    setting="random MDPs S6 A3, gamma 0.9, temperature 0.5; random upper rewards and directions; central differences",
    assumptions=("the lower problem is entropy-regularised, so that its optimum is unique and smooth",),
    bound=1e-6,
    bound_says="the error of central differences at a step of 1e-5",
    provenance="practical",
    statistic=lambda trial: _error(trial, True),
    control=Control("the response left out", lambda trial: _error(trial, False)),
)
