"""IQL: its three losses by hand, its fixed points, and what reaches what."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from agents.offline.iql import IQL, IQLConfig
from pbrl import losses, rng
from pbrl.data import Dataset
from pbrl.data.source import Source, Transitions
from pbrl.errors import InputError
from pbrl.members import sweep
from pbrl.spec import Spec

DOUBLE = torch.float64
SPEC = Spec("test", 3, 2)
KEY = rng.keys([60])[0]


def learner(values: dict[str, list[Any]] | None = None, **changes: Any) -> IQL:
    settings: dict[str, Any] = {"hidden": (8, 6), "lr": 1e-2, "batch_size": 4}
    config = IQLConfig(**(settings | changes))
    made = IQL(SPEC, sweep(config, [0], values, dtype=DOUBLE))
    with torch.no_grad():  # targets and deviations unlike their initial values, so that mixing them up shows
        for i, p in enumerate([*made.target.parameters(), made.policy.get_parameter("log_std")]):
            p.add_(0.3 * rng.normal(rng.fold(KEY, "move", i), *p.shape[1:], dtype=DOUBLE))
    return made


def batch(members: int = 1, count: int = 4) -> Transitions:
    """Rows of which every second truly terminates."""

    def normal(word: str, *shape: int) -> Tensor:
        return rng.normal(rng.fold(KEY, word), *shape, dtype=DOUBLE).expand(members, *shape)

    term = (torch.arange(count) % 2).to(DOUBLE).expand(members, -1)
    act = torch.tanh(normal("act", count, 2))
    return Transitions(normal("obs", count, 3), act, normal("rew", count), normal("next", count, 3), term)


# --- golden parity ----------------------------------------------------------------------------------------------------

Array = NDArray[np.float64]


def forward(net: nn.Module, x: Array, *place: int) -> Array:
    """One member's (and copy's) network written in numpy."""
    layers = [(w.detach().numpy()[place], b.detach().numpy()[place]) for w, b in zip(*[iter(net.parameters())] * 2)]
    for weight, bias in layers[:-1]:
        x = np.maximum(x @ weight + bias, 0.0)
    out: Array = x @ layers[-1][0] + layers[-1][1]
    return out


@pytest.mark.parametrize("cap", [100.0, 1.1])
@pytest.mark.parametrize("critics", [1, 2, 3])
def test_the_three_losses_are_those_written_by_hand(critics: int, cap: float) -> None:
    made = learner(gamma=0.9, expectile=0.8, temperature=5.0, max_weight=cap, critics=critics)
    data = batch()
    obs, act, rew, next_obs, term = (x[0].numpy() for x in (data.obs, data.act, data.rew, data.next_obs, data.term))
    pair = np.concatenate([obs, act], axis=1)
    target = np.min([forward(made.target, pair, 0, i)[:, 0] for i in range(critics)], axis=0)
    with torch.no_grad():  # so that advantages of both signs occur
        made.v.get_parameter("layers.2.bias").add_(float(np.mean(target - forward(made.v, obs, 0)[:, 0])))
    value, future = (forward(made.v, x, 0)[:, 0] for x in (obs, next_obs))
    u = target - value
    loss_v = np.mean(np.abs(0.8 - (u < 0)) * u**2)
    goal = rew + 0.9 * (1 - term) * future
    loss_q = sum(np.mean((goal - forward(made.q, pair, 0, i)[:, 0]) ** 2) for i in range(critics))
    mean = np.tanh(forward(made.policy.net, obs, 0))
    assert made.policy.log_std is not None
    log_std = np.clip(made.policy.log_std.detach().numpy()[0], -5.0, 2.0)
    density = -0.5 * ((act - mean) / np.exp(log_std)) ** 2 - log_std - 0.5 * np.log(2 * np.pi)
    weight = np.minimum(np.exp(5.0 * u), cap)
    assert int((np.exp(5.0 * u) > cap).sum()) in ((1, 2, 3) if cap == 1.1 else (0,))  # the cap is tested on and off
    loss_pi = -np.mean(weight * density.sum(1))
    found = made._losses(data, made.keys)
    for ours, expected in zip(found[:3], (loss_v, loss_q, loss_pi)):
        assert ours.item() == pytest.approx(float(expected), rel=1e-12)
    metrics = {name: float(x.detach()) for name, x in found[3].items()}
    expected_metrics = {"loss_v": loss_v, "loss_q": loss_q, "loss_pi": loss_pi, "value": value.mean()}
    assert metrics == pytest.approx({name: float(x) for name, x in expected_metrics.items()}, rel=1e-12)


# --- what reaches what ------------------------------------------------------------------------------------------------


def test_no_loss_trains_another_losss_network() -> None:
    made = learner()
    parts: dict[str, nn.Module] = {"v": made.v, "q": made.q, "pi": made.policy}
    for name, loss in zip(parts, made._losses(batch(), made.keys)):
        assert isinstance(loss, Tensor)
        for other, net in parts.items():
            grads = torch.autograd.grad(loss.sum(), list(net.parameters()), allow_unused=True, retain_graph=True)
            reached = [g is not None and bool(g.any()) for g in grads]
            assert all(reached) if name == other else not any(reached), f"d loss_{name} / d {other}"
    assert not any(p.requires_grad for p in made.target.parameters())


def test_the_target_follows_at_each_members_rate() -> None:
    made = learner({"target_rate": [0.0, 0.005, 1.0]})
    before = [p.detach().clone() for p in made.target.parameters()]
    made.update({"transitions": batch(3)})
    rate = torch.tensor([0.0, 0.005, 1.0], dtype=DOUBLE)
    for old, now, new in zip(before, made.target.parameters(), made.q.parameters()):
        share = rate.reshape(-1, *(1,) * (old.dim() - 1))
        torch.testing.assert_close(now, (1 - share) * old + share * new.detach(), rtol=1e-12, atol=1e-12)


def test_the_target_begins_as_the_critics() -> None:
    made = IQL(SPEC, sweep(IQLConfig(hidden=(8,)), [0, 1]))
    for target, critic in zip(made.target.parameters(), made.q.parameters(), strict=True):
        assert torch.equal(target, critic)


@pytest.mark.parametrize(
    ("decay", "update", "factor"),
    [
        (100, 0, 1.0),
        (100, 25, 0.5 + 0.5 * math.cos(math.pi / 4)),
        (100, 50, 0.5),
        (100, 100, 0.0),
        (100, 250, 0.0),
        (0, 9, 1.0),
    ],
)
def test_only_the_policys_learning_rate_falls_along_a_cosine(decay: int, update: int, factor: float) -> None:
    """The first step of a fresh Adam is lr * sign(gradient), which reads the rate off the weights."""
    made = learner(actor_decay=decay)
    made.count.value = update
    nets: list[tuple[nn.Module, float]] = [(made.q, 1.0), (made.v, 1.0), (made.policy, factor)]
    before = [[p.detach().clone() for p in net.parameters()] for net, _ in nets]
    made.update({"transitions": batch()})
    for old, (net, scale) in zip(before, nets):
        moved = max(float((p.detach() - o).abs().max()) for p, o in zip(net.parameters(), old))
        assert moved == pytest.approx(1e-2 * scale, rel=1e-4, abs=1e-12)


# --- fixed points -----------------------------------------------------------------------------------------------------

VALUES = torch.tensor([-1.0, 0.2, 0.5, 2.0, 7.0], dtype=DOUBLE)
CHANCE = torch.tensor([0.1, 0.3, 0.3, 0.2, 0.1], dtype=DOUBLE)


def expectile(level: float) -> float:
    """The root of sum_k p_k |level - 1(q_k < v)| (q_k - v), by bisection."""
    low, high = float(VALUES.min()), float(VALUES.max())
    for _ in range(200):
        middle = (low + high) / 2
        error = VALUES - middle
        slope = float((CHANCE * (level - (error < 0).to(DOUBLE)).abs() * error).sum())
        low, high = (middle, high) if slope > 0 else (low, middle)
    return low


@pytest.mark.parametrize("level", [0.5, 0.7, 0.9, 0.99])
def test_the_value_is_the_expectile(level: float) -> None:
    value = torch.zeros((), dtype=DOUBLE, requires_grad=True)
    adam = torch.optim.Adam([value], lr=0.05)
    for step in range(1500):
        adam.param_groups[0]["lr"] = 0.05 if step < 1000 else 0.001
        adam.zero_grad()
        (CHANCE * losses.expectile(VALUES - value, level)).sum().backward()
        adam.step()
    assert value.item() == pytest.approx(expectile(level), abs=1e-3)
    if level == 0.5:
        assert value.item() == pytest.approx(float((CHANCE * VALUES).sum()), abs=1e-3)


def test_iqls_own_value_is_the_expectile_of_its_target_critics() -> None:
    """One state, ten actions, a fixed target: V trained by ``update`` alone."""
    levels = [0.5, 0.7, 0.9]
    made = learner({"expectile": levels}, hidden=(), target_rate=0.0)
    data = batch(3, count=10)
    steps = Transitions(torch.ones_like(data.obs), data.act, data.rew, data.next_obs, data.term)
    with torch.no_grad():
        q = made.target(torch.cat([steps.obs, steps.act], dim=-1)).squeeze(-1).amin(1)
    for _ in range(1500):
        made.update({"transitions": steps})
    value = made.v(steps.obs[:, :1]).detach().flatten()
    for member, level in enumerate(levels):
        error = q[member] - value[member]
        slope = ((level - (error < 0).to(DOUBLE)).abs() * error).mean()
        assert abs(float(slope)) < 1e-4
    assert value[0] < value[1] < value[2]


def test_a_constant_more_of_reward_moves_values_and_nothing_else() -> None:
    """r + c with Q and V + c / (1 - gamma) has the same three losses where nothing terminates."""
    made = learner(gamma=0.9)
    data = batch()
    steps = Transitions(data.obs, data.act, data.rew, data.next_obs, torch.zeros_like(data.term))
    before = made._losses(steps, made.keys)[:3]
    with torch.no_grad():
        for net in (made.q, made.target, made.v):
            net.get_parameter("layers.2.bias").add_(0.7 / (1 - 0.9))
    after = made._losses(Transitions(steps.obs, steps.act, steps.rew + 0.7, steps.next_obs, steps.term), made.keys)[:3]
    for old, new in zip(before, after):
        torch.testing.assert_close(old, new, rtol=1e-11, atol=1e-11)


def test_without_temperature_the_policy_is_cloned() -> None:
    made = learner(temperature=0.0)
    data = batch()
    _, _, loss_pi, _ = made._losses(data, made.keys)
    torch.testing.assert_close(loss_pi, -made.policy(data.obs).log_prob(data.act).mean(1), rtol=1e-12, atol=1e-12)


# --- rewards ----------------------------------------------------------------------------------------------------------


def episodes() -> Dataset:
    """Returns 3, -1 and 7 over 2, 5 and 3 steps."""
    rew = torch.tensor([1.0, 2.0, -1.0, 0.0, 0.0, 0.0, 0.0, 7.0, 0.0, 0.0])
    trunc = torch.zeros(10, dtype=torch.bool)
    trunc[[1, 6, 9]] = True
    obs = torch.arange(30.0).reshape(10, 3)
    return Dataset.from_arrays(obs, torch.zeros(10, 2), rew, torch.zeros(10, dtype=torch.bool), trunc, obs + 1)


@pytest.mark.parametrize(("rewards", "factor"), [("return_range", 5 / (7 - -1)), ("raw", 1.0)])
def test_rewards_are_scaled_by_the_range_of_returns_and_not_shifted(rewards: Any, factor: float) -> None:
    data = Source.of(episodes(), dtype=DOUBLE)
    prepared = learner(rewards=rewards).prepare(data)
    assert data.rew is not None
    assert prepared.rew is not None
    torch.testing.assert_close(prepared.rew, data.rew * factor)
    assert prepared.rew[3] == 0.0


def test_each_member_may_bring_rewards_of_its_own() -> None:
    data = Source.of(episodes(), dtype=DOUBLE)
    assert data.rew is not None
    own = torch.stack([data.rew, -10.0 * data.rew])
    prepared = learner({"expectile": [0.7, 0.7]}).prepare(data.with_reward(own))
    torch.testing.assert_close(prepared.rew, torch.stack([data.rew, -data.rew]) * (5 / 8))


def test_constant_rewards_stay_finite() -> None:
    data = Source.of(episodes(), dtype=DOUBLE)
    assert data.rew is not None
    prepared = learner().prepare(data.with_reward(torch.zeros_like(data.rew)))
    assert prepared.rew is not None
    assert not prepared.rew.any()


def test_iql_needs_a_data_set() -> None:
    with pytest.raises(InputError, match="expected a data set"):
        learner().prepare(Source(3, None, None, None))
