"""CQL: SAC at weight 0, the integral that it estimates, where its loss is stationary, its factor, and a twin."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from agents.off_policy.sac import SAC, SACConfig
from agents.offline.cql import CQL, CQLConfig
from pbrl import losses, rng
from pbrl.data.source import Transitions
from pbrl.errors import InputError
from pbrl.members import sweep

from .twins import (
    DOUBLE,
    SPEC,
    A,
    B,
    assert_same,
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
from .twins import weights as copied

SMALL: dict[str, Any] = {"hidden": (4,), "batch_size": B, "normalize_obs": False, "actions": 3}


def cql(seeds: int = 1, values: dict[str, list[Any]] | None = None, **settings: Any) -> CQL:
    return CQL(SPEC, sweep(CQLConfig(**(SMALL | settings)), range(seeds), values, dtype=DOUBLE))


# --- the gap ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slope", [0.1, 1.0, 3.0])
def test_the_sum_estimates_the_integral(slope: float) -> None:
    """Q(a) = c a on [-1, 1]: log of the integral of exp Q is log(2 sinh(c) / c); 10,000 uniform actions."""
    act = 2.0 * rng.uniform(rng.keys([1]), 10_000, 1, dtype=DOUBLE) - 1.0  # [1, K, 1]
    flat = torch.full_like(act, -math.log(2.0))
    gap = losses.conservative_gap(slope * act, flat, torch.zeros(1, 1, dtype=DOUBLE))
    assert float(gap) - math.log(10_000) == pytest.approx(math.log(2.0 * math.sinh(slope) / slope), abs=0.03)


def test_densities_make_up_for_where_actions_come_from() -> None:
    """The same integral from actions of a tilted density, rho(a) = (1 + a / 2) / 2."""
    u = rng.uniform(rng.keys([1]), 10_000, 1, dtype=DOUBLE)
    act = -2.0 + torch.sqrt(1.0 + 8.0 * u)  # the inverse of (a + a^2 / 4 + 3 / 4) / 2
    tilted = torch.log((1.0 + act / 2.0) / 2.0)
    gap = losses.conservative_gap(2.0 * act, tilted, torch.zeros(1, 1, dtype=DOUBLE))
    assert float(gap) - math.log(10_000) == pytest.approx(math.log(math.sinh(2.0)), abs=0.03)


def test_the_loss_is_stationary_where_theory_says() -> None:
    """One state, four actions, gamma = 0: w (softmax(Q) - mu) + mu (Q - r) = 0."""
    mu, rew, weight = numbers(0.1, 0.2, 0.3, 0.4), numbers(1.0, 0.0, -1.0, 0.5), 0.7
    q = torch.zeros(4, dtype=DOUBLE, requires_grad=True)
    adam = torch.optim.Adam([q], 0.02)
    for _ in range(1500):
        gap = losses.conservative_gap(q[:, None], torch.zeros(4, 1, dtype=DOUBLE), (mu * q).sum()[None])
        step(adam, (weight * gap + 0.5 * (mu * (q - rew).square()).sum()).sum())
    found = q.detach()
    residual = weight * (torch.softmax(found, 0) - mu) + mu * (found - rew)
    assert float(residual.abs().max()) < 1e-3


def test_of_constant_critics_the_gap_is_the_sum_of_inverse_densities() -> None:
    """Q cancels: 3 n terms, of which a uniform action's is 2^A."""
    agent = cql(actions=4000)
    constant(agent.q, 7.0, -2.0)
    constant(inner(agent.policy), *[0.0] * A, *[-1.0] * A)  # a tanh of a narrow normal
    known, gap = agent._known_and_gap(noise_batch(), agent.keys)
    assert known[0, :, 0].tolist() == [7.0, -2.0]
    # Each of the three kinds estimates 4000 times the area of the square of actions, or of what the policy reaches.
    for value in gap[0].detach().tolist():
        assert math.exp(value) / 4000 == pytest.approx(3 * 2**A, rel=0.15)


# --- limits -----------------------------------------------------------------------------------------------------------


def test_without_weight_it_is_sac() -> None:
    agent = cql(2, conservatism=0.0, backup_entropy=True, lr=1e-2, policy_lr=1e-2)
    config = SACConfig(hidden=(4,), batch_size=B, lr=1e-2)
    sac = SAC(SPEC, sweep(config, [0, 1], dtype=DOUBLE))
    for number in range(10):
        for each in (agent, sac):
            each.update({"transitions": noise_batch(2, number)})
    for ours, theirs in ((agent.q, sac.q), (agent.policy, sac.policy), (agent.target, sac.target)):
        assert_same(ours, theirs, 1e-9)
    torch.testing.assert_close(agent.log_alpha, sac.log_alpha, rtol=1e-9, atol=1e-9)


