"""The reward model against maximum likelihood, and P-IQL: its rewards reach IQL."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from agents.offline.iql import IQL
from agents.preference.p_iql import PIQL, PIQLConfig
from agents.preference.reward_model import RewardModel, RewardModelConfig
from pbrl import losses, rng
from pbrl.data import Dataset, Pairs, Preferences
from pbrl.data.source import LabelledPairs, Source
from pbrl.errors import InputError
from pbrl.labelers.teachers import partial_return_labeler
from pbrl.loops import offline
from pbrl.members import sweep
from pbrl.spec import Spec

DOUBLE = torch.float64
KEY = rng.keys([70])[0]
SPEC = Spec("test", 3, 2)
WEIGHT = torch.tensor([0.8, -0.5, 0.3, 1.0, -0.7], dtype=DOUBLE)


def answered(count: int, length: int = 3) -> LabelledPairs:
    """Pairs answered by a Bernoulli teacher whose reward is linear in five features."""
    obs = rng.normal(rng.fold(KEY, "obs"), count, 2, length, 3, dtype=DOUBLE)
    act = 2 * rng.uniform(rng.fold(KEY, "act"), count, 2, length, 2, dtype=DOUBLE) - 1
    total = (torch.cat([obs, act], dim=-1) @ WEIGHT).sum(-1)
    chance = rng.uniform(rng.fold(KEY, "label"), count, dtype=DOUBLE)
    label = (chance < (total[:, 1] - total[:, 0]).sigmoid()).to(DOUBLE)
    return LabelledPairs(obs[None], act[None], label[None])


def newton(features: Tensor, label: Tensor) -> Tensor:
    """The maximum-likelihood weights of a logistic regression, by Newton's method."""
    weight = torch.zeros(features.shape[1], dtype=DOUBLE)
    for _ in range(30):
        chance = (features @ weight).sigmoid()
        hessian = features.T @ (features * (chance * (1 - chance))[:, None])
        weight = weight + torch.linalg.solve(hessian, features.T @ (label - chance))
    return weight


def model(values: dict[str, list[Any]] | None = None, **changes: Any) -> RewardModel:
    settings: dict[str, Any] = {"hidden": (), "ensemble": 1, "bounded": False, "lr": 0.02}
    return RewardModel(SPEC, sweep(RewardModelConfig(**(settings | changes)), [0], values, dtype=DOUBLE))


@pytest.mark.parametrize(("aggregate", "scale"), [("sum", 1.0), ("mean", 3.0)])
def test_a_linear_model_reaches_the_maximum_likelihood_weights(aggregate: Any, scale: float) -> None:
    """ "mean" over three steps is a temperature: the same labels need weights three times as large."""
    pairs = answered(20_000)
    features = torch.cat([pairs.obs, pairs.act], dim=-1)[0].sum(2)
    expected = newton(features[:, 1] - features[:, 0], pairs.label[0])
    assert (expected - WEIGHT).abs().max() < 0.1  # the labels do say something
    learner = model(aggregate=aggregate, batch_size=20_000, lr=0.02 * scale)
    for _ in range(400):
        learner.update({"pairs": pairs})
    found = learner.net.get_parameter("layers.0.weight").detach()[0, 0, :, 0]
    torch.testing.assert_close(found, scale * expected, rtol=0.0, atol=1e-4)


def test_the_loss_is_the_cross_entropy_of_the_difference_of_sums() -> None:
    learner = model(ensemble=2, bounded=True, hidden=(8,), batch_size=16)
    pairs = answered(32)
    steps = torch.tanh(learner.net(torch.cat([pairs.obs, pairs.act], dim=-1).flatten(1, 3)).squeeze(-1))  # [1, E, rows]
    total = steps.reshape(2, 32, 2, 3).sum(-1)
    difference = total[..., 1] - total[..., 0]
    loss = losses.bradley_terry(difference, pairs.label)
    found = learner.update({"pairs": pairs})
    # Copy 0 is fitted on the first half of the batch, copy 1 on the second.
    expected = (loss[0, :16].mean() + loss[1, 16:].mean()) / 2
    torch.testing.assert_close(found["loss_reward"], expected.detach()[None], rtol=1e-12, atol=1e-12)
    right = losses.accuracy(torch.cat([difference[0, :16], difference[1, 16:]]).detach(), pairs.label[0])
    torch.testing.assert_close(found["accuracy"], right[None])


