"""Cal-QL: returns to go, CQL where there are none, critics that are not pushed below them, and returns online."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from agents.offline.cal_ql import CalQL, CalQLConfig
from agents.offline.cql import CQL, CQLConfig
from pbrl import losses, rng
from pbrl.data import Dataset
from pbrl.data.buffer import Buffer
from pbrl.data.source import Source, Transitions
from pbrl.data.to_go import returns_to_go
from pbrl.errors import InputError
from pbrl.members import sweep
from pbrl.spec import Spec

from .twins import DOUBLE, SPEC, B, assert_same, constant, noise_batch, numbers, weights

SMALL: dict[str, Any] = {
    "hidden": (4,),
    "batch_size": B,
    "actions": 3,
    "backup_actions": 2,
    "policy_lr": 1e-2,
    "lr": 1e-2,
}


def cal_ql(seeds: int = 1, values: dict[str, list[Any]] | None = None, **settings: Any) -> CalQL:
    return CalQL(SPEC, sweep(CalQLConfig(**(SMALL | settings)), range(seeds), values, dtype=DOUBLE))


def with_returns(batch: Transitions, to_go: float) -> Transitions:
    return dataclasses.replace(batch, to_go=torch.full_like(batch.rew, to_go))


# --- returns to go ----------------------------------------------------------------------------------------------------


def by_recursion(rew: list[float], term: bool, gamma: float) -> list[float]:
    ahead = 0.0 if term else sum(rew) / len(rew) / (1.0 - gamma)
    found = []
    for r in reversed(rew):
        ahead = r + gamma * ahead
        found.append(ahead)
    return found[::-1]


def test_returns_are_discounted_within_each_episode() -> None:
    rew, lengths = numbers(1, 2, -1, 0, 0, 5, 3), torch.tensor([2, 4, 1])
    term = torch.tensor([False, True, False, False, False, False, True])
    found = returns_to_go(rew, lengths, term, numbers(0.5, 0.9))
    for row, gamma in zip(found.tolist(), (0.5, 0.9)):
        expected = [*by_recursion([1, 2], True, gamma), *by_recursion([-1, 0, 0, 5], False, gamma), 3.0]
        assert row == pytest.approx(expected, rel=1e-12)


def test_failing_all_along_is_worth_failing_for_ever() -> None:
    found = returns_to_go(
        torch.full((7,), -5.0, dtype=DOUBLE), torch.tensor([7]), torch.zeros(7, dtype=torch.bool), numbers(0.99)
    )
    torch.testing.assert_close(found, torch.full_like(found, -500.0))


def test_each_member_may_have_rewards_of_its_own_and_no_discount() -> None:
    rew = numbers(1, 2, 3, 4).reshape(2, 2)
    found = returns_to_go(rew, torch.tensor([2]), torch.tensor([False, True]), numbers(1.0, 0.5))
    assert found.tolist() == [[3.0, 2.0], [5.0, 4.0]]


def episodes() -> Dataset:
    """Three of four steps, of which the second truly ends."""
    key = rng.keys([4])[0]
    obs, act = rng.normal(key, 12, SPEC.obs_size), torch.tanh(rng.normal(rng.fold(key, "act"), 12, SPEC.act_size))
    last = torch.arange(12) % 4 == 3
    term = last & (torch.arange(12) == 7)
    return Dataset.from_arrays(obs, act, obs[:, 0], term, last & ~term, obs + 1)


def test_preparing_adds_returns_by_each_members_discount_and_draws_tell_them() -> None:
    data = Source.of(episodes(), dtype=DOUBLE)
    agent = cal_ql(values={"gamma": [0.5, 0.9]})
    prepared = agent.prepare(data)
    batch = prepared.draw({"transitions": 40}, agent.keys, 0)["transitions"]
    assert batch.to_go is not None
    assert data.rew is not None
    for member, gamma in enumerate((0.5, 0.9)):
        rew = data.rew.tolist()
        known = [g for i in range(3) for g in by_recursion(rew[4 * i : 4 * i + 4], i == 1, gamma)]
        of_reward = dict(zip(rew, known))
        expected = [of_reward[r] for r in batch.rew[member].tolist()]
        assert batch.to_go[member].tolist() == pytest.approx(expected, rel=1e-9)
    assert prepared.with_reward(data.rew).to_go is None


def test_without_a_data_set_there_are_no_returns() -> None:
    with pytest.raises(InputError, match="expected a data set"):
        cal_ql().prepare(Source(3, None, None, None))


# --- the calibrated gap -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("returns", [None, -math.inf])
def test_without_returns_it_is_cql(returns: float | None) -> None:
    agent = cal_ql(2)
    names = {field.name for field in dataclasses.fields(CQLConfig)}
    config = CQLConfig(**{name: getattr(agent.config, name) for name in names})
    plain = CQL(SPEC, sweep(config, [0, 1], dtype=DOUBLE))
    for number in range(5):
        data = noise_batch(2, number)
        agent.update({"transitions": data if returns is None else with_returns(data, returns)})
        plain.update({"transitions": data})
    assert all(map(torch.equal, weights(agent), weights(plain)))


def test_no_gradient_pushes_down_what_lies_below_the_return() -> None:
    """Of the policy's actions; uniform ones are pushed down whatever they are."""
    agent = cal_ql()
    fresh = rng.normal(rng.keys([1]), 2, 9, B, dtype=DOUBLE).requires_grad_()
    for returns, own in ((1e6, 0.0), (-1e6, 1.0)):
        out = agent._calibrated(fresh, with_returns(noise_batch(), returns))
        (grad,) = torch.autograd.grad(out.sum(), [fresh])
        assert bool((grad[:, :, :3] == 1.0).all())
        assert bool((grad[:, :, 3:] == own).all())


