"""FamO2O: its code, its losses by hand, what is left of it without a family, and which coefficient it chooses."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from agents.offline.iql import IQL, IQLConfig
from agents.offline_to_online.fam_o2o import FamO2O, FamO2OConfig, code
from pbrl import rng
from pbrl.data.source import Transitions
from pbrl.descent import descent
from pbrl.errors import InputError
from pbrl.members import sweep
from pbrl.optim import Adam
from pbrl.spec import Spec

from .twins import DOUBLE, SPEC, B, bandit, constant, inner, noise_batch, numbers, weights

SMALL: dict[str, Any] = {"hidden": (8,), "batch_size": B, "lr": 1e-2}
BANDIT = Spec("bandit", 1, 1)


def fam(values: dict[str, list[Any]] | None = None, **settings: Any) -> FamO2O:
    return FamO2O(SPEC, sweep(FamO2OConfig(**(SMALL | settings)), [0], values, dtype=DOUBLE))


def losses(agent: FamO2O, data: Transitions) -> tuple[Tensor, Tensor, Tensor]:
    return agent._losses(data, agent.keys)[:3]


# --- the code and the losses ------------------------------------------------------------------------------------------


def test_the_code_is_six_sines_and_cosines() -> None:
    beta = numbers(0.0, 1.0, 3.7)[None]
    found = code(beta)
    assert found.shape == (1, 3, 6)
    for i, value in enumerate((0.0, 1.0, 3.7)):
        angles = [value / 10_000 ** (2 * j / 6) for j in range(3)]
        expected = [f(angle) for angle in angles for f in (math.sin, math.cos)]
        torch.testing.assert_close(found[0, i], numbers(*expected))


@pytest.mark.parametrize("online", [False, True])
def test_without_spread_its_critics_are_iqls_and_its_policys_loss_too(online: bool) -> None:
    """One coefficient is IQL's temperature; the policies are made to say the same."""
    agent = fam(spread=0.0, temperature=4.0)
    plain = IQL(SPEC, sweep(IQLConfig(**SMALL, temperature=4.0), [0], dtype=DOUBLE))
    data = noise_batch()
    for each in (agent, plain):
        constant(inner(each.policy), 0.3, -0.2)
    if online:
        agent.go_online()
    ours, theirs = agent._losses(data, agent.keys), plain._losses(data, None)
    for name in ("loss_v", "loss_q", "loss_pi"):
        torch.testing.assert_close(ours[3][name], theirs[3][name], rtol=1e-12, atol=1e-12)


def test_the_policys_loss_is_weighed_by_each_rows_own_coefficient() -> None:
    """Offline uniform in temperature +- spread, by the member's key."""
    agent, data = fam(temperature=2.0, spread=1.5), noise_batch()
    place = 2.0 * rng.uniform(rng.fold(agent.keys, "beta"), B, 1, dtype=DOUBLE) - 1.0
    beta = 2.0 + 1.5 * place.squeeze(-1)
    assert bool(((beta >= 0.5) & (beta <= 3.5)).all())
    pair = torch.cat([data.obs, data.act], -1)
    advantage = agent.target(pair).squeeze(-1).amin(1) - agent.v(data.obs).squeeze(-1)
    head = agent.policy(torch.cat([data.obs, code(beta)], -1))
    expected = -((beta * advantage).exp().clamp(max=100.0) * head.log_prob(data.act)).mean(1)
    torch.testing.assert_close(agent._losses(data, agent.keys)[3]["loss_pi"], expected.detach(), rtol=1e-12, atol=0)


def test_online_the_coefficients_are_those_of_the_balance_policy() -> None:
    agent, data = fam(), noise_batch()
    offline = agent._losses(data, agent.keys)[3]["loss_pi"]
    agent.go_online()
    constant(inner(agent.balance), 0.8, -20.0)  # a point: tanh(0.8)
    beta = torch.full((1, B), 3.0 + 2.0 * math.tanh(0.8), dtype=DOUBLE)
    pair = torch.cat([data.obs, data.act], -1)
    advantage = agent.target(pair).squeeze(-1).amin(1) - agent.v(data.obs).squeeze(-1)
    head = agent.policy(torch.cat([data.obs, code(beta)], -1))
    expected = -((beta * advantage).exp().clamp(max=100.0) * head.log_prob(data.act)).mean(1).detach()
    found = agent._losses(data, agent.keys)[3]["loss_pi"]
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=0)
    assert not torch.allclose(found, offline, rtol=1e-3)


def test_awacs_critics_look_one_fresh_action_ahead() -> None:
    """gamma = 0: the goal is the reward; constant critics: every advantage is 0 and every weight 1."""
    agent, data = fam(backbone="awac", gamma=0.0), noise_batch()
    loss_v, loss_q, _ = losses(agent, data)
    pair = torch.cat([data.obs, data.act], -1)
    expected = (data.rew.unsqueeze(1) - agent.q(pair).squeeze(-1)).square().mean(-1).sum(1)
    torch.testing.assert_close(loss_q, expected)
    assert loss_v.tolist() == [0.0]
    assert "v" not in dict(agent.named_children())
    ahead = fam(backbone="awac", gamma=0.9)
    for net, value in ((ahead.q, 1.0), (ahead.target, 5.0)):
        constant(net, value, value + 2.0)
    _, loss_q, _ = losses(ahead, data)
    goal = data.rew + 0.9 * (1.0 - data.term) * 5.0
    torch.testing.assert_close(loss_q, (goal - 1.0).square().mean(1) + (goal - 3.0).square().mean(1))
    beta = 3.0 + 2.0 * (2.0 * rng.uniform(rng.fold(ahead.keys, "beta"), B, 1, dtype=DOUBLE) - 1.0).squeeze(-1)
    cloned = -ahead.policy(torch.cat([data.obs, code(beta)], -1)).log_prob(data.act).mean(1)
    torch.testing.assert_close(ahead._losses(data, ahead.keys)[3]["loss_pi"], cloned.detach())


