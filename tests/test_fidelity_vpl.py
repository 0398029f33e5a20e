"""VPL tells users apart: its divergence and invariances exactly, what it learns of two opposite users, and a task."""

from __future__ import annotations

import dataclasses
import math
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

import envs
from agents.preference.p_iql import PIQL, PIQLConfig
from agents.preference.reward_model import RewardModel, RewardModelConfig
from agents.preference.vpl import VPL, VPLConfig
from pbrl import losses, rng
from pbrl.agent import Agent
from pbrl.data import Dataset, Pairs, Preferences, Segments
from pbrl.data.answered import answered
from pbrl.data.preferences import By
from pbrl.data.source import LabelledPairs, Source
from pbrl.errors import InputError
from pbrl.labelers.mixture import Mixture
from pbrl.labelers.teachers import Teacher
from pbrl.loops import offline
from pbrl.members import sweep
from pbrl.spec import Spec

from . import contract

DOUBLE = torch.float64
SMALL: dict[str, Any] = {
    "hidden": (8,),
    "reward_hidden": (8,),
    "latent": 3,
    "context": 4,
    "reward_batch_size": 5,
    "reward_updates": 4,
    "cycles": 1,
}


def small(members: int = 2, **changes: Any) -> VPL:
    spec = Spec("test", contract.OBS, contract.ACT)
    return VPL(spec, sweep(VPLConfig(**{**SMALL, **changes}), range(members), dtype=DOUBLE))


def some(members: int = 2, count: int = 20) -> LabelledPairs:
    key = rng.keys([40])[0]
    obs = rng.normal(rng.fold(key, "obs"), count, 2, 6, contract.OBS, dtype=DOUBLE)
    act = 2 * rng.uniform(rng.fold(key, "act"), count, 2, 6, contract.ACT, dtype=DOUBLE) - 1
    label = rng.indices(rng.fold(key, "label"), count, 3).to(DOUBLE) / 2
    return LabelledPairs(*(x.expand(members, *x.shape) for x in (obs, act, label)))


# --- the parts --------------------------------------------------------------------------------------------------------


def test_the_divergence_is_the_closed_form_with_its_half() -> None:
    key = rng.keys([1])[0]
    mean, log_var, prior_mean, prior_log_var = (rng.normal(rng.fold(key, i), 7, 3, dtype=DOUBLE) for i in range(4))

    def normal(centre: Tensor, log_variance: Tensor) -> torch.distributions.Distribution:
        return torch.distributions.Independent(torch.distributions.Normal(centre, (0.5 * log_variance).exp()), 1)

    expected = torch.distributions.kl_divergence(normal(mean, log_var), normal(prior_mean, prior_log_var))
    found = losses.gaussian_kl(mean, log_var, prior_mean, prior_log_var)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert float(losses.gaussian_kl(mean, log_var, mean, log_var).abs().max()) == 0.0


def test_the_order_of_answers_and_of_segments_is_a_matter_of_notation() -> None:
    learner, batch = small(), some()
    known = torch.ones(2, 1, 20, dtype=DOUBLE)
    mean, log_var = learner.rewards.posterior(batch, known)
    order = rng.permutation(rng.keys([3])[0], 20)
    shuffled = LabelledPairs(batch.obs[:, order], batch.act[:, order], batch.label[:, order])
    turned = LabelledPairs(batch.obs.flip(2), batch.act.flip(2), 1.0 - batch.label)
    for other in (shuffled, turned):
        for ours, theirs in zip((mean, log_var), learner.rewards.posterior(other, known)):
            torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    lie, _ = learner.rewards.posterior(dataclasses.replace(batch, label=1.0 - batch.label), known)
    assert float((lie - mean).detach().abs().max()) > 1e-4, "labels are not read"


