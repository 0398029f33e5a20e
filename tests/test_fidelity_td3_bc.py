"""TD3+BC: its policy's loss by hand, what it does not depend on, its limits, and data better than their mean."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from agents.off_policy.td3 import TD3, TD3Config
from agents.offline.bc import BC, BCConfig
from agents.offline.td3_bc import TD3BC, TD3BCConfig, climb
from pbrl import rng
from pbrl.data.source import Transitions
from pbrl.errors import InputError
from pbrl.members import sweep
from pbrl.spec import Spec

from .twins import (
    DOUBLE,
    SPEC,
    A,
    B,
    assert_same,
    bandit,
    constant,
    copies,
    follow,
    inner,
    noise_batch,
    numbers,
    own,
    plain,
    step,
    weights,
)

SMALL: dict[str, Any] = {"hidden": (4,), "batch_size": B}
BANDIT = Spec("bandit", 1, 1)


def td3_bc(seeds: int = 1, values: dict[str, list[Any]] | None = None, **settings: Any) -> TD3BC:
    return TD3BC(SPEC, sweep(TD3BCConfig(**(SMALL | settings)), range(seeds), values, dtype=DOUBLE))


def gradient(agent: TD3, batch: Transitions) -> list[Tensor]:
    loss = agent._actor_loss(batch)[0].sum()
    return list(torch.autograd.grad(loss, list(agent.policy.parameters())))


# --- the loss ---------------------------------------------------------------------------------------------------------


def test_the_policys_loss_by_hand_numbers() -> None:
    """Q_1 = -4 everywhere and pi = 0: -lambda Q_1 = alpha whatever the size of Q_1, and the mean of a^2."""
    agent = td3_bc(alpha=2.5)
    constant(agent.q, -4.0, 9.0)
    constant(inner(agent.policy), *[0.0] * A)
    data = noise_batch()
    torch.testing.assert_close(agent._actor_loss(data)[0][0], 2.5 + data.act.square().mean())


def test_the_size_of_q_is_the_mean_of_its_absolute_value_and_a_constant() -> None:
    value = torch.tensor([[1.0, -3.0, 4.0, 0.0], [2.0, 2.0, 2.0, 2.0]], dtype=DOUBLE, requires_grad=True)
    loss = climb(value, numbers(2.5, 4.0))
    torch.testing.assert_close(loss, numbers(-2.5 / 2.0 * 0.5, -4.0))
    (grad,) = torch.autograd.grad(loss.sum(), [value])
    torch.testing.assert_close(grad, numbers(-2.5 / 2.0 / 4, -4.0 / 2.0 / 4)[:, None].expand(2, 4))
    assert climb(torch.zeros(1, 3), torch.ones(1)).tolist() == [0.0]


@pytest.mark.parametrize("factor", [1e-3, 7.0, 1e4])
def test_the_scale_of_rewards_does_not_reach_the_policy(factor: float) -> None:
    """Critics and rewards times c: the same gradient."""
    agent, data = td3_bc(seeds=2), noise_batch(2)
    before = gradient(agent, data)
    last = agent.q.layers[-1]
    with torch.no_grad():
        for parameter in last.parameters():
            parameter.mul_(factor)
    for old, new in zip(before, gradient(agent, data), strict=True):
        torch.testing.assert_close(old, new, rtol=1e-10, atol=1e-12)


def test_without_alpha_its_gradient_is_behaviour_clonings() -> None:
    """BC's own loss sums over the dimensions of the action, this one averages."""
    agent = td3_bc(seeds=2, alpha=0.0)
    clone = BC(SPEC, sweep(BCConfig(**SMALL), [0, 1], dtype=DOUBLE))
    clone.policy.load_state_dict(agent.policy.state_dict())
    data = noise_batch(2)
    loss = clone._loss(data.obs, data.act, clone.keys)[0].sum() / A
    expected = torch.autograd.grad(loss, list(clone.policy.parameters()))
    for ours, theirs in zip(gradient(agent, data), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


def test_with_a_huge_alpha_its_gradient_points_where_td3s_does() -> None:
    agent = td3_bc(alpha=1e9)
    online = TD3(SPEC, sweep(TD3Config(**SMALL), [0], dtype=DOUBLE))
    online.load_state_dict({k: v for k, v in agent.state_dict().items() if k != "alpha"})
    ours, theirs = (torch.cat([g.flatten() for g in gradient(each, noise_batch())]) for each in (agent, online))
    assert float(nn.functional.cosine_similarity(ours, theirs, dim=0)) == pytest.approx(1.0, abs=1e-9)


def test_no_gradient_of_the_policy_reaches_the_critics() -> None:
    agent = td3_bc()
    loss = agent._actor_loss(noise_batch())[0].sum()
    grads = torch.autograd.grad(loss, list(agent.q.parameters()), allow_unused=True)
    assert all(grad is None for grad in grads)


# --- an independent implementation ------------------------------------------------------------------------------------


def test_it_is_an_independent_one_for_twenty_updates() -> None:
    """Per member, with torch's own modules and optimisers, and observations normalised by hand."""
    lr, gamma, rate, member = 1e-2, 0.9, 0.1, 1
    mean, std = (0.5, -1.0, 2.0), (1.0, 3.0, 0.5)
    spec = Spec("toy", SPEC.obs_size, A, obs_mean=mean, obs_std=std)
    config = TD3BCConfig(**SMALL, lr=lr, gamma=gamma, target_rate=rate, smoothing=0.5)
    agent = TD3BC(spec, sweep(config, [0, 1], {"alpha": [2.5, 0.7]}, dtype=DOUBLE))
    member = 3
    qs, targets = copies(agent.q, member), copies(agent.target, member)
    policy, slow = plain(inner(agent.policy), member), plain(inner(agent.target_policy), member)
    adam_q = torch.optim.Adam([p for q in qs for p in q.parameters()], lr)
    adam_pi = torch.optim.Adam(policy.parameters(), lr)
    for number in range(20):
        data = noise_batch(4, number)
        obs, act, rew, next_obs, term = own(data, member)
        obs, next_obs = ((x - numbers(*mean)) / (numbers(*std) + 1e-3) for x in (obs, next_obs))
        noise = rng.normal(rng.fold(agent.keys, "smoothing", number), B, A, dtype=DOUBLE)[member]
        with torch.no_grad():
            next_act = (torch.tanh(slow(next_obs)) + (0.5 * noise).clamp(-0.5, 0.5)).clamp(-1, 1)
            best = torch.min(*(q(torch.cat([next_obs, next_act], -1)).squeeze(-1) for q in targets))
            goal = rew + gamma * (1 - term) * best
        errors = [nn.functional.mse_loss(q(torch.cat([obs, act], -1)).squeeze(-1), goal) for q in qs]
        step(adam_q, torch.stack(errors).sum())
        if number % 2:
            fresh = torch.tanh(policy(obs))
            value = qs[0](torch.cat([obs, fresh], -1))
            step(adam_pi, -0.7 / value.abs().mean().detach() * value.mean() + nn.functional.mse_loss(fresh, act))
            for target, source in zip([*targets, slow], [*qs, policy]):
                follow(target, source, rate)
        agent.update({"transitions": data})
    for ours, theirs in zip(copies(agent.q, member), qs):
        assert_same(ours, theirs)
    assert_same(plain(inner(agent.policy), member), policy)
    assert_same(plain(inner(agent.target_policy), member), slow)


# --- what it finds ----------------------------------------------------------------------------------------------------


def test_the_policy_lies_between_the_data_and_the_best_action_and_nearer_with_alpha() -> None:
    """Q(a) = 10 - (a - 0.6)^2, held fixed, and data at a = 0: the root of a = alpha (0.6 - a) / Q(a)."""

    class Known(TD3BC):
        def _actor_loss(self, batch: Transitions) -> tuple[Tensor, dict[str, Tensor]]:
            act = self.policy(batch.obs).mode()
            value = 10.0 - (act - 0.6).square().squeeze(-1)
            cloning: Tensor = (act - batch.act).square().mean((1, 2))
            return climb(value, self.alpha) + cloning, {}

    alphas = [0.0, 1.0, 3.0, 10.0, 300.0]
    members = sweep(TD3BCConfig(hidden=(), delay=1, lr=0.03), [0], {"alpha": alphas}, dtype=DOUBLE)
    agent = Known(BANDIT, members)
    data = bandit(torch.zeros(4, 1), torch.zeros(4), members=len(alphas))
    for _ in range(800):
        agent.update({"transitions": data})
    found = agent.act(data.obs[:, :1]).flatten().tolist()
    for alpha, act in zip(alphas, found):
        low, high = 0.0, 0.6
        for _ in range(60):
            middle = (low + high) / 2
            uphill = middle < alpha * (0.6 - middle) / (10.0 - (middle - 0.6) ** 2)
            low, high = (middle, high) if uphill else (low, middle)
        assert act == pytest.approx(low, abs=2e-3)
    assert found == sorted(found)


def test_of_mixed_data_it_makes_more_than_cloning_and_than_their_mean() -> None:
    """Half the actions near -0.6, half near 0.2, which pays; three seeds."""
    noise = 0.2 * rng.normal(rng.keys([1]), 64, 1, dtype=DOUBLE)[0]
    act = torch.where(torch.arange(64)[:, None] % 2 == 0, -0.6, 0.2) + noise
    data = bandit(act, 2.0 - (act[:, 0] - 0.2).square(), members=3)
    agent = TD3BC(BANDIT, sweep(TD3BCConfig(hidden=(16, 16), lr=5e-3, alpha=10.0), range(3), dtype=DOUBLE))
    clone = BC(BANDIT, sweep(BCConfig(hidden=(16, 16), lr=3e-3), range(3), dtype=DOUBLE))
    for _ in range(600):
        agent.update({"transitions": data})
        clone.update({"transitions": data})
    ours, cloned = (2.0 - (each.act(data.obs[:, :1]).flatten() - 0.2).square() for each in (agent, clone))
    assert bool((ours > cloned + 0.05).all()), f"{ours.tolist()} against {cloned.tolist()}"
    assert bool((ours > float(data.rew.mean()) + 0.1).all())


def test_critics_are_td3s() -> None:
    agent = td3_bc(seeds=2, normalize_obs=False)
    online = TD3(SPEC, sweep(TD3Config(**SMALL), [0, 1], dtype=DOUBLE))
    online.update({"transitions": noise_batch(2)})
    agent.update({"transitions": noise_batch(2)})
    assert all(map(torch.equal, weights(agent.q), weights(online.q)))


def test_a_negative_alpha_is_refused() -> None:
    with pytest.raises(InputError, match="alpha is -1"):
        TD3BCConfig(alpha=-1.0)