def test_weight_makes_critics_prefer_the_datas_actions() -> None:
    agent = cql(values={"conservatism": [0.0, 10.0]}, lr=1e-2, hidden=(16,))
    data = noise_batch()
    data = Transitions(*(x.expand(2, *x.shape[1:]) for x in (data.obs, data.act, data.rew, data.next_obs, data.term)))
    for _ in range(50):
        metrics = agent.update({"transitions": data})
    assert float(metrics["gap"][1]) < float(metrics["gap"][0]) - 0.5


# --- goals ------------------------------------------------------------------------------------------------------------


def test_goals_by_hand() -> None:
    """Constant targets (3, 2) and alpha = 0.5: with and without the entropy of the next action."""
    data, key = noise_batch(), rng.keys([3])
    found = []
    for entropy in (False, True):
        agent = cql(gamma=0.9, temperature=0.5, backup_entropy=entropy)
        constant(agent.target, 3.0, 2.0)
        constant(inner(agent.policy), *[0.0] * (2 * A))
        found.append(agent._goal(data, key)[0])
    noise = rng.normal(key, B, A, dtype=DOUBLE)[0]
    log_prob = (-0.5 * noise**2 - 0.5 * math.log(2 * math.pi) - torch.log(1 - torch.tanh(noise) ** 2)).sum(-1)
    going = numbers(1, 0, 1, 1, 1)
    torch.testing.assert_close(found[0], data.rew[0] + 0.9 * going * 2.0)
    torch.testing.assert_close(found[1], data.rew[0] + 0.9 * going * (2.0 - 0.5 * log_prob))


def test_of_several_next_actions_the_best_counts_critic_by_critic() -> None:
    """Qbar_1 = a_0 and Qbar_2 = -a_0: min(max a_0, max -a_0) over the actions of a state."""
    agent = cql(hidden=(), backup_actions=4, gamma=1.0)
    weight, bias = agent.target.parameters()
    with torch.no_grad():
        weight.zero_()
        bias.zero_()
        weight[0, :, SPEC.obs_size, 0] = numbers(1.0, -1.0)
    data, key = noise_batch(), rng.keys([3])
    act, _ = agent._draw(data.next_obs.repeat(1, 4, 1), key)
    first = act[0, :, 0].detach().reshape(4, B)
    best = torch.minimum(first.amax(0), (-first).amax(0))
    torch.testing.assert_close(agent._goal(data, key)[0], data.rew[0] + numbers(1, 0, 1, 1, 1) * best)


def test_entropy_and_several_next_actions_contradict_each_other() -> None:
    with pytest.raises(InputError, match="backup_entropy is on and backup_actions is 2"):
        CQLConfig(backup_entropy=True, backup_actions=2)


# --- the learned factor -----------------------------------------------------------------------------------------------


def test_the_factor_grows_while_the_gap_is_above_its_target_and_shrinks_below() -> None:
    agent = cql(values={"target_gap": [0.0, 1e-3, 1e3]}, lr=1e-2)
    data = noise_batch()
    data = Transitions(*(x.expand(3, *x.shape[1:]) for x in (data.obs, data.act, data.rew, data.next_obs, data.term)))
    first = agent.update({"transitions": data})
    torch.testing.assert_close(first["factor"], numbers(1.0, math.e, math.e))
    second = agent.update({"transitions": data})
    ratio = (second["factor"] / first["factor"]).tolist()
    assert ratio[0] == 1.0
    assert ratio[1:] == pytest.approx([math.exp(0.01), math.exp(-0.01)], rel=1e-4)  # a step of Adam
    with torch.no_grad():
        agent.log_factor.fill_(1e3)
    assert agent.update({"transitions": data})["factor"].tolist() == pytest.approx([1.0, 1e6, 1e6])


# --- an independent implementation ------------------------------------------------------------------------------------