@pytest.mark.parametrize("backbone", ["iql", "awac"])
def test_no_loss_trains_another_losss_network(backbone: str) -> None:
    agent = fam(backbone=backbone)
    parts = {"q": agent.q, "policy": agent.policy, "balance": agent.balance}
    value, critic, acting = losses(agent, noise_batch())
    reached = {
        (i, name): any(
            g is not None and bool(g.any())
            for g in torch.autograd.grad(
                loss.sum(), list(net.parameters()), allow_unused=True, retain_graph=True, materialize_grads=False
            )
        )
        for i, loss in enumerate((critic, acting))
        for name, net in parts.items()
    }
    assert {place for place, yes in reached.items() if yes} == {(0, "q"), (1, "policy"), (1, "balance")}
    assert value.requires_grad == (backbone == "iql")


def test_the_universal_policy_is_not_pulled_to_the_critics() -> None:
    """L_b reaches the balance policy alone: without weights on cloning nothing moves the universal one."""
    agent = fam(max_weight=1e-12)
    before, moved = weights(agent.policy), weights(agent.balance)
    loss = losses(agent, noise_batch())[2]
    grads = torch.autograd.grad(loss.sum(), list(agent.policy.parameters()), retain_graph=True)
    assert max(float(g.abs().max()) for g in grads) < 1e-9
    agent.update({"transitions": noise_batch()})
    assert any(not torch.equal(a, b) for a, b in zip(moved, weights(agent.balance)))
    assert len(before) == len(weights(agent.policy))


# --- the hand-over ----------------------------------------------------------------------------------------------------


def test_going_online_changes_no_action_and_twice_is_once() -> None:
    agent, data = fam(), noise_batch()
    before, drawn = agent.act(data.obs), agent.act(data.obs, rng.keys([4]))
    for _ in range(2):
        agent.go_online()
        assert torch.equal(agent.act(data.obs), before)
        assert torch.equal(agent.act(data.obs, rng.keys([4])), drawn)
    other = fam()
    other.load_state_dict(agent.state_dict())
    a, b = (each._losses(data, agent.keys)[3]["loss_pi"] for each in (agent, other))
    assert torch.equal(a, b), "a restored agent has forgotten that it plays"


# --- what it finds ----------------------------------------------------------------------------------------------------


def test_the_family_is_the_datas_weighed_by_each_coefficient() -> None:
    """Three arms: the mean of mu(a) exp(beta A(a)) for every beta, by one network."""
    arms, reward = numbers(-0.8, 0.1, 0.8), numbers(0.0, 0.5, 1.0)
    mu = numbers(0.5, 0.25, 0.25)
    act = arms[torch.tensor([0, 0, 1, 2])].repeat(4)[:, None]
    rew = reward[torch.tensor([0, 0, 1, 2])].repeat(4)
    config = FamO2OConfig(
        hidden=(16, 16), lr=3e-3, temperature=2.5, spread=2.5, expectile=0.5, target_rate=0.2, rewards="raw"
    )
    agent = FamO2O(BANDIT, sweep(config, [0], dtype=DOUBLE))
    data = bandit(act, rew)
    for _ in range(1400):
        agent.update({"transitions": data})
    found, expected = [], []
    for beta in (0.3, 1.5, 3.0, 4.7):
        told = agent._told(data.obs[:, :1], torch.full((1, 1), beta, dtype=DOUBLE))
        found.append(agent.policy(told).mode().item())
        share = mu * (beta * reward).exp()
        expected.append(float((share * arms).sum() / share.sum()))
    assert found == pytest.approx(expected, abs=0.05)
    assert found == sorted(found)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_balance_policy_goes_where_the_critics_are_higher(sign: float) -> None:
    """pi_u acts tanh(beta / 5); critics that rise with the action draw beta up, those that fall draw it down."""
    config = FamO2OConfig(hidden=(), head="deterministic", balance_temperature=1e-3)
    agent = FamO2O(BANDIT, sweep(config, [0], dtype=DOUBLE))
    slow = 10_000 ** (4 / 6)  # of the slowest sine
    with torch.no_grad():
        for parameter in [*agent.policy.parameters(), *agent.target.parameters()]:
            parameter.zero_()
        inner(agent.policy).get_parameter("layers.0.weight")[0, 1 + 4, 0] = slow / 5
        agent.target.get_parameter("layers.0.weight")[0, :, 1, 0] = sign
    data = bandit(torch.zeros(8, 1), torch.zeros(8))
    adam = Adam(agent.balance.parameters(), torch.full((1,), 0.02, dtype=DOUBLE))
    descend = descent(lambda key: agent._losses(data, key)[2:], compile=False)
    for step in range(300):
        descend({adam: 1.0}, rng.fold(agent.keys, step))
    beta = agent._coefficient(agent.balance.choose(data.obs)).mean().item()
    assert beta == pytest.approx(3.0 + 2.0 * sign, abs=0.3)


def test_coefficients_below_zero_are_refused() -> None:
    with pytest.raises(InputError, match="spread is 4"):
        FamO2OConfig(temperature=3.0, spread=4.0)