def test_a_constant_in_the_reward_leaves_the_loss() -> None:
    one, other = model(batch_size=64), model(batch_size=64)
    with torch.no_grad():
        other.net.get_parameter("layers.0.bias").add_(5.0)
    pairs = answered(64)
    for _ in range(3):  # nor is it learned away: its gradient is zero
        found = (one.update({"pairs": pairs})["loss_reward"], other.update({"pairs": pairs})["loss_reward"])
        torch.testing.assert_close(*found, rtol=1e-10, atol=1e-10)
    gap = other.reward(pairs.obs, pairs.act) - one.reward(pairs.obs, pairs.act)
    assert float((gap - 5.0).abs().max()) < 1e-6


def test_the_reward_is_the_mean_of_the_copies_for_any_axes() -> None:
    learner = model(ensemble=3, bounded=True, hidden=(8,))
    pairs = answered(6)
    reward = learner.reward(pairs.obs, pairs.act)
    assert reward.shape == (1, 6, 2, 3)
    assert not reward.requires_grad
    each = learner.each(pairs.obs.flatten(1, 3), pairs.act.flatten(1, 3))
    assert each.shape == (1, 3, 36)
    torch.testing.assert_close(reward.flatten(), each.detach().mean(1).flatten())
    assert float(each.detach().std(1).min()) > 0  # the copies differ


@pytest.mark.parametrize("bounded", [True, False])
def test_bounded_rewards_stay_below_one(bounded: bool) -> None:
    learner = model(bounded=bounded)
    pairs = answered(50)
    large = learner.reward(1e3 * pairs.obs, pairs.act).abs().max()
    assert (float(large) <= 1.0) == bounded


# --- P-IQL ------------------------------------------------------------------------------------------------------------

SMALL: dict[str, Any] = {
    "hidden": (16,),
    "batch_size": 32,
    "lr": 3e-3,
    "gamma": 0.0,
    "temperature": 10.0,
    "actor_decay": 0,
    "reward_hidden": (16,),
    "reward_batch_size": 16,
    "reward_lr": 3e-3,
    "reward_updates": 200,
}


def bandit() -> tuple[Dataset, Preferences]:
    """Ten-step episodes of random actions; the labels want the first number of the action to be high."""
    count = 1000
    act = 2 * rng.uniform(rng.fold(KEY, "bandit"), count, 2) - 1
    trunc = torch.arange(count) % 10 == 9
    data = Dataset.from_arrays(
        torch.zeros(count, 3), act, act[:, 0], torch.zeros(count, dtype=torch.bool), trunc, torch.zeros(count, 3)
    )
    pairs = Pairs.sample(data, 200, 3, rng.fold(KEY, "pairs"))
    return data, partial_return_labeler()(pairs, KEY)


def trained(source: Source, updates: int, members: int = 2, **changes: Any) -> PIQL:
    learner = PIQL(SPEC, sweep(PIQLConfig(**(SMALL | changes)), [0] * members))
    for _ in offline(learner, source, updates, every=updates):
        pass
    return learner


def test_flipped_labels_teach_the_opposite() -> None:
    """Two members of one stack with one seed and opposite labels: the policy follows the labels and nothing else."""
    data, preferences = bandit()
    flipped = dataclasses.replace(preferences, label=1.0 - preferences.label)
    learner = trained(Source.of(data, [preferences, flipped]), 600)
    high, low = learner.act(torch.zeros(2, 1, 3))[:, 0, 0].tolist()
    assert high > 0.3
    assert low < -0.3
    ends = torch.tensor([[-0.9, 0.0], [0.9, 0.0]]).expand(2, -1, -1)
    reward = learner.reward(torch.zeros(2, 2, 3), ends)
    assert reward[0, 0] < reward[0, 1]
    assert reward[1, 0] > reward[1, 1]