def test_it_is_an_independent_one_for_ten_updates() -> None:
    """Per member, with torch's own modules, optimisers and distributions, with a learned factor; the loss is halved."""
    lr, slow_lr, gamma, rate, goal_gap, weight, n, member = 1e-2, 3e-3, 0.9, 0.1, 0.5, 2.0, 3, 1
    agent = cql(2, lr=lr, policy_lr=slow_lr, gamma=gamma, target_rate=rate, target_gap=goal_gap, conservatism=weight)
    qs, targets = copies(agent.q, member), copies(agent.target, member)
    policy = plain(inner(agent.policy), member)
    log_alpha = agent.log_alpha[member].detach().clone().requires_grad_()
    log_factor = torch.ones(1, dtype=DOUBLE, requires_grad=True)
    adam_q = torch.optim.Adam([p for q in qs for p in q.parameters()], lr)
    adam_factor = torch.optim.Adam([log_factor], lr)
    adam_pi = torch.optim.Adam([*policy.parameters(), log_alpha], slow_lr)

    def draw(obs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = policy(obs).chunk(2, -1)
        raw = mean + log_std.exp() * noise
        act = torch.tanh(raw)
        return act, (torch.distributions.Normal(mean, log_std.exp()).log_prob(raw) - torch.log(1 - act**2)).sum(-1)

    def value(q: nn.Module, obs: Tensor, act: Tensor) -> Tensor:
        out: Tensor = q(torch.cat([obs, act], -1)).squeeze(-1)
        return out

    for number in range(10):
        data = noise_batch(2, number)
        obs, act, rew, next_obs, term = own(data, member)
        key = rng.fold(agent.keys, "noise", number)
        target_key = rng.fold(key, "target")
        gap_key = rng.fold(target_key, "gap")
        noise, last = (rng.normal(each, B, A, dtype=DOUBLE)[member] for each in (target_key, rng.fold(key, "policy")))
        u = 2.0 * rng.uniform(rng.fold(gap_key, "uniform"), n * B, A, dtype=DOUBLE)[member] - 1.0
        drawn = [rng.normal(rng.fold(gap_key, word), n * B, A, dtype=DOUBLE)[member] for word in ("here", "there")]
        with torch.no_grad():
            next_act, _ = draw(next_obs, noise)
            best = torch.stack([value(q, next_obs, next_act) for q in targets]).amin(0)
            goal = rew + gamma * (1 - term) * best
        errors, gaps = [], []
        for q in qs:
            rows = []
            for k in range(n):
                part = slice(k * B, (k + 1) * B)
                rows.append(value(q, obs, u[part]) - A * math.log(0.5))
                for at, noises in zip((obs, next_obs), drawn):
                    with torch.no_grad():
                        fresh, density = draw(at, noises[part])
                    rows.append(value(q, obs, fresh) - density)
            known = value(q, obs, act)
            errors.append((known - goal).square().mean())
            gaps.append((torch.stack(rows).exp().sum(0).log() - known).mean())
        over = torch.stack(gaps) - goal_gap
        factor = log_factor.exp()
        step_q = 0.5 * (torch.stack(errors).sum() + factor.detach() * weight * over.sum())
        adam_factor.zero_grad()
        (-0.5 * weight * factor * over.detach().mean()).sum().backward()
        step(adam_q, step_q.sum())
        adam_factor.step()
        fresh, log_prob = draw(obs, last)
        best = torch.stack([value(q, obs, fresh) for q in qs]).amin(0)
        loss_pi = (log_alpha.exp().detach() * log_prob - best).mean()
        step(adam_pi, (loss_pi - log_alpha.exp() * (log_prob.detach() - A).mean()).sum())
        for target, q in zip(targets, qs):
            follow(target, q, rate)
        agent.update({"transitions": data})
    for ours, theirs in zip([*copies(agent.q, member), *copies(agent.target, member)], [*qs, *targets]):
        assert_same(ours, theirs, 1e-6)
    assert_same(plain(inner(agent.policy), member), policy, 1e-6)
    torch.testing.assert_close(agent.log_factor[member], log_factor, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(agent.log_alpha[member], log_alpha, rtol=1e-6, atol=1e-6)


def test_the_policy_has_a_learning_rate_of_its_own() -> None:
    agent = cql(lr=1e-2, policy_lr=1e-4)
    nets = (agent.q, agent.policy)
    before = [copied(net) for net in nets]
    agent.update({"transitions": noise_batch()})
    moved = [max(float((a - b).abs().max()) for a, b in zip(old, copied(net))) for old, net in zip(before, nets)]
    assert moved == pytest.approx([1e-2, 1e-4], rel=1e-3)