def test_answers_that_are_left_out_change_nothing_and_more_answers_do() -> None:
    learner, batch = small(context=20), some()
    first = (torch.arange(20) < 5).to(DOUBLE).expand(2, 1, -1)
    cut = LabelledPairs(batch.obs[:, :5], batch.act[:, :5], batch.label[:, :5])
    kept, _ = learner.rewards.posterior(cut, torch.ones(2, 1, 5, dtype=DOUBLE))
    torch.testing.assert_close(learner.rewards.posterior(batch, first)[0], kept, rtol=1e-12, atol=1e-12)
    whole, _ = learner.rewards.posterior(batch, torch.ones(2, 1, 20, dtype=DOUBLE))
    assert float((whole - kept).detach().abs().max()) > 1e-4
    twice = LabelledPairs(*(torch.cat([x, x], dim=1) for x in (batch.obs, batch.act, batch.label)))
    again, _ = learner.rewards.posterior(twice, torch.ones(2, 1, 40, dtype=DOUBLE))
    torch.testing.assert_close(again, whole, rtol=1e-12, atol=1e-12)  # beyond ``context`` the mean counts


def test_a_batch_of_users_is_each_user_alone() -> None:
    learner, batch = small(), some()
    mean, _ = learner.rewards.posterior(batch, torch.ones(2, 5, 4, dtype=DOUBLE))
    for user in range(5):
        own = LabelledPairs(*(x[:, 4 * user : 4 * user + 4] for x in (batch.obs, batch.act, batch.label)))
        alone, _ = learner.rewards.posterior(own, torch.ones(2, 1, 4, dtype=DOUBLE))
        torch.testing.assert_close(mean[:, user : user + 1], alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("done", "beta"), [(0, 0.0), (1, 0.14644660940672624), (2, 0.5), (3, 0.8535533905932737)])
def test_beta_rises_along_a_cosine(done: int, beta: float) -> None:
    """Four updates in one cycle: members that differ in ``kl_weight`` alone differ by beta times the divergence."""
    spec = Spec("test", contract.OBS, contract.ACT)
    learner = VPL(spec, sweep(VPLConfig(**SMALL), [0], {"kl_weight": [0.0, 1.0, 2.0]}, dtype=DOUBLE))
    learner.count.value = done
    metrics = learner.update({"pairs": some(3)})
    expected = metrics["loss"][0] + beta * torch.tensor([0.0, 1.0, 2.0], dtype=DOUBLE) * metrics["kl"]
    torch.testing.assert_close(metrics["loss"], expected, rtol=1e-12, atol=1e-12)
    assert float(metrics["kl"].min()) > 1e-4


