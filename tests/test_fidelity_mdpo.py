"""MDPO nears the closed form of mirror descent, and solves what PPO solves."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import envs
from agents.on_policy.mdpo import MDPO, MDPOConfig
from pbrl import evaluation, losses
from pbrl.data.rollout import Rollout
from pbrl.loops import Playing, on_policy
from pbrl.members import sweep
from pbrl.spec import Spec

DOUBLE = torch.float64
ARMS = 5
COUNTS = torch.tensor([2, 8, 4, 1, 5])  # of 20 pulls: the old policy's probabilities exactly
GAIN = torch.tensor([1.0, -0.5, 0.3, 2.0, 0.0], dtype=DOUBLE)


@pytest.mark.parametrize(
    ("ratio", "advantage", "step", "expected"),
    [
        (1.0, 2.0, 0.5, -2.0),
        (2.0, 1.0, 0.5, 2 * (2 * math.log(2) - 1) - 2),
        (0.5, 0.0, 2.0, 0.5 * (0.5 - 0.5 * math.log(2))),
    ],
)
def test_the_objective_by_hand(ratio: float, advantage: float, step: float, expected: float) -> None:
    moved, gain = (torch.tensor([x], dtype=DOUBLE) for x in (math.log(ratio), advantage))
    assert float(losses.mirror_descent(moved, gain, step)) == pytest.approx(expected, abs=1e-14)


def test_its_penalty_is_the_divergence_from_the_old_policy() -> None:
    old, new = COUNTS.double() / 20, torch.tensor([0.1, 0.2, 0.3, 0.25, 0.15], dtype=DOUBLE)
    penalty = losses.mirror_descent((new / old).log(), torch.zeros(ARMS, dtype=DOUBLE), 1.0)
    assert float((old * penalty).sum()) == pytest.approx(float((new * (new / old).log()).sum()), abs=1e-14)


def bandit(steps: list[float], **changes: Any) -> tuple[MDPO, Rollout]:
    """Five arms in one state, pulled as often as the policy would; gamma 0 and true ends: advantages are gains."""
    settings = {"hidden": (), "epochs": 600, "lr": 0.05, "max_grad": 1e9, "environments": 20, "steps": 1, "gamma": 0.0}
    plain = {"normalize_obs": False, "normalize_rewards": False, "normalize_advantages": False, "lr_decay": 0}
    config = MDPOConfig(**{**settings, **plain, **changes})
    learner = MDPO(Spec("bandit", 1, 1, actions=ARMS), sweep(config, [0], {"step": steps}, dtype=DOUBLE))
    layer = learner.policy.net.layers[0]
    with torch.no_grad():
        for parameter in learner.critic.parameters():
            parameter.zero_()
        assert isinstance(layer.weight, Tensor)
        assert isinstance(layer.bias, Tensor)
        layer.weight.zero_()
        layer.bias.copy_((COUNTS / 20).log().expand_as(layer.bias))
    act = torch.repeat_interleave(torch.arange(ARMS), COUNTS)

    def shaped(x: Tensor) -> Tensor:
        return x.to(DOUBLE).expand(len(steps), 1, *x.shape)

    obs = torch.zeros(20, 1)
    ends, none = torch.ones(20), torch.zeros(20)
    return learner, Rollout(*map(shaped, (obs, act[:, None], GAIN[act][:, None], obs, ends, none)))


def policy_of(learner: MDPO) -> Tensor:
    with torch.no_grad():
        logits: Tensor = learner.policy.net(torch.zeros(len(learner.keys), 1, 1, dtype=DOUBLE))
    return logits[:, 0].softmax(-1)


def test_many_steps_reach_the_closed_form() -> None:
    """pi_{k+1} ~ pi_k exp(t A), for three step sizes at once."""
    learner, rollout = bandit([0.3, 1.0, 2.0])
    torch.testing.assert_close(policy_of(learner), (COUNTS / 20).to(DOUBLE).expand(3, -1))
    learner.update({"rollout": rollout})
    size = torch.tensor([0.3, 1.0, 2.0], dtype=DOUBLE)[:, None]
    expected = ((COUNTS / 20).log() + size * GAIN).softmax(-1)
    found = policy_of(learner)
    assert ((expected * (expected / found).log()).sum(-1) < 1e-4).all()
    few, rollout = bandit([0.3, 1.0, 2.0], epochs=3)
    few.update({"rollout": rollout})
    assert ((expected * (expected / policy_of(few)).log()).sum(-1) > 1e-4).all(), "three steps do not get there"


def test_the_step_size_falls_to_zero() -> None:
    """Half way, the closed form is that of half the step; after the end nothing moves."""
    learner, rollout = bandit([1.0], lr_decay=2)
    learner.count.value = 1
    learner.update({"rollout": rollout})
    expected = ((COUNTS / 20).log() + 0.5 * GAIN).softmax(-1)
    torch.testing.assert_close(policy_of(learner)[0], expected, rtol=2e-2, atol=2e-3)
    before = policy_of(learner)
    learner.update({"rollout": rollout})
    assert torch.equal(policy_of(learner), before)


@pytest.mark.slow
def test_it_balances_the_cart_pole() -> None:
    """Within 31,000 steps of 60,000, to which the schedule stretches."""
    config = MDPOConfig(lr=3e-3, steps=128, lr_decay=58, batch_size=64)
    learner = MDPO(envs.make("CartPole-v1", 1).spec, sweep(config, range(3)))
    playing = Playing(envs.make("CartPole-v1", 3 * config.environments), learner.keys)
    for _ in on_policy(learner, playing, 30, every=30):
        pass
    found = evaluation.evaluate(learner, lambda n: envs.make("CartPole-v1", n), members=3, episodes=5).mean
    assert np.median(found) >= 400, found
