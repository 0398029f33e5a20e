"""AWAC: its losses by an independent twin, its weights, its limits, and where weighted cloning ends."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from agents.offline.awac import AWAC, AWACConfig
from agents.offline.bc import BC, BCConfig
from pbrl import losses, rng
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
)

SMALL: dict[str, Any] = {"hidden": (4,), "batch_size": B}


def awac(seeds: int = 1, values: dict[str, list[Any]] | None = None, **settings: Any) -> AWAC:
    return AWAC(SPEC, sweep(AWACConfig(**(SMALL | settings)), range(seeds), values, dtype=DOUBLE))


# --- the losses -------------------------------------------------------------------------------------------------------


def test_the_losses_by_hand_numbers() -> None:
    """Constant networks: Qbar = (3, 2) and a standard normal policy; Q = (1, 5), so that every advantage is 0."""
    agent = awac(gamma=0.9)
    constant(agent.target, 3.0, 2.0)
    constant(agent.q, 1.0, 5.0)
    constant(inner(agent.policy), *[0.0] * A)
    data = noise_batch()
    goal = data.rew[0] + 0.9 * numbers(1, 0, 1, 1, 1) * 2.0  # row 1 bootstraps nothing
    loss_q, loss_pi, metrics = agent._losses(data, agent.keys)
    torch.testing.assert_close(loss_q[0], ((goal - 1.0) ** 2).mean() + ((goal - 5.0) ** 2).mean())
    density = (-0.5 * data.act[0] ** 2 - 0.5 * math.log(2 * math.pi)).sum(-1)
    torch.testing.assert_close(loss_pi[0], -density.mean())
    assert (float(metrics["value"]), float(metrics["weight"])) == (1.0, 1.0)


def test_weights_are_exponential_up_to_the_cap() -> None:
    found = losses.advantage_weight(numbers(-3.0, 0.0, 0.5, 1.0, 1e6), 2.0, 5.0)
    torch.testing.assert_close(found, numbers(math.exp(-6.0), 1.0, math.exp(1.0), 5.0, 5.0))
    assert bool(losses.advantage_weight(numbers(1e9), 1e9, 100.0) == 100.0)


def test_the_advantage_is_to_the_mean_value_of_fresh_actions() -> None:
    """Q(s, a) = a_0 + a_1 for both critics and a deviation of e^-5: V is the sum of the policy's mean."""
    agent = awac(hidden=(), samples=3, temperature=0.5)
    constant(inner(agent.policy), 0.3, -0.1)
    weight, bias = agent.q.parameters()
    log_std = agent.policy.get_parameter("log_std")
    with torch.no_grad():
        weight.copy_(numbers(0, 0, 0, 1, 1)[:, None].expand_as(weight))
        bias.zero_()
        log_std.fill_(-50.0)  # read as -5
    data = noise_batch()
    _, _, metrics = agent._losses(data, agent.keys)
    mean = torch.tanh(numbers(0.3, -0.1)).sum()
    assert float(metrics["value"]) == pytest.approx(float(mean), abs=0.01)
    expected = torch.exp((data.act[0].sum(-1) - mean) / 0.5).clamp(max=100.0).mean()
    assert float(metrics["weight"]) == pytest.approx(float(expected), rel=0.03)


def test_more_fresh_actions_estimate_the_same_value_with_less_noise() -> None:
    agents = [awac(seeds=200, samples=samples) for samples in (1, 16)]
    one, many = (
        each._losses(noise_batch(200), rng.fold(each.keys, "x"))[2]["value"]
        - each._losses(noise_batch(200), each.keys)[2]["value"]
        for each in agents
    )
    assert float(many.std()) == pytest.approx(float(one.std()) / 4.0, rel=0.25)


def test_no_loss_trains_another_losss_network() -> None:
    agent = awac()
    loss_q, loss_pi, _ = agent._losses(noise_batch(), agent.keys)
    for loss, mine, other in ((loss_q, agent.q, agent.policy), (loss_pi, agent.policy, agent.q)):
        grads = torch.autograd.grad(loss.sum(), list(mine.parameters()), retain_graph=True)
        assert all(bool(grad.any()) for grad in grads)
        theirs = torch.autograd.grad(loss.sum(), list(other.parameters()), allow_unused=True, retain_graph=True)
        assert all(grad is None for grad in theirs)


@pytest.mark.parametrize("head", ["gaussian", "deterministic", "tanh_gaussian"])
def test_at_a_huge_temperature_its_gradient_is_behaviour_clonings(head: Any) -> None:
    agent = awac(seeds=2, temperature=1e12, head=head, normalize_obs=False)
    clone = BC(SPEC, sweep(BCConfig(**SMALL, head=head), [0, 1], dtype=DOUBLE))
    clone.policy.load_state_dict(agent.policy.state_dict())
    data = noise_batch(2)
    ours = torch.autograd.grad(agent._losses(data, agent.keys)[1].sum(), list(agent.policy.parameters()))
    theirs = torch.autograd.grad(clone._loss(data.obs, data.act, clone.keys)[0].sum(), list(clone.policy.parameters()))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


