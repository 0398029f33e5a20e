"""K1, K2 and shaping: what preferences by regret tell about an MDP."""

from __future__ import annotations

import numpy as np

from pbrl.theory.check import Check, Control, Measured, Trial
from pbrl.theory.discounted import Solution, policy_iteration
from pbrl.theory.instances import dirichlet_discounted, random_walks
from pbrl.theory.mdps import DiscountedMDP, Floats
from pbrl.theory.measures import exactly, share

PAPER = "Regret preferences (Knox et al., TMLR 2024)"


def _telescoping(trial: Trial, deterministic: bool) -> Measured:
    """Largest difference between the regret of a segment and V*(first) - rewards - V*(last), without discount."""
    error = 0.0
    for seed in range(trial.pick(10, 50, 200)):
        mdp = dirichlet_discounted(8, 3, 1.0, seed=[trial.seed, seed], deterministic=deterministic, absorbing=True)
        solution = policy_iteration(mdp)
        state, act = random_walks(mdp, 100, 5, seed=[trial.seed, seed, 1])
        regret = -solution.advantage[state[:, :-1], act].sum(1)
        returns = mdp.reward[state[:, :-1], act].sum(1)
        ends = solution.value[state[:, 0]] - returns - solution.value[state[:, -1]]
        error = max(error, float(np.abs(regret - ends).max()))
    return exactly(error)


K1 = Check(
    id="K1",
    paper=PAPER,
    claim="With deterministic transitions the regret of a segment is V*(first) minus its rewards minus V*(last).",
    setting="random MDPs, 8 states (one absorbs), 3 actions, no discount; in each 100 random segments of 5 steps",
    assumptions=("deterministic transitions", "gamma = 1 and every optimal policy ends"),
    bound=1e-10,
    bound_says="rounding; the sum of advantages telescopes",
    provenance="derived",
    statistic=lambda trial: _telescoping(trial, True),
    control=Control("stochastic transitions: the sum no longer telescopes", lambda trial: _telescoping(trial, False)),
)


def optimal_sets(mdp: DiscountedMDP, solution: Solution) -> Floats:
    """[S, A] whether an action is optimal, to rounding."""
    optimal: Floats = solution.advantage > -1e-9 * (1.0 + np.abs(mdp.reward).max())
    return optimal


def _recovered(trial: Trial, by_regret: bool) -> Measured:
    """Share of MDPs in which the maximal elements of the noiseless order of length-1 segments are not the optima."""
    count, wrong = trial.pick(50, 200, 1000), 0
    for seed in range(count):
        mdp = dirichlet_discounted(6, 3, 0.9, seed=[trial.seed, seed, 2])
        solution = policy_iteration(mdp)
        score = np.round(solution.advantage if by_regret else mdp.reward, 9)  # order is all that is used of it
        maximal = score == score.max()
        per_state = score == score.max(-1, keepdims=True)
        found = maximal if by_regret else per_state
        wrong += int(not np.array_equal(found, optimal_sets(mdp, solution)))
    return share(wrong, count, "MDPs in which the order does not give the optimal actions")


K2 = Check(
    id="K2",
    paper=PAPER,
    claim="The order alone of all segments of length 1 by regret gives every state's optimal actions.",
    setting="random MDPs with 6 states, 3 actions, gamma 0.9; noiseless preferences between all segments of one step",
    assumptions=("preferences are by regret, without noise", "all segments of one step are compared"),
    bound=0.1,
    bound_says="no MDP may fail; what is left is the interval of a finite number of MDPs",
    provenance="derived",
    statistic=lambda trial: _recovered(trial, True),
    control=Control("the same preferences by partial return", lambda trial: _recovered(trial, False)),
)


def _shaped(trial: Trial, discounted: bool) -> Measured:
    """How far shaping changes partial returns from gamma^L Phi(last) - Phi(first), at most over segments."""
    error, length = 0.0, 4
    for seed in range(trial.pick(10, 50, 200)):
        mdp = dirichlet_discounted(6, 3, 0.9, seed=[trial.seed, seed, 3], deterministic=True)
        potential = np.random.default_rng([trial.seed, seed, 4]).standard_normal(6)
        bonus = mdp.gamma * mdp.transition @ potential - potential[:, None]
        state, act = random_walks(mdp, 100, length, seed=[trial.seed, seed, 5])
        weight = mdp.gamma ** np.arange(length) if discounted else np.ones(length)
        change = (weight * bonus[state[:, :-1], act]).sum(1)
        ends = mdp.gamma**length * potential[state[:, -1]] - potential[state[:, 0]]
        error = max(error, float(np.abs(change - ends).max()))
    return exactly(error)


K_SHAPING = Check(
    id="K-shaping",
    paper=PAPER,
    claim="Shaping changes a partial return by gamma^L Phi(last) - Phi(first): preferences between ends, not regrets.",
    setting="random deterministic MDPs with 6 states, 3 actions, gamma 0.9; segments of 4 steps",
    assumptions=("the partial return is discounted", "deterministic transitions"),
    bound=1e-10,
    bound_says="rounding; the sum telescopes",
    provenance="derived",
    statistic=lambda trial: _shaped(trial, True),
    control=Control("partial returns without the discount", lambda trial: _shaped(trial, False)),
)
