"""SM7, SM8: why StepMix needs no search for its mixture, and what a learned baseline needs."""

from __future__ import annotations

import numpy as np

from pbrl.theory.baselines import boltzmann, cloned
from pbrl.theory.check import Check, Control, Measured, Trial
from pbrl.theory.episodic import from_start, policy_value
from pbrl.theory.instances import dirichlet_episodic
from pbrl.theory.mdps import Floats
from pbrl.theory.measures import exactly, share
from pbrl.theory.robust import worst_policy_value

from ..regret.studies import recorded

PAPER = "StepMix (Li et al., ICML 2023)"
WEIGHTS = np.linspace(0.0, 1.0, 11)


def penalised(law: Floats, reward: Floats, policy: Floats, radius: Floats) -> Floats:
    """[H + 1, S] lower values whose every backup is clipped at 0 after a penalty: valid, but not concave."""
    horizon = len(reward)
    value = np.zeros((horizon + 1, reward.shape[1]))
    for h in reversed(range(horizon)):
        q = reward[h] - 0.5 * (horizon - h - 1) * radius[h] + law[h] @ value[h + 1]
        value[h] = np.maximum((q * policy[h]).sum(-1), 0.0) if h else (q * policy[h]).sum(-1)
    return value


def _concave(trial: Trial, clipped: bool) -> Measured:
    """By how much linear interpolation between two policies' lower bounds exceeds the mixture's, at most."""
    worst = -np.inf
    bound = penalised if clipped else worst_policy_value
    for seed in range(trial.pick(50, 200, 1000)):
        mdp = dirichlet_episodic(5, 3, 4, seed=[trial.seed, seed])
        draw = np.random.default_rng([trial.seed, seed, 1])
        radius = draw.uniform(0.0, 1.0, size=mdp.shape)
        one, two = draw.dirichlet(np.ones(3), size=(2, 4, 5))
        two[[0, 1, 3]] = one[[0, 1, 3]]  # the policies differ at stage 2 only
        ends = [bound(mdp.transition, mdp.reward, policy, radius)[0, 0] for policy in (one, two)]
        for weight in WEIGHTS:
            mixed = bound(mdp.transition, mdp.reward, weight * one + (1 - weight) * two, radius)[0, 0]
            worst = max(worst, float(weight * ends[0] + (1 - weight) * ends[1] - mixed))
    return exactly(worst)


SM7 = Check(
    id="SM7",
    paper=PAPER,
    claim="The robust lower bound is concave in the weight of a mixture at one stage: interpolating it is safe.",
    setting="random MDPs S5 A3 H4, random L1 radii, random policies that differ at one stage, 11 weights",
    assumptions=("the bound is a rectangular worst case, not clipped inside the recursion",),
    bound=1e-12,
    bound_says="rounding; earlier stages are minima of linear maps with non-negative weights",
    provenance="derived",
    statistic=lambda trial: _concave(trial, False),
    control=Control("a penalty bound that is clipped at 0 at every stage", lambda trial: _concave(trial, True)),
)


def _cloned(trial: Trial, episodes: int) -> Measured:
    """Share of data sets whose cloned policy is worth less than 0.97 of the behaviour."""
    mdp = dirichlet_episodic(5, 3, 3, seed=123)
    behaviour = boltzmann(mdp, 5.0)
    target = 0.97 * float(from_start(mdp, policy_value(mdp, behaviour)))
    count = trial.pick(60, 200, 1000)
    first = 100_000 * trial.seed
    worth = [
        float(from_start(mdp, policy_value(mdp, cloned(recorded(mdp, behaviour, episodes, first + seed)))))
        for seed in range(count)
    ]
    return share(int((np.array(worth) < target).sum()), count, f"data sets of {episodes} episodes")


SM8 = Check(
    id="SM8",
    paper=PAPER,
    claim="A baseline learned from enough recorded episodes is safe: cloning loses less than 3 % of its value.",
    setting="random MDP S5 A3 H3, Boltzmann behaviour; 1000 episodes in each data set",
    assumptions=("the behaviour is safe by a margin", "enough episodes for the margin"),
    bound=0.05,
    bound_says="a chance of 5 % that a data set misleads; the paper asks for poly(H, S) / margin^2 episodes",
    provenance="practical",
    statistic=lambda trial: _cloned(trial, 1000),
    control=Control("3 episodes", lambda trial: _cloned(trial, 3)),
)
