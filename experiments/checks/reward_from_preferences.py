"""K4: does a learner that assumes regret find a good policy from finitely many preferences?"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from pbrl.theory.check import Check, Control, Measured, Trial
from pbrl.theory.discounted import policy_iteration, policy_value
from pbrl.theory.instances import dirichlet_discounted, random_walks
from pbrl.theory.mdps import DiscountedMDP, Floats
from pbrl.theory.measures import mean

STATES, ACTIONS, GAMMA, LENGTH, SCALE, RIDGE = 5, 3, 0.9, 3, 2.0, 1e-3


def advantage_gradient(mdp: DiscountedMDP, reward: Floats, weight: Floats) -> Floats:
    """[S, A] the gradient of weight . A* by the reward, exact where the optimum is unique."""
    solved = policy_iteration(replace(mdp, reward=reward))
    chain = np.einsum("ij,ijk->ik", solved.policy, mdp.transition)
    # A* = r + gamma P V - V with V = (I - gamma P_pi)^-1 r_pi: what moves V, by the transposed solve.
    pull = mdp.gamma * np.einsum("ij,ijk->k", weight, mdp.transition) - weight.sum(-1)
    visits = np.linalg.solve(np.eye(len(chain)) - mdp.gamma * chain.T, pull)
    gradient: Floats = weight + visits[:, None] * solved.policy
    return gradient


def learn(mdp: DiscountedMDP, contrast: Floats, label: Floats) -> Floats:
    """[S, A] reward that makes the labels likeliest if they are by regret, with a small ridge."""

    def objective(flat: Floats) -> tuple[float, Floats]:
        reward = flat.reshape(STATES, ACTIONS)
        gap = SCALE * contrast @ policy_iteration(replace(mdp, reward=reward)).advantage.ravel()
        slope = SCALE * contrast.T @ (expit(gap) - label) / len(label)
        loss = float((np.logaddexp(0.0, gap) - label * gap).mean() + RIDGE * flat @ flat)
        weight = slope.reshape(STATES, ACTIONS)
        gradient = advantage_gradient(mdp, reward, weight)
        return loss, gradient.ravel() + 2.0 * RIDGE * flat

    start = np.random.default_rng(0).standard_normal(STATES * ACTIONS) * 0.1
    return np.asarray(minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 200}).x).reshape(
        STATES, ACTIONS
    )


@cache
def scores(trial: Trial, teacher_by_regret: bool) -> Floats:
    """[MDPs] scaled returns, 1 the optimum's and 0 the uniform policy's, of rewards learned by the regret model."""
    found = []
    for seed in range(trial.pick(200, 400, 1000)):
        mdp = dirichlet_discounted(STATES, ACTIONS, GAMMA, seed=[trial.seed, seed, 51], concentration=0.3)
        solved = policy_iteration(mdp)
        state, act = random_walks(mdp, 600, LENGTH, seed=[trial.seed, seed, 53])
        visits = np.zeros((len(act), STATES * ACTIONS))
        for t in range(LENGTH):
            np.add.at(visits, (np.arange(len(act)), state[:, t] * ACTIONS + act[:, t]), 1.0)
        contrast = visits[300:] - visits[:300]
        table = solved.advantage if teacher_by_regret else mdp.reward
        chance = expit(SCALE * contrast @ table.ravel())
        label = (np.random.default_rng([trial.seed, seed, 57]).random(300) < chance).astype(np.float64)
        learned = learn(mdp, contrast, label)
        policy = policy_iteration(replace(mdp, reward=learned)).policy
        ours, least = (
            float(policy_value(mdp, one) @ mdp.first) for one in (policy, np.full_like(policy, 1.0 / ACTIONS))
        )
        found.append((ours - least) / (float(solved.value @ mdp.first) - least))
    return np.array(found)


def _loss(trial: Trial, by_regret: bool) -> Measured:
    lost = 1.0 - scores(trial, by_regret)
    return mean(lost, f"near-optimal (above 0.9) in {int((lost < 0.1).sum())} of {len(lost)} MDPs")


K4 = Check(
    id="K4",
    paper="Regret preferences (Knox et al., TMLR 2024)",
    claim="From 300 regret preferences, a learner that assumes regret finds a near-optimal policy.",
    setting="random MDPs S5 A3, gamma 0.9; segments of 3 steps; logistic labels; maximum likelihood by exact gradients",
    assumptions=("preferences by regret", "the learner knows the transitions"),
    bound=0.1,
    bound_says="the paper's mark of near-optimal: a scaled return above 0.9, here of the mean over MDPs",
    provenance="paper",
    statistic=lambda trial: _loss(trial, True),
    control=Control("a teacher who prefers by partial return", lambda trial: _loss(trial, False)),
)
