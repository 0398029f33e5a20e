"""Off-policy MDPO nears the closed form of its objective."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from agents.off_policy.mdpo_off_policy import MDPOOffPolicy, MDPOOffPolicyConfig
from pbrl.data.source import Transitions
from pbrl.errors import InputError
from pbrl.members import Members, sweep
from pbrl.nets.heads import TanhGaussian
from pbrl.spec import Spec

DOUBLE = torch.float64
MEAN, STD = 0.3, 0.5  # of pi_k before the tanh
GOAL, WIDTH = -0.4, 0.7  # what Q prefers
NEARNESS, TEMPERATURE = (1.0, 0.6, 2.0), (0.2, 0.6, 0.5)


class Known(MDPOOffPolicy):
    """Climbs a Q for which the best policy is a tanh-normal.

    Before the tanh, pi_k is N(m, s^2) over the slope J of tanh. With w = (c - lambda) / c and
    Q / c = -(1 - w) log J - (u - b)^2 / (2 d^2), pi_k^w exp(Q / c) is a normal of precision w / s^2 + 1 / d^2 over J.
    """

    def worth(self, obs: Tensor, act: Tensor) -> Tensor:
        inside = act.clamp(-1 + 1e-9, 1 - 1e-9)
        raw, share = torch.atanh(inside), 1.0 - self.kept[:, None, None]
        log_slope = torch.log1p(-inside.square())
        value = -share * log_slope - (raw - GOAL).square() / (2 * WIDTH**2)
        return (self.nearness[:, None, None] * value).squeeze(-1)

    @property
    def kept(self) -> Tensor:
        return (self.nearness - self.temperature) / self.nearness


def head(learner: MDPOOffPolicy) -> tuple[Tensor, Tensor]:
    """The policy's mean and deviation [P] before the tanh."""
    with torch.no_grad():
        found = learner.policy(torch.zeros(3, 1, 1, dtype=DOUBLE))
    assert isinstance(found, TanhGaussian)
    return found.mean.flatten(), found.log_std.exp().flatten()


def test_the_policy_nears_the_closed_form() -> None:
    """For a KL and some entropy, for c = lambda (entropy alone), and for a large c."""
    configs = tuple(
        MDPOOffPolicyConfig(lr=0.01, hidden=(), batch_size=512, refresh=10_000, nearness=c, temperature=t)
        for c, t in zip(NEARNESS, TEMPERATURE)
    )
    learner = Known(Spec("line", 1, 1), Members(configs, (0, 1, 2), dtype=DOUBLE))
    layer = learner.policy.net.layers[0]
    with torch.no_grad():
        assert isinstance(layer.weight, Tensor)
        assert isinstance(layer.bias, Tensor)
        layer.weight.zero_()
        layer.bias.copy_(torch.tensor([MEAN, math.log(STD)], dtype=DOUBLE).expand_as(layer.bias))
    zeros = torch.zeros(3, 512, 1, dtype=DOUBLE)
    batch = Transitions(zeros, zeros, zeros[..., 0], zeros, zeros[..., 0])
    means, deviations = [], []
    for update in range(900):
        learner.update({"transitions": batch})
        if update >= 600:
            mean, std = head(learner)
            means.append(mean)
            deviations.append(std)
    precision = learner.kept / STD**2 + 1 / WIDTH**2
    expected = (learner.kept * MEAN / STD**2 + GOAL / WIDTH**2) / precision
    torch.testing.assert_close(torch.stack(means).mean(0), expected, rtol=0, atol=0.02)
    torch.testing.assert_close(torch.stack(deviations).mean(0), precision.rsqrt(), rtol=0.03, atol=0)


def test_the_old_policy_is_the_present_one_of_every_refresh() -> None:
    learner = MDPOOffPolicy(Spec("line", 1, 1), sweep(MDPOOffPolicyConfig(hidden=(4,), refresh=3), [0], dtype=DOUBLE))
    zeros = torch.zeros(1, 8, 1, dtype=DOUBLE)
    batch = Transitions(zeros, zeros, zeros[..., 0] + 1.0, zeros, zeros[..., 0])
    begun = []
    for update in range(7):
        before = learner.policy.net.layers[0].weight
        assert isinstance(before, Tensor)
        if update % 3 == 0:
            begun.append(before.detach().clone())
        metrics = learner.update({"transitions": batch})
        old = learner.old.net.layers[0].weight
        assert isinstance(old, Tensor)
        assert torch.equal(old, begun[-1])
        assert (float(metrics["kl"]) == pytest.approx(0.0, abs=1e-9)) == (update % 3 == 0)


def test_a_policy_must_not_be_pushed_away_from_the_last_one() -> None:
    with pytest.raises(InputError, match=r"nearness is 0\.1 and temperature 0\.2"):
        MDPOOffPolicyConfig(nearness=0.1)
