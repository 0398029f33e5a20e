"""M1 to M3: does mirror descent on policies converge as its exact bounds say?"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from scipy.special import log_softmax

from pbrl.theory.check import Check, Control, Measured, Trial
from pbrl.theory.discounted import backup, policy_iteration, policy_value, soft_value_iteration
from pbrl.theory.instances import dirichlet_discounted
from pbrl.theory.mdps import DiscountedMDP, Floats
from pbrl.theory.measures import exactly

PAPER = "MDPO (Tomar et al., ICLR 2022)"
GAMMA, ACTIONS, STEPS = 0.9, 4, (0.1, 1.0, 10.0)


def _mdp(*seed: int) -> DiscountedMDP:
    mdp = dirichlet_discounted(10, ACTIONS, GAMMA, seed=seed)
    unit = (mdp.reward - mdp.reward.min()) / np.ptp(mdp.reward)  # rewards in [0, 1], as the bound wants them
    return DiscountedMDP(mdp.transition, unit, GAMMA)


def path(mdp: DiscountedMDP, step: float, rounds: int, sign: float = 1.0) -> list[Floats]:
    """Values [S] of pi_0 (uniform), pi_1, ...: pi_{k+1} is proportional to pi_k exp(step Q^{pi_k})."""
    logits, values = np.zeros(mdp.reward.shape), []
    for _ in range(rounds + 1):
        policy = np.exp(log_softmax(logits, axis=-1))
        values.append(policy_value(mdp, policy))
        logits = np.asarray(log_softmax(logits + sign * step * backup(mdp, values[-1]), axis=-1))
    return values


def _bound(trial: Trial, sign: float) -> Measured:
    """Largest ratio of the gap to its bound, over MDPs, steps, rounds and states."""
    worst = 0.0
    for seed in range(trial.pick(5, 30, 100)):
        mdp = _mdp(trial.seed, seed)
        best = policy_iteration(mdp).value
        for step in STEPS:
            gaps = [float((best - value).max()) for value in path(mdp, step, 100, sign)]
            for k in range(1, len(gaps)):
                limit = np.log(ACTIONS) / (step * (1 - GAMMA) * k) + 1.0 / ((1 - GAMMA) ** 2 * k)
                worst = max(worst, gaps[k] / limit)
    return exactly(worst, "largest gap / bound")


def _monotone(trial: Trial, sign: float) -> Measured:
    """Largest loss of value in any state from one round to the next."""
    loss = 0.0
    for seed in range(trial.pick(5, 30, 100)):
        for step in STEPS:
            values = path(_mdp(trial.seed, seed), step, 60, sign)
            loss = max(loss, *(float((a - b).max()) for a, b in pairwise(values)))
    return exactly(loss)


M1 = Check(
    id="M1",
    paper=PAPER,
    claim="Exact mirror descent improves the value of every state in every round.",
    setting="random MDPs S10 A4, gamma 0.9, rewards in [0, 1]; steps 0.1, 1 and 10; 60 rounds from the uniform policy",
    assumptions=("exact Q-functions",),
    bound=1e-10,
    bound_says="rounding",
    provenance="derived",
    statistic=lambda trial: _monotone(trial, 1.0),
    control=Control("steps in the wrong direction", lambda trial: _monotone(trial, -1.0)),
)

M2 = Check(
    id="M2",
    paper=PAPER,
    claim="After k rounds the gap is at most log A / (step (1 - gamma) k) + 1 / ((1 - gamma)^2 k), for any step.",
    setting="random MDPs S10 A4, gamma 0.9, rewards in [0, 1]; steps 0.1, 1 and 10; every one of 100 rounds",
    assumptions=("exact Q-functions", "the first policy is uniform"),
    bound=1.0,
    bound_says="the gap over its bound, at most, at every round; no constants are fitted",
    provenance="paper",
    statistic=lambda trial: _bound(trial, 1.0),
    control=Control("steps in the wrong direction", lambda trial: _bound(trial, -1.0)),
)


def _regularised(trial: Trial, kept: float) -> Measured:
    """Distance from the regularised optimal Q-function after the last round, at most over MDPs and steps."""
    worst, temperature = 0.0, 0.1
    for seed in range(trial.pick(5, 20, 50)):
        mdp = _mdp(trial.seed, seed)
        best = soft_value_iteration(mdp, temperature).q
        for share in (0.1, 0.5, 0.9):  # step x temperature
            logits, q = np.zeros(mdp.reward.shape), np.zeros(mdp.reward.shape)
            for _ in range(300):
                policy = np.exp(log_softmax(logits, axis=-1))
                entropy = -(policy * log_softmax(logits, axis=-1)).sum(-1)
                bonus = DiscountedMDP(mdp.transition, mdp.reward + temperature * entropy[:, None], GAMMA)
                q = backup(mdp, policy_value(bonus, policy))
                logits = np.asarray(log_softmax((1.0 - kept * share) * logits + share * q / temperature, axis=-1))
            worst = max(worst, float(np.abs(best - q).max()))
    return exactly(worst)


M3 = Check(
    id="M3",
    paper=PAPER,
    claim="With entropy regularisation mirror descent converges to the regularised optimum at a constant step.",
    setting="random MDPs S10 A4, gamma 0.9, temperature 0.1; step x temperature 0.1, 0.5 and 0.9; 300 rounds",
    assumptions=("exact regularised Q-functions",),
    bound=1e-8,
    bound_says="geometric convergence, at worst by 1 - step temperature per round: 0.9^300 is 2e-14",
    provenance="derived",
    statistic=lambda trial: _regularised(trial, 1.0),
    control=Control("a decay of the old logits that does not fit the step", lambda trial: _regularised(trial, 0.5)),
)