# --- an independent implementation ------------------------------------------------------------------------------------


def test_it_is_an_independent_one_for_twenty_updates() -> None:
    """Per member, with torch's own modules, optimisers and Normal."""
    lr, gamma, rate, member = 1e-2, 0.9, 0.1, 1
    agent = awac(2, lr=lr, gamma=gamma, target_rate=rate, temperature=0.2, max_weight=3.0)
    qs, targets = copies(agent.q, member), copies(agent.target, member)
    policy = plain(inner(agent.policy), member)
    log_std = torch.zeros(A, dtype=DOUBLE, requires_grad=True)
    adam_q = torch.optim.Adam([p for q in qs for p in q.parameters()], lr)
    adam_pi = torch.optim.Adam([*policy.parameters(), log_std], lr)

    def smallest(nets: list[nn.Sequential], obs: Tensor, act: Tensor) -> Tensor:
        values = [q(torch.cat([obs, act], -1)).squeeze(-1) for q in nets]
        return torch.stack(values).amin(0)

    capped = 0
    for number in range(20):
        data = noise_batch(2, number)
        obs, act, rew, next_obs, term = own(data, member)
        key = rng.fold(agent.keys, "noise", number)
        keys = rng.fold(key, "target"), rng.fold(rng.fold(key, "value"), 0)
        noise, more = (rng.normal(each, B, A, dtype=DOUBLE)[member] for each in keys)
        with torch.no_grad():
            next_act = (torch.tanh(policy(next_obs)) + log_std.exp() * noise).clamp(-1, 1)
            goal = rew + gamma * (1 - term) * smallest(targets, next_obs, next_act)
            fresh = (torch.tanh(policy(obs)) + log_std.exp() * more).clamp(-1, 1)
            weight = torch.exp((smallest(qs, obs, act) - smallest(qs, obs, fresh)) / 0.2)
            capped += int((weight > 3.0).sum())
        density = torch.distributions.Normal(torch.tanh(policy(obs)), log_std.exp()).log_prob(act).sum(-1)
        errors = [nn.functional.mse_loss(q(torch.cat([obs, act], -1)).squeeze(-1), goal) for q in qs]
        step(adam_q, torch.stack(errors).sum())
        step(adam_pi, -(weight.clamp(max=3.0) * density).mean())
        for target, q in zip(targets, qs):
            follow(target, q, rate)
        agent.update({"transitions": data})
    assert 0 < capped < 100
    for ours, theirs in zip([*copies(agent.q, member), *copies(agent.target, member)], [*qs, *targets]):
        assert_same(ours, theirs)
    assert_same(plain(inner(agent.policy), member), policy)
    torch.testing.assert_close(agent.policy.get_parameter("log_std")[member, 0], log_std, rtol=1e-7, atol=1e-8)


# --- what it converges to ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.2, 1.0, 5.0])
def test_weighted_cloning_converges_to_the_closed_form(temperature: float) -> None:
    """A softmax policy on a bandit of five arms: pi(a) = mu(a) exp(A(a) / lambda) / sum."""
    advantage, mu = numbers(-0.5, 0.1, 0.0, 0.4, -1.0), numbers(0.1, 0.3, 0.3, 0.1, 0.2)
    weight = losses.advantage_weight(advantage, 1.0 / temperature, 100.0)
    logits = torch.zeros(5, dtype=DOUBLE, requires_grad=True)
    adam = torch.optim.Adam([logits], 0.05)
    for _ in range(600):
        step(adam, -(mu * weight * logits.log_softmax(0)).sum())
    closed = torch.softmax(mu.log() + advantage / temperature, 0)
    divergence = (closed * (closed.log() - logits.detach().log_softmax(0))).sum()
    assert 0.0 <= float(divergence) + 1e-12 < 1e-3


def test_of_mixed_data_it_makes_more_than_cloning_and_than_their_mean() -> None:
    """Half the actions near -0.6, half near 0.2, which pays; three seeds."""
    spec = Spec("bandit", 1, 1)
    noise = 0.1 * rng.normal(rng.keys([1]), 64, 1, dtype=DOUBLE)[0]
    act = torch.where(torch.arange(64)[:, None] % 2 == 0, -0.6, 0.2) + noise
    data = bandit(act, -(act[:, 0] - 0.2).square(), members=3)
    config = AWACConfig(hidden=(16, 16), lr=1e-2, temperature=0.1)
    agent = AWAC(spec, sweep(config, range(3), dtype=DOUBLE))
    clone = BC(spec, sweep(BCConfig(hidden=(16, 16), lr=1e-2), range(3), dtype=DOUBLE))
    for _ in range(300):
        agent.update({"transitions": data})
        clone.update({"transitions": data})
    ours, cloned = (-(each.act(data.obs[:, :1]).flatten() - 0.2).square() for each in (agent, clone))
    assert bool((ours > cloned + 0.05).all()), f"{ours.tolist()} against {cloned.tolist()}"
    assert bool((ours > float(data.rew.mean()) + 0.1).all())