def test_the_gap_by_hand_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Critics are 1 and 4 everywhere and G is 2: the policy's actions count as 2 for the first and 4 for the second."""
    agent, seen = cal_ql(), []
    constant(agent.q, 1.0, 4.0)

    def keep(fresh: Tensor, log_density: Tensor, known: Tensor) -> Tensor:
        seen.append(fresh)
        return torch.logsumexp(fresh - log_density, dim=-2) - known

    monkeypatch.setattr(losses, "conservative_gap", keep)
    agent._known_and_gap(with_returns(noise_batch(), 2.0), agent.keys)
    (fresh,) = seen
    for critic, (uniform, own) in enumerate(((1.0, 2.0), (4.0, 4.0))):
        assert bool((fresh[0, critic, :3] == uniform).all())
        assert bool((fresh[0, critic, 3:] == own).all())


def test_calibrated_critics_stay_above_conservative_ones() -> None:
    """With returns far above what CQL would say, values of the policy's actions end higher; five seeds."""
    settings: dict[str, Any] = {"conservatism": 10.0, "hidden": (16,), "gamma": 0.0}
    agents = [cal_ql(5, **settings), cal_ql(5, **settings)]
    for number in range(150):
        for agent, returns in zip(agents, (3.0, -math.inf)):
            agent.update({"transitions": with_returns(noise_batch(5, number % 3), returns)})
    obs = noise_batch(5).obs
    calibrated, pessimistic = (
        agent.q(torch.cat([obs, agent.act(obs)], -1)).squeeze(-1).detach().mean((1, 2)) for agent in agents
    )
    assert bool((calibrated > pessimistic).all()), f"{calibrated.tolist()} against {pessimistic.tolist()}"


# --- online -----------------------------------------------------------------------------------------------------------


def filled(steps: int, capacity: int = 40, data: Source | None = None) -> Buffer:
    """Two members with two streams: episodes of 3 and 5 steps, truly ending every second time."""
    buffer = Buffer(Spec("x", 1, 1), 2, capacity, streams=2, data=data, to_go_gamma=numbers(0.5, 0.9), dtype=DOUBLE)
    for number in range(steps):
        rew = rng.normal(rng.fold(rng.keys([1, 2]), number), 2, dtype=DOUBLE)
        end = torch.tensor([number % 3 == 2, number % 5 == 4]).expand(2, -1)
        true = end & torch.tensor([number % 2 == 0, number % 4 == 0])
        zero = torch.zeros(2, 2, 1, dtype=DOUBLE)
        buffer.add(zero, zero, rew, zero, true.to(DOUBLE), end & ~true)
    return buffer


def drawn_returns(buffer: Buffer) -> dict[float, float]:
    """To each reward its return to go, of both members."""
    batch = buffer.draw({"transitions": 4000}, rng.keys([5, 6]), 0)["transitions"]
    assert batch.to_go is not None
    return dict(zip(batch.rew.flatten().tolist(), batch.to_go.flatten().tolist()))


def test_steps_of_complete_episodes_have_returns_online() -> None:
    buffer = filled(16)
    found = drawn_returns(buffer)
    assert len(found) == 64
    for member, gamma in enumerate((0.5, 0.9)):
        for stream, length in enumerate((3, 5)):
            rew = buffer.rew[member, stream::2].tolist()
            whole = len(rew) // length * length
            for first in range(0, whole, length):
                true = bool(buffer.term[member, 2 * (first + length - 1) + stream] > 0)
                expected = by_recursion(rew[first : first + length], true, gamma)
                assert [found[r] for r in rew[first : first + length]] == pytest.approx(expected, rel=1e-9)
            assert all(found[r] == -math.inf for r in rew[whole:])


def test_returns_survive_a_full_ring_and_saving() -> None:
    buffer = filled(47, capacity=24)
    again = filled(0, capacity=24)
    again.load_state_dict(buffer.state_dict())
    assert drawn_returns(again) == drawn_returns(buffer)
    whole = drawn_returns(filled(47, capacity=200))
    assert all(whole[rew] == returns for rew, returns in drawn_returns(buffer).items())


def test_the_datas_returns_and_the_collected_ones_come_together() -> None:
    data = Source.of(
        Dataset.from_arrays(
            torch.ones(4, 1), torch.zeros(4, 1), torch.ones(4), torch.arange(4) == 3, torch.zeros(4) > 0
        ),
        dtype=DOUBLE,
    ).with_to_go(numbers(0.5, 0.5))
    found = drawn_returns(filled(5, data=data))
    assert 1.0 in found
    assert found[1.0] in (1.0, 1.5, 1.75, 1.875)
    assert len(found) > 10


def test_a_buffer_that_is_not_asked_tells_none() -> None:
    buffer = Buffer(Spec("x", 1, 1), 1, 10)
    zero = torch.zeros(1, 1, 1)
    buffer.add(zero, zero, zero[..., 0], zero, zero[..., 0], zero[..., 0].bool())
    assert buffer.draw({"transitions": 3}, rng.keys([0]), 0)["transitions"].to_go is None
    assert "to_go" not in buffer.state_dict()


def test_the_state_is_cqls() -> None:
    """Nothing that training changes is added, so that a Cal-QL can go on from a CQL."""
    agent = cal_ql()
    other = CQL(SPEC, sweep(CQLConfig(hidden=(4,)), [3], dtype=DOUBLE))
    agent.load_state_dict(other.state_dict())
    assert_same(agent.q, other.q)
