"""PEBBLE does what its paper says: the agent's halves, and a point mass that learns from nothing but answers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

import envs
from agents.off_policy.sac import SAC
from agents.preference.pebble import PEBBLE, PEBBLEConfig
from agents.preference.reward_model import RewardModel, RewardModelConfig
from pbrl import evaluation, losses, rng
from pbrl.asking import queries
from pbrl.asking.query_schedule import Interview, QuerySchedule
from pbrl.data.buffer import Buffer
from pbrl.labelers.desk import AtOnce
from pbrl.labelers.teachers import partial_return_labeler
from pbrl.loops import query_and_learn
from pbrl.loops.fit_reward import fit_reward
from pbrl.members import sweep
from pbrl.play.collector import Collector

from .asking_cases import SMALL, SPEC, same

DOUBLE = torch.float64


def asked(members: int = 2, count: int = 12, *, label: Tensor | None = None) -> Interview:
    """Answered questions [members, count] about random segments, all different."""
    interview = Interview(SPEC, members, QuerySchedule(segment_length=4, max_queries=20), dtype=DOUBLE)
    keys = rng.keys(range(members))
    obs = rng.normal(rng.fold(keys, "obs"), count, 2, 4, 3, dtype=DOUBLE)
    act = 2 * rng.uniform(rng.fold(keys, "act"), count, 2, 4, 2, dtype=DOUBLE) - 1
    better = (-(act - 0.5).square()).sum((-1, -2))
    labels = (better[..., 1] > better[..., 0]).to(DOUBLE) if label is None else label
    for member in range(members):
        names = [1000 * member + i for i in range(count)]
        interview.questions.put(member, obs[member], act[member], names)
        interview.questions.tell(zip(names, labels[member].tolist()))
    return interview


def test_the_reward_is_bpref_s() -> None:
    """Three copies of tanh-bounded LeakyReLU networks; a segment's worth is the sum; cross-entropy of the softmax."""
    config = PEBBLEConfig()
    assert (config.reward_ensemble, config.reward_hidden, config.reward_lr) == (3, (256, 256, 256), 3e-4)
    assert (config.reward_batch_size, config.reward_bounded) == (128, True)
    assert (config.hidden, config.batch_size, config.gamma, config.temperature) == ((1024, 1024), 1024, 0.99, 0.1)
    learner = PEBBLE(SPEC, sweep(SMALL, [0], dtype=DOUBLE))
    pairs = asked(1).questions.draw(rng.keys([3]), 12)
    steps = learner.model.each(pairs.obs.flatten(1, 3), pairs.act.flatten(1, 3)).unflatten(-1, (12, 2, 4))  # [P, E, ..]
    assert steps.abs().max() < 1.0
    softmax = steps.sum(-1).softmax(-1)[..., 1]
    torch.testing.assert_close(learner.model.chances(pairs.obs, pairs.act), softmax)
    torch.testing.assert_close(queries.disagreement(softmax), softmax.std(1, correction=0))
    mean = steps.mean(1)
    torch.testing.assert_close(learner.reward(pairs.obs.flatten(1, 3), pairs.act.flatten(1, 3)), mean.flatten(1))


def test_fitting_stops_at_the_accuracy_and_each_member_for_itself() -> None:
    config = RewardModelConfig(hidden=(16,), batch_size=8)
    model = RewardModel(SPEC, sweep(config, [0], {"lr": [3e-3, 3e-4]}, dtype=DOUBLE))
    questions = asked().questions
    fitted = fit_reward(model, questions, torch.ones(2) > 0, rng.keys([1, 2]), updates=95, accuracy=0.97)
    quick, slow = fitted["reward_updates"].tolist()
    assert quick < slow == 95
    assert quick % 10 == 0
    assert float(fitted["reward_accuracy"][0]) > 0.97 >= float(fitted["reward_accuracy"][1])
    value = model.judge(questions.obs.flatten(1, 2), questions.act.flatten(1, 2)).unflatten(1, (-1, 2))
    share = losses.accuracy((value[..., 1] - value[..., 0])[:, :12], questions.label[:, :12])
    torch.testing.assert_close(fitted["reward_accuracy"], share.to(DOUBLE))


def test_fitting_leaves_members_alone_that_learned_nothing_new() -> None:
    model = RewardModel(SPEC, sweep(RewardModelConfig(hidden=(16,), batch_size=8), [0, 1], dtype=DOUBLE))
    before = [p.detach().clone() for p in model.net.parameters()]
    fresh = torch.tensor([False, True])
    fitted = fit_reward(model, asked().questions, fresh, rng.keys([1, 2]), updates=5, accuracy=0.97)
    assert fitted["reward_updates"].tolist() == [0, 5]
    for now, old in zip(model.net.parameters(), before):
        assert torch.equal(now[0], old[0])
        assert not torch.equal(now[1], old[1])


