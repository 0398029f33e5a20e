"""A2PR: which action the policy is drawn to, its losses by hand, TD3 and TD3+BC as its limits, a twin, two modes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from agents.offline.a2pr import A2PR, A2PRConfig, guide
from agents.offline.bc import BC, BCConfig
from agents.offline.td3_bc import TD3BC, TD3BCConfig, climb
from pbrl import rng
from pbrl.members import sweep
from pbrl.nets.action_vae import StackedActionVAE
from pbrl.nets.mlp import through
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

SMALL: dict[str, Any] = {"hidden": (4,), "vae_hidden": (5,), "batch_size": B}


def a2pr(seeds: int = 1, values: dict[str, list[Any]] | None = None, **settings: Any) -> A2PR:
    return A2PR(SPEC, sweep(A2PRConfig(**(SMALL | settings)), range(seeds), values, dtype=DOUBLE))


class Echo(nn.Module):
    """An autoencoder that makes a fixed action of whatever it is given."""

    def __init__(self, made: Tensor) -> None:
        super().__init__()
        self.made, self.latent = made, 2 * A

    def forward(self, _obs: Tensor, act: Tensor, _key: Tensor) -> tuple[Tensor, Tensor]:
        return self.made.expand_as(act), torch.zeros_like(act[..., 0])


# --- the autoencoder --------------------------------------------------------------------------------------------------


def test_the_autoencoder_by_hand() -> None:
    vae = StackedActionVAE(rng.keys([1, 2]), 3, 2, hidden=(6,), dtype=DOUBLE)
    data, key, member = noise_batch(2), rng.keys([7, 8]), 1
    encoder, decoder = plain(vae.encoder, member), plain(vae.decoder, member)
    mean, log_std = encoder(torch.cat([data.obs, data.act], -1)[member]).chunk(2, -1)
    normal = torch.distributions.Normal(mean, log_std.exp())
    z = mean + log_std.exp() * rng.normal(key, B, 4, dtype=DOUBLE)[member]
    made, divergence = vae(data.obs, data.act, key)
    torch.testing.assert_close(made[member], torch.tanh(decoder(torch.cat([data.obs[member], z], -1))))
    prior = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    torch.testing.assert_close(divergence[member], torch.distributions.kl_divergence(normal, prior).sum(-1))


@pytest.mark.parametrize(("raw", "kept"), [(-9.0, -4.0), (0.5, 0.5), (20.0, 15.0)])
def test_the_latents_log_deviation_is_bounded(raw: float, kept: float) -> None:
    vae = StackedActionVAE(rng.keys([1]), 3, 2, hidden=(), dtype=DOUBLE)
    constant(vae.encoder, *[0.25] * 4, *[raw] * 4)
    mean, log_std = vae.encode(torch.ones(1, 1, 3, dtype=DOUBLE), torch.ones(1, 1, 2, dtype=DOUBLE))
    assert mean.flatten().tolist() == [0.25] * 4
    assert log_std.flatten().tolist() == [kept] * 4


# --- which action -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("known", "made", "value", "take", "near"),
    [
        (1.0, 2.0, 0.0, True, True),
        (2.0, 1.0, 0.0, False, True),
        (1.0, 2.0, 3.0, True, False),
        (2.0, 1.0, 3.0, False, False),
        (1.0, 2.0, 1.5, True, True),
        (2.0, 1.0, 1.5, False, True),
        (1.0, 1.0, 1.0, True, True),  # ties: the made one is taken and drawn to,
        (1.0, 0.0, 1.0, False, False),  # the data's is not better than V
    ],
)
def test_truth_table(known: float, made: float, value: float, take: bool, near: bool) -> None:
    found = guide(numbers(known), numbers(made), numbers(value))
    assert [bool(each) for each in found] == [take, near]


@pytest.mark.parametrize("level", [-5.0, 0.2, 5.0])
def test_the_policys_loss_by_hand(level: float) -> None:
    """pi = 0 and made = (0.5, -0.5); Q_1(s, a) = a_0, so that the made action is better where a_0 <= 0.5."""
    agent = a2pr(hidden=(), alpha=0.0, cloning=0.7)
    agent.register_module("vae", Echo(numbers(0.5, -0.5)))
    constant(inner(agent.policy), *[0.0] * A)
    weight, bias = agent.q.parameters()
    with torch.no_grad():
        weight.zero_()
        bias.zero_()
        weight[0, :, SPEC.obs_size, 0] = 1.0
    data = noise_batch()
    value = torch.full((1, B), level, dtype=DOUBLE)
    loss, metrics = agent._guided_loss(data, value, agent.keys)
    terms = []
    for act in data.act[0].tolist():
        best = [0.5, -0.5] if act[0] <= 0.5 else act
        drawn = level <= 0.5 or act[0] > level
        terms.append(drawn * (best[0] ** 2 + best[1] ** 2) / 2)
    assert float(loss.detach()) == pytest.approx(0.7 * sum(terms) / B, rel=1e-12)
    assert float(metrics["made"]) == pytest.approx(float((data.act[0, :, 0] <= 0.5).double().mean()))


# --- losses -----------------------------------------------------------------------------------------------------------


def test_values_by_hand_numbers() -> None:
    """Qbar = (3, 2), Q = (1, 5) and V = 7: V is drawn to the smaller of both goals."""
    for q, lower in (((1.0, 5.0), 1.0), ((6.0, 5.0), 2.0)):
        agent = a2pr(gamma=0.9)
        constant(agent.target, 3.0, 2.0)
        constant(agent.q, *q)
        constant(agent.v, 7.0)
        data = noise_batch()
        going = numbers(1, 0, 1, 1, 1)  # row 1 bootstraps nothing
        goal = data.rew[0] + 0.9 * going * 2.0
        loss, metrics = agent._critic_loss(data, rng.keys([3]))
        expected_v = (data.rew[0] + 0.9 * going * lower - 7.0).square().mean()
        torch.testing.assert_close(metrics["loss_v"][0], expected_v)
        torch.testing.assert_close(metrics["loss_q"][0], sum((goal - each).square().mean() for each in q))
        torch.testing.assert_close(loss[0].detach(), metrics["loss_v"][0] + metrics["loss_q"][0])


def test_the_autoencoder_learns_good_actions_alone() -> None:
    """Q_1 = 1 everywhere: all actions are good below that value, none at it; the divergence counts for all."""
    agent = a2pr(vae_weight=3.0)
    constant(agent.q, 1.0, -9.0)
    data = noise_batch()
    made, divergence = agent.vae(data.obs, data.act, agent.keys)
    extra = divergence.mean() / (4 * A)
    value = torch.full((1, B), 1.0, dtype=DOUBLE)
    torch.testing.assert_close(agent._vae_loss(data, value, agent.keys)[0][0], extra)
    every = agent._vae_loss(data, value - 1e-6, agent.keys)[0][0]
    torch.testing.assert_close(every, 3.0 * (made - data.act).square().mean() + extra)
    value[0, 2:] = 0.0
    some = agent._vae_loss(data, value, agent.keys)[0][0]
    torch.testing.assert_close(some, 3.0 * (made - data.act)[0, 2:].square().sum() / (B * A) + extra)


def test_gradients_stay_in_their_networks() -> None:
    agent, data = a2pr(), noise_batch()
    value = torch.zeros(1, B, dtype=DOUBLE) - 9.0
    nets: dict[str, nn.Module] = {"q": agent.q, "v": agent.v, "vae": agent.vae, "policy": agent.policy}
    losses: list[tuple[Tensor, set[str]]] = [
        (agent._critic_loss(data, agent.keys)[0], {"q", "v"}),
        (agent._vae_loss(data, value, agent.keys)[0], {"vae"}),
        (agent._guided_loss(data, value, agent.keys)[0], {"policy"}),
    ]
    for loss, reached in losses:
        for name, net in nets.items():
            grads = torch.autograd.grad(loss.sum(), list(net.parameters()), allow_unused=True, retain_graph=True)
            assert any(grad is not None and bool(grad.any()) for grad in grads) == (name in reached), name


# --- limits -----------------------------------------------------------------------------------------------------------


def test_without_cloning_the_policy_climbs_as_td3s_does() -> None:
    agent, data = a2pr(cloning=0.0), noise_batch()
    loss, _ = agent._guided_loss(data, torch.zeros(1, B, dtype=DOUBLE), agent.keys)
    act = agent.policy(data.obs).mode()
    value = through(agent.q, torch.cat([data.obs, act], -1))[:, 0].squeeze(-1)
    torch.testing.assert_close(loss, climb(value, agent.alpha), rtol=1e-12, atol=1e-12)
    parameters = list(agent.policy.parameters())
    ours, theirs = (torch.autograd.grad(each.sum(), parameters) for each in (loss, agent._actor_loss(data)[0]))
    one, other = (torch.cat([grad.flatten() for grad in grads]) for grads in (ours, theirs))
    assert float(nn.functional.cosine_similarity(one, other, dim=0)) == pytest.approx(1.0, abs=1e-9)


def test_where_nothing_made_is_better_and_all_is_near_its_loss_is_td3_bcs() -> None:
    agent, data = a2pr(cloning=1.0, alpha=2.5), noise_batch()
    other = TD3BC(SPEC, sweep(TD3BCConfig(hidden=(4,), batch_size=B), [0], dtype=DOUBLE))
    other.q.load_state_dict(agent.q.state_dict())
    other.policy.load_state_dict(agent.policy.state_dict())

    class Same(nn.Module):
        def forward(self, _obs: Tensor, _act: Tensor, _key: Tensor) -> tuple[Tensor, Tensor]:
            return data.act, data.rew

    agent.register_module("vae", Same())
    loss, _ = agent._guided_loss(data, torch.full((1, B), -math.inf, dtype=DOUBLE), agent.keys)
    torch.testing.assert_close(loss, other._actor_loss(data)[0], rtol=1e-12, atol=1e-12)


# --- an independent implementation ------------------------------------------------------------------------------------


def test_it_is_an_independent_one_for_ten_updates() -> None:
    """Per member, with torch's own modules, optimisers and divergences."""
    lr, vae_lr, gamma, rate, member = 1e-2, 3e-3, 0.9, 0.1, 1
    settings: dict[str, Any] = {"lr": lr, "vae_lr": vae_lr, "gamma": gamma, "target_rate": rate, "alpha": 0.8}
    agent = a2pr(2, **settings, cloning=0.6, vae_weight=1.5)
    qs, targets = copies(agent.q, member), copies(agent.target, member)
    policy, slow = plain(inner(agent.policy), member), plain(inner(agent.target_policy), member)
    v, encoder, decoder = (plain(net, member) for net in (agent.v, agent.vae.encoder, agent.vae.decoder))
    adam_q = torch.optim.Adam([p for q in [*qs, v] for p in q.parameters()], lr)
    adam_pi = torch.optim.Adam(policy.parameters(), lr)
    adam_vae = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], vae_lr)

    def value(q: nn.Module, obs: Tensor, act: Tensor) -> Tensor:
        out: Tensor = q(torch.cat([obs, act], -1)).squeeze(-1)
        return out

    def make(obs: Tensor, act: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = encoder(torch.cat([obs, act], -1)).chunk(2, -1)
        divergence = 0.5 * (log_std.exp().square() + mean.square() - 1 - 2 * log_std)
        return torch.tanh(decoder(torch.cat([obs, mean + log_std.exp() * noise], -1))), divergence

    shares = []
    for number in range(10):
        data = noise_batch(2, number)
        obs, act, rew, next_obs, term = own(data, member)
        smooth = rng.normal(rng.fold(agent.keys, "smoothing", number), B, A, dtype=DOUBLE)[member]
        key = rng.fold(agent.keys, "made", number)
        noises = [rng.normal(rng.fold(key, word), B, 2 * A, dtype=DOUBLE)[member] for word in ("data", "policy")]
        with torch.no_grad():
            before = v(obs).squeeze(-1)
            next_act = (torch.tanh(slow(next_obs)) + (0.2 * smooth).clamp(-0.5, 0.5)).clamp(-1, 1)
            goal, fresh = (
                rew
                + gamma * (1 - term) * torch.min(value(nets[0], next_obs, next_act), value(nets[1], next_obs, next_act))
                for nets in (targets, qs)
            )
        errors = [(value(q, obs, act) - goal).square().mean() for q in qs]
        step(adam_q, errors[0] + errors[1] + (v(obs).squeeze(-1) - torch.min(goal, fresh)).square().mean())
        with torch.no_grad():
            known = value(qs[0], obs, act)
        pi = torch.tanh(policy(obs))
        with torch.no_grad():
            made, _ = make(obs, pi, noises[1])
            of_made = value(qs[0], obs, made)
            best = torch.where((of_made >= known)[:, None], made, act)
            near = ((of_made >= before) | (known > before)).double()
            shares.append(float((of_made >= known).double().mean()))
        again, divergence = make(obs, act, noises[0])
        good = (known > before).double()
        step(adam_vae, 1.5 * (good[:, None] * (again - act).square()).mean() + 0.5 * divergence.mean())
        if number % 2:
            worth = value(qs[0], obs, pi)
            pull = (near[:, None] * (pi - best).square()).mean()
            step(adam_pi, -0.8 / worth.abs().mean().detach() * worth.mean() + 0.6 * pull)
            for target, source in zip([*targets, slow], [*qs, policy]):
                follow(target, source, rate)
        agent.update({"transitions": data})
    assert 0.0 < sum(shares) < 10.0  # both kinds of action were taken
    for ours, theirs in zip([*copies(agent.q, member), plain(agent.v, member)], [*qs, v]):
        assert_same(ours, theirs, 1e-6)
    for net, theirs in ((agent.vae.encoder, encoder), (agent.vae.decoder, decoder), (inner(agent.policy), policy)):
        assert_same(plain(net, member), theirs, 1e-6)


def test_the_policy_and_the_targets_wait_for_their_turn() -> None:
    agent = a2pr(delay=3, target_rate=0.5)
    waiting = [agent.policy, agent.target, agent.target_policy]
    state = [p for net in waiting for p in weights(net)]
    vae = weights(agent.vae)
    for number in range(2):
        assert "loss_pi" not in agent.update({"transitions": noise_batch(1, number)})
    assert all(map(torch.equal, state, [p for net in waiting for p in weights(net)]))
    assert not all(map(torch.equal, vae, weights(agent.vae)))
    assert "loss_pi" in agent.update({"transitions": noise_batch(1, 2)})


# --- two modes --------------------------------------------------------------------------------------------------------


def test_of_two_modes_it_finds_the_good_one_where_cloning_lies_between() -> None:
    """Half the actions near -0.6, half near 0.4, which pays; two deviations of either mode are 0.3; five seeds."""
    spec = Spec("bandit", 1, 1)
    noise = 0.15 * rng.normal(rng.keys([1]), 64, 1, dtype=DOUBLE)[0]
    act = torch.where(torch.arange(64)[:, None] % 2 == 0, -0.6, 0.4) + noise
    data = bandit(act, 2.0 - (act[:, 0] - 0.4).square(), members=5)
    config = A2PRConfig(hidden=(16,), vae_hidden=(16,), lr=1e-2, vae_lr=1e-2, cloning=1.0, alpha=1.0)
    agent = A2PR(spec, sweep(config, range(5), dtype=DOUBLE))
    clone = BC(spec, sweep(BCConfig(hidden=(16,), lr=1e-2), range(5), dtype=DOUBLE))
    for number in range(300):
        agent.update({"transitions": data})
        if number < 200:
            clone.update({"transitions": data})
    ours, cloned = (each.act(data.obs[:, :1]).flatten() for each in (agent, clone))
    assert int(((ours - 0.4).abs() < 0.3).sum()) >= 4, ours.tolist()
    assert bool(((cloned + 0.1).abs() < 0.15).all()), cloned.tolist()