def test_users_are_known_by_one_answer_up_to_all_of_the_context(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = small(reward_updates=1000)
    counts: list[Tensor] = []
    bound = learner.rewards.bound

    def spy(pairs: LabelledPairs, known: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        assert bool((known.diff(dim=-1) <= 0).all()), "the first answers are the known ones"
        counts.append(known.sum(-1))
        found: tuple[Tensor, Tensor, Tensor] = bound(pairs, known, noise)
        return found

    monkeypatch.setattr(learner.rewards, "bound", spy)
    for _ in range(40):
        learner.update({"pairs": some()})
    share = torch.cat(counts, dim=1).flatten().long().bincount(minlength=5).double() / 400
    assert share[0] == 0.0
    assert bool(((share[1:] - 0.25).abs() < 4 * math.sqrt(0.1875 / 400)).all())


@pytest.mark.parametrize(("prior", "moves"), [("learned", True), ("standard", False)])
def test_the_prior_is_learned_or_standard(prior: Any, moves: bool) -> None:
    learner = small(prior=prior)
    for _ in range(3):
        learner.update({"pairs": some()})
    assert bool(learner.rewards.prior_mean.any() and learner.rewards.prior_log_var.any()) == moves


# --- the second stage -------------------------------------------------------------------------------------------------


def relabelled(**changes: Any) -> tuple[VPL, Dataset, Source]:
    dataset, preferences = contract.tiny_data()
    learner = small(trajectories=5, rewards="raw", **changes)
    learner.count.value = 4
    return learner, dataset, learner.prepare(Source.of(dataset, preferences, dtype=DOUBLE))


def test_trajectories_share_users_and_have_their_rewards() -> None:
    """Twelve trajectories of ten steps, five to a user: rows 0-49, 50-99 and 100-119."""
    learner, dataset, source = relabelled()
    assert source.context is not None
    assert source.context_of is not None
    assert source.rew is not None
    assert torch.equal(source.context_of, torch.arange(120) // 50)
    assert source.context.shape == (2, 3, 3)
    assert len(source.context.flatten(0, 1).unique(dim=0)) == 6
    obs, act = (x.to(DOUBLE).expand(2, -1, -1) for x in (dataset.obs, dataset.act))
    expected = learner.rewards.decode(obs, act, source.context[:, torch.arange(120) // 50])
    torch.testing.assert_close(source.rew, expected.detach(), rtol=1e-12, atol=1e-12)


def test_spo_rewards_are_probabilities_of_being_better_than_the_data() -> None:
    (learner, dataset, source), (_, _, plain) = relabelled(scale="spo"), relabelled()
    assert source.rew is not None
    assert plain.rew is not None
    assert float(source.rew.min()) > 0.0
    assert float(source.rew.max()) < 1.0
    assert plain.context is not None
    for group, rows in enumerate((slice(0, 50), slice(50, 100), slice(100, 120))):
        latent = plain.context[:, group : group + 1].expand(-1, 120, -1)
        obs, act = (x.to(DOUBLE).expand(2, -1, -1) for x in (dataset.obs, dataset.act))
        every = learner.rewards.decode(obs, act, latent).detach()
        exact = torch.sigmoid(plain.rew[:, rows, None] - every[:, None]).mean(-1)
        torch.testing.assert_close(source.rew[:, rows], exact, rtol=0.0, atol=0.05)  # 1000 draws of the 120 steps


def test_an_agent_acts_for_the_user_it_was_told_of() -> None:
    learner, batch = small(), some()
    obs = rng.normal(rng.keys([5, 6]), 7, contract.OBS, dtype=DOUBLE)
    nobody = learner.act(obs)
    learner.condition(batch)
    mean, _ = learner.rewards.posterior(batch, torch.ones(2, 1, 20, dtype=DOUBLE))
    somebody = learner.act(obs)
    torch.testing.assert_close(somebody, learner.iql.act(torch.cat([obs, mean.detach().expand(-1, 7, -1)], dim=-1)))
    assert not torch.equal(somebody, nobody)
    other = small()
    other.load_state_dict(learner.state_dict())
    assert torch.equal(other.act(obs), somebody), "whom it acts for is not saved"
    learner.condition(None)
    assert torch.equal(learner.act(obs), nobody)


def test_what_vpl_cannot_learn_from() -> None:
    dataset, preferences = contract.tiny_data()
    with pytest.raises(InputError, match="expected a data set and not preferences alone"):
        small().prepare(Source.of(preferences=preferences))
    hasty = dataclasses.replace(preferences, user=(torch.arange(40) == 7).long())
    with pytest.raises(InputError, match="user 1 has answered 1 pairs, expected at least 4"):
        small().prepare(Source.of(dataset, hasty))


# --- two opposite users -----------------------------------------------------------------------------------------------

OPTIMAL = {1: 0.693, 2: 0.620, 4: 0.536, 8: 0.471}
"""The lowest negative log-likelihood per answer of N answers of a user who is one of two opposite ones, equally likely:
rewards +-4 x, differences of x uniform in [-1, 1]."""


def crowd(users: int, each: int, key: Tensor) -> tuple[Preferences, Tensor]:
    """Answers of users 0, 1, 2, ... who like and dislike large x in turn; and P(second preferred) for each, true."""
    count = users * each
    first = 2 * rng.uniform(rng.fold(key, "first"), count) - 1
    difference = 2 * rng.uniform(rng.fold(key, "difference"), count) - 1
    user = torch.arange(users).repeat_interleave(each)
    chance = torch.sigmoid(4.0 * (1.0 - 2.0 * (user % 2)) * difference)
    label = (rng.uniform(rng.fold(key, "label"), count) < chance).float()
    obs = torch.cat([first, first + difference])[:, None, None]
    order = torch.arange(count)
    segments = Segments.from_arrays(obs, torch.zeros(2 * count, 1, 1))
    return Preferences(Pairs(segments, order, order + count), label, By("a crowd"), user), chance


@cache
@torch.enable_grad()
def trained() -> VPL:
    config = VPLConfig(
        reward_updates=800,
        reward_lr=3e-3,
        reward_hidden=(32, 32),
        reward_batch_size=32,
        context=8,
        latent=2,
        cycles=2,
        hidden=(8,),
    )
    learner = VPL(Spec("crowd", 1, 1), sweep(config, [0]))
    answers, _ = crowd(200, 100, rng.keys([1])[0])
    source = Source.of(preferences=answers).by_user(8)
    while learner.updates < 800:
        learner.update(source.draw(learner.wants(), learner.keys, learner.updates))
    return learner


def asked(count: int) -> tuple[LabelledPairs, Tensor, Tensor]:
    """Eight answers of 500 new users, the first ``count`` of them known [1, U, 8], and what is true of them [U, 8]."""
    answers, chance = crowd(500, 8, rng.keys([2])[0])
    known = (torch.arange(8) < count).float().expand(1, 500, 8)
    return answered(answers, 1, torch.float32, "cpu"), known, chance.reshape(500, 8)


def differences(learner: VPL, batch: LabelledPairs, latent: Tensor) -> Tensor:
    """[U, 8] r(second, z) - r(first, z) for a z per user [1, U, Z]."""
    obs, act = batch.obs.flatten(1, -2), batch.act.flatten(1, -2)
    reward = learner.rewards.decode(obs, act, latent.repeat_interleave(16, dim=1)).reshape(500, 8, 2)
    return reward[..., 1] - reward[..., 0]


@pytest.mark.parametrize("count", OPTIMAL)
@torch.no_grad()
def test_answers_are_predicted_as_well_as_can_be(count: int) -> None:
    """The likelihood of all answers of a user by importance sampling from q(z | answers), 200 draws."""
    learner = trained()
    batch, known, chance = asked(count)
    mean, log_var = learner.rewards.posterior(batch, known)
    weights = []
    for draw in range(200):
        noise = rng.normal(rng.fold(rng.keys([3]), draw), *mean.shape[1:])
        latent = mean + (0.5 * log_var).exp() * noise
        fit = -(known[0] * losses.bradley_terry(differences(learner, batch, latent), batch.label.reshape(500, 8))).sum(
            -1
        )
        prior = (latent - learner.rewards.prior_mean).square() * torch.exp(
            -learner.rewards.prior_log_var
        ) + learner.rewards.prior_log_var
        ours = noise.square() + log_var
        weights.append(fit + 0.5 * (ours - prior).sum(-1)[0])
    likelihood = torch.logsumexp(torch.stack(weights), dim=0) - torch.log(torch.tensor(200.0))
    nll = float(-likelihood.mean()) / count
    label = batch.label.reshape(500, 8)
    alike, unlike = ((known[0] * torch.where(label == 1, p, 1 - p).log()).sum(-1) for p in (chance, 1 - chance))
    exact = float(torch.log(torch.tensor(2.0)) - torch.logaddexp(alike, unlike).mean()) / count
    assert abs(exact - OPTIMAL[count]) < 0.02, "these 500 users are no fair sample"
    assert exact - 0.005 < nll < exact + 0.025
    assert count < 8 or nll < 0.50


def test_one_reward_for_both_users_predicts_nothing() -> None:
    config = RewardModelConfig(lr=3e-3, hidden=(32, 32), ensemble=1)
    learner = RewardModel(Spec("crowd", 1, 1), sweep(config, [0]))
    answers, _ = crowd(200, 100, rng.keys([1])[0])
    for _ in offline(learner, Source.of(preferences=answers), 300, every=300):
        pass
    batch, _, _ = asked(8)
    worth = learner.judge(batch.obs.flatten(1, 2), batch.act.flatten(1, 2)).reshape(-1, 2)
    nll = losses.bradley_terry(worth[:, 1] - worth[:, 0], batch.label[0]).mean()
    assert float(nll) >= 0.68


@torch.no_grad()
def test_after_eight_answers_the_order_of_rewards_is_the_users() -> None:
    learner = trained()
    batch, known, chance = asked(8)
    mean, _ = learner.rewards.posterior(batch, known)
    agreement = ((differences(learner, batch, mean) > 0) == (chance > 0.5)).float().mean()
    assert float(agreement) > 0.95


# --- a task -----------------------------------------------------------------------------------------------------------

ENV, EPISODES, STEPS = "PointMass1D-v0", 60, 100


def wandering() -> Dataset:
    """A point mass that goes to a random place in each episode, noisily."""
    env = envs.make(ENV, EPISODES)
    key = rng.keys([4])[0]
    goal = 2.4 * rng.uniform(rng.fold(key, "goal"), EPISODES, dtype=DOUBLE).numpy() - 1.2
    noise = 0.3 * rng.normal(rng.fold(key, "noise"), STEPS, EPISODES, dtype=DOUBLE).numpy()
    seen: list[Tensor] = [torch.tensor(env.reset(range(EPISODES)))]
    acts = []
    for t in range(STEPS):
        now = seen[-1].numpy()
        force = (2.0 * (goal - now[:, 0]) - 2.0 * now[:, 1] + noise[t]).clip(-1.0, 1.0)[:, None]
        acts.append(torch.tensor(force))
        seen.append(torch.tensor(env.step(force)[0]))
    env.close()
    obs, act = torch.stack(seen, dim=1), torch.stack(acts, dim=1)  # [episodes, T, .]
    trunc = (torch.arange(STEPS) == STEPS - 1).repeat(EPISODES)
    rows = (obs[:, :-1].flatten(0, 1), act.flatten(0, 1), obs[:, :-1, 0].flatten(), trunc & False, trunc)
    return Dataset.from_arrays(*rows, obs[:, 1:].flatten(0, 1), name="wandering", env=ENV)


def likes_the_right(segments: Segments) -> Tensor:
    return segments.obs[..., 0].sum(-1)


def likes_the_left(segments: Segments) -> Tensor:
    return -likes_the_right(segments)


def place(agent: Agent) -> float:
    """Where the point mass is in the second half of episodes, on average."""
    env = envs.make(ENV, 10)
    obs = env.reset(range(100, 110))
    seen = []
    for _ in range(STEPS):
        act = agent.act(torch.tensor(obs, dtype=torch.float32)[None])[0]
        obs = env.step(act.numpy())[0]
        seen.append(float(obs[:, 0].mean()))
    env.close()
    return sum(seen[STEPS // 2 :]) / (STEPS - STEPS // 2)


def test_one_policy_serves_two_opposite_users_who_each_say_what_they_like() -> None:
    """A single reward learned from both has nothing to say; VPL, told eight answers, goes right or left."""
    dataset = wandering()
    tastes = (Teacher(likes_the_right), Teacher(likes_the_left))
    key = rng.keys([6])[0]
    pairs = Pairs.sample(dataset, 800, 10, rng.fold(key, "pairs"))
    source = Source.of(dataset, Mixture(tastes * 10, (0.05,) * 20)(pairs, rng.fold(key, "answers")))
    nets: dict[str, Any] = {"hidden": (32, 32), "reward_hidden": (32, 32), "reward_lr": 3e-3, "actor_decay": 0}
    config = VPLConfig(
        **nets,
        lr=3e-3,
        gamma=0.95,
        target_rate=0.05,
        batch_size=128,
        reward_updates=300,
        context=8,
        latent=2,
        cycles=2,
        trajectories=1,
    )
    learner = VPL(dataset.spec, sweep(config, [0]))
    for _ in offline(learner, source, 900, every=900):
        pass
    found = []
    for taste in tastes:
        new = taste(Pairs.sample(dataset, 8, 10, rng.fold(key, "new pairs")), rng.fold(key, "new answers"))
        learner.condition(answered(new, 1, torch.float32, "cpu"))
        found.append(place(learner))
        answers = taste(pairs, key)
        obs, act = (x[None] for x in (pairs.segments.obs, pairs.segments.act))
        worth = learner.judge(obs, act)[0]
        right = losses.accuracy((worth[pairs.second] - worth[pairs.first])[None], answers.label[None])
        assert float(right) > 0.9
    assert found[0] > 0.5
    assert found[1] < -0.5

    settings: dict[str, Any] = {
        "lr": 3e-3,
        "gamma": 0.95,
        "target_rate": 0.05,
        "temperature": 10.0,
        "expectile": 0.9,
        "batch_size": 128,
    }
    single = PIQLConfig(**nets, **settings, reward_updates=100, reward_ensemble=1)
    plain = PIQL(dataset.spec, sweep(single, [0]))
    for _ in offline(plain, source, 400, every=400):
        pass
    there = place(plain)
    assert min(there, -there) < 0.0 < 0.5 < min(found[0], -found[1]), "one of them gets the opposite of what they want"