def test_ties_do_not_count_in_the_accuracy() -> None:
    """With B-Pref's rule, where a tie counts as an error, .97 could not be reached."""
    label = asked().questions.label[:, :12].clone()
    label[:, ::2] = 0.5
    model = RewardModel(SPEC, sweep(RewardModelConfig(hidden=(16,), batch_size=16, lr=3e-3), [0, 1], dtype=DOUBLE))
    fitted = fit_reward(
        model, asked(label=label).questions, torch.ones(2) > 0, rng.keys([1, 2]), updates=300, accuracy=0.97
    )
    assert (fitted["reward_updates"] < 300).all()


def test_draws_are_of_answered_pairs_alone() -> None:
    interview = asked(2, 5)
    questions = interview.questions
    questions.put(0, torch.zeros(3, 2, 4, 3, dtype=DOUBLE), torch.zeros(3, 2, 4, 2, dtype=DOUBLE), [7, 8, 9])
    drawn = questions.draw(rng.keys([1, 2]), 500)
    assert not (drawn.obs == 0).all((-1, -2, -3)).any()
    for member in range(2):
        found = torch.cdist(drawn.obs[member].flatten(1), questions.obs[member, :5].flatten(1)).argmin(1)
        assert (torch.bincount(found, minlength=5) > 60).all()
        assert torch.equal(drawn.label[member], questions.label[member, found])


def test_forgetting_the_critic_is_as_a_new_one() -> None:
    members = sweep(SMALL, [0, 1])
    learner, new = PEBBLE(SPEC, members), PEBBLE(SPEC, members)
    agent = learner.agent
    policy = [p.detach().clone() for p in agent.policy.parameters()]
    with torch.no_grad():
        for p in agent.parameters():
            p.add_(0.5)
    agent.critic_adam.steps = 3
    agent.forget_critic()
    for part in ("q", "target", "critic_adam"):
        ours, theirs = (getattr(each, part).parameters() for each in (agent, new.agent))
        assert same(list(ours), list(theirs))
    assert agent.critic_adam.steps == 0
    assert not same(list(agent.policy.parameters()), policy)


def test_the_agent_is_sac() -> None:
    config = dataclasses.replace(SMALL, normalize_obs=False)
    ours, theirs = PEBBLE(SPEC, sweep(config, [0])).agent, SAC(SPEC, sweep(config, [0]))
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value)


# --- a point mass -----------------------------------------------------------------------------------------------------

POINT_MASS = PEBBLEConfig(
    hidden=(64, 64),
    batch_size=64,
    lr=1e-3,
    target_rate=0.005,
    reward_hidden=(64, 64),
    reward_batch_size=32,
    reward_lr=1e-3,
)


@pytest.mark.slow
def test_sixty_answers_teach_a_point_mass_and_lies_do_not() -> None:
    """Three seeds come out more than three deviations above a random policy; one that hears the opposite, below it."""
    seeds, streams = 4, 2
    env = envs.make("PointMass-v0", seeds * streams)
    learner = PEBBLE(env.spec, sweep(POINT_MASS, range(seeds)))
    schedule = QuerySchedule(
        segment_length=25,
        max_queries=60,
        session_queries=15,
        query_every=1000,
        random_steps=500,
        unsupervised_steps=500,
        fit_updates=100,
        updates_per_step=0.5,
    )
    interview = Interview(env.spec, seeds, schedule)
    collector = Collector(env, Buffer(env.spec, seeds, 20_000, streams=streams), learner.keys)
    honest, liar = partial_return_labeler(), partial_return_labeler(mistake=1.0)
    desk = AtOnce([honest, honest, honest, liar], learner.keys)
    for metrics in query_and_learn(learner.model, learner.agent, desk, collector, interview, 8000, every=8000):
        assert metrics["answered"].tolist() == [60] * seeds

    def random(obs: Tensor, key: Tensor | None = None) -> Tensor:
        assert key is not None
        return 2 * rng.uniform(key, obs.shape[1], 2, dtype=obs.dtype) - 1

    def make(copies: int) -> envs.point_mass.PointMass:
        return envs.point_mass.PointMass(copies)

    found = evaluation.evaluate(learner, make, members=seeds, episodes=20).mean
    keys = rng.keys(range(3))
    chance = evaluation.rollout(random, make(30), members=3, episodes=20, stochastic_keys=keys).mean
    told, lied = found[:3], found[3]
    spread = np.sqrt(chance.var(ddof=1) + told.var(ddof=1))
    assert told.mean() > chance.mean() + 3 * spread
    assert told.min() > chance.max()
    assert lied < chance.min()
