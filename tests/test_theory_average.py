"""The solver of average reward against two other ways: every policy's stationary law, and a vanishing discount."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pbrl.theory.average import average_optimum
from pbrl.theory.discounted import policy_iteration
from pbrl.theory.instances import dirichlet_discounted, river_swim
from pbrl.theory.mdps import AverageMDP, DiscountedMDP, Floats


def stationary(chain: Floats) -> Floats:
    """[S] the long-run share of each state, from the uniform start, by squaring the lazy chain."""
    power = 0.5 * (np.eye(len(chain)) + chain)
    for _ in range(40):
        power = power @ power
        power /= power.sum(-1, keepdims=True)
    law: Floats = power.mean(0)
    return law


def instance(seed: int) -> AverageMDP:
    """River swim, then random MDPs."""
    if seed == 0:
        return river_swim(6)
    drawn = dirichlet_discounted(4, 3, 0.9, seed=seed)
    return AverageMDP(drawn.transition, drawn.reward)


@pytest.mark.parametrize("seed", range(4))
def test_no_deterministic_policy_gains_more_and_the_best_gains_as_much(seed: int) -> None:
    mdp = instance(seed)
    states, actions = mdp.reward.shape
    state = np.arange(states)
    gains = [
        float(stationary(mdp.transition[state, choice]) @ mdp.reward[state, choice])
        for choice in (np.array(one) for one in itertools.product(range(actions), repeat=states))
    ]
    assert average_optimum(mdp).gain == pytest.approx(max(gains), abs=1e-10)


@pytest.mark.parametrize("seed", range(4))
def test_gain_and_bias_are_the_limit_of_discounted_values(seed: int) -> None:
    mdp, gamma = instance(seed), 1.0 - 1e-6
    found = average_optimum(mdp)
    value = policy_iteration(DiscountedMDP(mdp.transition, mdp.reward, gamma)).value
    assert (1.0 - gamma) * value[0] == pytest.approx(found.gain, abs=1e-4)
    np.testing.assert_allclose(value - value[0], found.bias, atol=1e-3)