def test_the_true_reward_is_never_read() -> None:
    data, preferences = bandit()
    one = trained(Source.of(data, preferences), 210, 1)
    other = trained(Source.of(data.with_reward(-100.0 * data.rew), preferences), 210, 1)
    for ours, theirs in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_the_stages_follow_each_other() -> None:
    data, preferences = bandit()
    source = Source.of(data, preferences)
    learner = PIQL(SPEC, sweep(PIQLConfig(**(SMALL | {"reward_updates": 3})), [0]))
    assert learner.boundaries == (3,)
    fixed = [p.detach().clone() for p in learner.iql.parameters()]
    for _ in range(3):
        assert learner.wants() == {"pairs": 16 * 3}
        assert learner.prepare(source) is source
        assert set(learner.update(source.draw(learner.wants(), learner.keys, learner.updates))) == {
            "loss_reward",
            "accuracy",
        }
    assert all(torch.equal(p, old) for p, old in zip(learner.iql.parameters(), fixed))
    fixed = [p.detach().clone() for p in learner.model.parameters()]
    assert learner.wants() == {"transitions": 32}
    prepared = learner.prepare(source)
    metrics = learner.update(prepared.draw(learner.wants(), learner.keys, learner.updates))
    assert set(metrics) == {"loss_v", "loss_q", "loss_pi", "value"}
    assert all(torch.equal(p, old) for p, old in zip(learner.model.parameters(), fixed))
    assert (learner.updates, learner.model.updates, learner.iql.updates) == (4, 3, 1)


@pytest.mark.parametrize("rewards", ["return_range", "raw"])
def test_iql_gets_each_members_learned_rewards_on_its_scale(rewards: Any) -> None:
    data, preferences = bandit()
    source = Source.of(data, preferences)
    learner = PIQL(SPEC, sweep(PIQLConfig(**SMALL, rewards=rewards), [0, 1]))
    learner.model.count.value = 200
    prepared = learner.prepare(source).rew
    assert prepared is not None
    learned = learner.reward(data.obs.expand(2, -1, -1), data.act.expand(2, -1, -1))
    assert not torch.equal(learned[0], learned[1])
    returns = learned.reshape(2, 100, 10).sum(2)
    span = (returns.amax(1) - returns.amin(1))[:, None]
    torch.testing.assert_close(prepared, learned * 10 / span if rewards == "return_range" else learned)


def test_a_bias_is_added_after_scaling_and_decides_whether_an_early_end_is_good() -> None:
    """Labels tell no reward's zero. Steps whose action is above 0 in its first number end their episode."""
    act = 2 * rng.uniform(rng.fold(KEY, "ends"), 2000, 2) - 1
    term, zeros = act[:, 0] > 0, torch.zeros(2000, 3)
    trunc = (torch.arange(2000) == 1999) & ~term
    data = Dataset.from_arrays(zeros, act, act[:, 1], term, trunc, zeros)
    pairs = Pairs.sample(data, 50, 1, rng.fold(KEY, "pairs"))
    source = Source.of(data, partial_return_labeler()(pairs, KEY))
    settings: dict[str, Any] = {**SMALL, "gamma": 0.9, "reward_updates": 3, "lr": 1e-2}
    members = sweep(PIQLConfig(**settings), [0], {"reward_bias": [0.0, -20.0, 20.0]})
    learner = PIQL(SPEC, members)
    for _ in offline(learner, source, 3, every=3):
        pass
    prepared = learner.prepare(source).rew
    assert prepared is not None
    torch.testing.assert_close(prepared[1:], prepared[:1] + torch.tensor([[-20.0], [20.0]]))
    for _ in offline(learner, source, 300, every=300):
        pass
    _, flees, stays = learner.act(torch.zeros(3, 1, 3))[:, 0, 0].tolist()
    assert flees > 0.2
    assert stays < -0.2


def test_its_second_stage_is_iql_on_the_learned_rewards() -> None:
    data, preferences = bandit()
    source = Source.of(data, preferences)
    learner = trained(source, 200, 1)
    alone = IQL(SPEC, sweep(learner.config, [0]))
    relabelled = learner.prepare(source)
    for update in range(200, 205):
        batch = relabelled.draw(alone.wants(), alone.keys, update)
        alone.update(batch)
        learner.update(batch)
    for ours, theirs in zip(learner.iql.parameters(), alone.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_p_iql_needs_transitions_from_the_start() -> None:
    _, preferences = bandit()
    with pytest.raises(InputError, match="expected a data set"):
        trained(Source.of(preferences=preferences), 1, 1)
