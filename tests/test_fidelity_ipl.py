"""IPL does what its paper proves: its Q means the reward that a ridge-regularised logistic regression finds."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any, NamedTuple

import pytest
import torch
from scipy import stats
from torch import Tensor

from agents.preference.ipl import IPL, IPLConfig, Steps
from pbrl import losses, rng
from pbrl.data.source import LabelledPairs, Source, Transitions
from pbrl.data.successors import successors
from pbrl.errors import InputError
from pbrl.members import sweep
from pbrl.spec import Spec

from . import contract

DOUBLE = torch.float64
GAMMA, CHI2, EXPECTILE, LENGTH, COUNT = 0.9, 0.5, 0.7, 5, 150

# --- the identity: tabular networks in deterministic problems ---------------------------------------------------------


class Tabular(NamedTuple):
    """Pairs in a deterministic MDP: successor [S, A], state [B, 2, T + 1], act [B, 2, T], label [B]."""

    successor: Tensor
    state: Tensor
    act: Tensor
    label: Tensor


def chain() -> Tensor:
    """Three states in a row; left, right, and the right end stays."""
    return torch.tensor([[0, 1], [0, 2], [1, 2]])


def random_map(states: int, actions: int) -> Tensor:
    return rng.indices(rng.keys([3])[0], states * actions, states).reshape(states, actions)


def play(successor: Tensor) -> Tabular:
    """Segments of uniformly random actions, and labels of a Bradley-Terry teacher with a random reward."""
    states, actions = successor.shape
    key = rng.keys([8])[0]
    state = [rng.indices(rng.fold(key, "start"), 2 * COUNT, states).reshape(COUNT, 2)]
    act = rng.indices(rng.fold(key, "act"), COUNT * 2 * LENGTH, actions).reshape(COUNT, 2, LENGTH)
    for t in range(LENGTH):
        state.append(successor[state[-1], act[..., t]])
    visited = torch.stack(state, dim=-1)  # [B, 2, T + 1]
    reward = rng.normal(rng.fold(key, "reward"), states, actions, dtype=DOUBLE)
    worth = reward[visited[..., :-1], act].sum(-1)
    label = (rng.uniform(rng.fold(key, "label"), COUNT) < (worth[:, 1] - worth[:, 0]).sigmoid()).to(DOUBLE)
    return Tabular(successor, visited, act, label)


def batch_of(problem: Tabular) -> LabelledPairs:
    """All pairs: a state is one of S numbers, an action one of S A, so that linear networks are tables."""
    states, actions = problem.successor.shape
    obs = torch.nn.functional.one_hot(problem.state, states).to(DOUBLE)
    both = problem.state[..., :-1] * actions + problem.act
    act = torch.nn.functional.one_hot(both, states * actions).to(DOUBLE)
    term = torch.zeros(1, COUNT, 2, dtype=DOUBLE)
    return LabelledPairs(obs[None, ..., :-1, :], act[None], problem.label[None], obs[None, ..., -1, :], term)


def ridge(problem: Tabular) -> Tensor:
    """[S A] the reward that minimises cross-entropy + chi2 * mean square over the steps, by L-BFGS."""
    actions = problem.successor.shape[1]
    both = problem.state[..., :-1] * actions + problem.act  # [B, 2, T]
    reward = torch.zeros(problem.successor.numel(), dtype=DOUBLE, requires_grad=True)
    solver = torch.optim.LBFGS([reward], max_iter=500, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        worth = reward[both].sum(-1)
        value = losses.bradley_terry(worth[:, 1] - worth[:, 0], problem.label).mean()
        value = value + CHI2 * reward[both].square().mean()
        value.backward()
        return value

    solver.step(loss)
    return reward.detach()


@cache
def trained(name: str) -> tuple[IPL, Tabular, LabelledPairs]:
    """IPL with tables, trained on all pairs at once until it stands still."""
    problem = play(chain() if name == "chain" else random_map(6, 3))
    states, actions = problem.successor.shape
    config = IPLConfig(
        lr=0.03,
        gamma=GAMMA,
        chi2=CHI2,
        expectile=EXPECTILE,
        target_rate=1.0,
        hidden=(),
        critics=1,
        batch_size=COUNT,
        replay_batch_size=0,
        subsample=LENGTH,
    )
    learner = IPL(Spec("tabular", states, states * actions), sweep(config, [0], dtype=DOUBLE))
    batch = batch_of(problem)
    for rate, updates in ((0.03, 600), (0.003, 500), (0.0003, 300)):
        learner.adam.rates = [rate]
        for _ in range(updates):
            learner.update({"pairs": batch})
    return learner, problem, batch


@pytest.mark.parametrize("name", ["chain", "random"])
def test_the_reward_that_q_means_is_the_ridge_regressions(name: str) -> None:
    learner, problem, batch = trained(name)
    obs, act, next_obs, term = (x.flatten(1, 3) for x in successors(batch, LENGTH, learner.keys))
    found = learner.rewards(obs, act, next_obs, term)[0, 0].detach()
    expected = ridge(problem)
    assert float((found - expected[act[0].argmax(-1)]).abs().max()) < 1e-3
    assert float(expected.abs().max()) > 0.1, "nothing was learned that could differ"


@pytest.mark.parametrize("name", ["chain", "random"])
def test_the_value_is_the_expectile_of_q(name: str) -> None:
    """At every state: the V with tau E[(Q - V)+] = (1 - tau) E[(V - Q)+] over the actions that occur there."""
    learner, problem, batch = trained(name)
    obs, act, _, _ = (x.flatten(1, 3) for x in successors(batch, LENGTH, learner.keys))
    q = learner.q(torch.cat([obs, act], dim=-1))[0, 0, :, 0].detach()
    value = learner.v(obs)[0, :, 0].detach()
    state = obs[0].argmax(-1)
    spread = 0.0
    for one in range(len(problem.successor)):
        mine, v = q[state == one], float(value[state == one][0])
        low, high = mine.min(), mine.max()
        spread = max(spread, float(high - low))
        for _ in range(60):
            middle = 0.5 * (low + high)
            above = (
                EXPECTILE * (mine - middle).clamp(min=0).mean() > (1 - EXPECTILE) * (middle - mine).clamp(min=0).mean()
            )
            low, high = (middle, high) if above else (low, middle)
        assert abs(v - float(low)) < 1e-2
    assert spread > 0.1, "all actions are alike, so that any level gives the same"


# --- the loss, term by term -------------------------------------------------------------------------------------------

SPEC = Spec("test", 3, 2)
SMALL: dict[str, Any] = {"hidden": (8,), "batch_size": 6, "replay_batch_size": 9, "subsample": 4, "lr": 1e-2}


def pairs(members: int, *, length: int = 4, ends: bool = True) -> LabelledPairs:
    key = rng.keys([40])[0]
    obs = rng.normal(rng.fold(key, "obs"), 6, 2, length, 3, dtype=DOUBLE)
    act = 2 * rng.uniform(rng.fold(key, "act"), 6, 2, length, 2, dtype=DOUBLE) - 1
    label = rng.indices(rng.fold(key, "label"), 6, 3).to(DOUBLE) / 2
    parts = [obs, act, label]
    if ends:
        term = (rng.uniform(rng.fold(key, "term"), 6, 2) < 0.5).to(DOUBLE)
        parts += [rng.normal(rng.fold(key, "last"), 6, 2, 3, dtype=DOUBLE), term]
    return LabelledPairs(*(x.expand(members, *x.shape) for x in parts))


def transitions(members: int) -> Transitions:
    key = rng.keys([41])[0]
    obs, next_obs = (rng.normal(rng.fold(key, word), 9, 3, dtype=DOUBLE) for word in ("obs", "next"))
    act = 2 * rng.uniform(rng.fold(key, "act"), 9, 2, dtype=DOUBLE) - 1
    term = torch.arange(9, dtype=DOUBLE) % 3 // 2
    return Transitions(*(x.expand(members, *x.shape) for x in (obs, act, 0 * term, next_obs, term)))


def test_the_losses_are_the_equations_half_over_pairs_and_half_over_transitions() -> None:
    learner = IPL(SPEC, sweep(IPLConfig(**SMALL), [0], {"gamma": [0.9, 0.5], "chi2": [0.5, 2.0]}, dtype=DOUBLE))
    batch, others = pairs(4), transitions(4)
    expected: dict[str, list[Tensor]] = {name: [] for name in ("loss", "loss_v", "loss_pi", "reward")}
    for p in range(4):
        gamma, chi2 = float(learner.gamma[p]), float(learner.chi2[p])
        assert batch.last_obs is not None
        assert batch.term is not None
        states = torch.cat([batch.obs[p], batch.last_obs[p, :, :, None]], dim=2)  # [B, 2, T + 1, O]
        term = torch.zeros(6, 2, 4, dtype=DOUBLE)
        term[..., -1] = batch.term[p]

        def member(net: Any, x: Tensor, p: int = p) -> Tensor:
            out: Tensor = net(x.expand(4, *x.shape))[p].squeeze(-1)
            return out

        def sources(of_pairs: Tensor, of_transitions: Tensor) -> Tensor:
            return 0.5 * of_pairs.mean() + 0.5 * of_transitions.mean()

        parts = {}
        for source, (obs, act, after, end) in {
            "pairs": (states[:, :, :-1], batch.act[p], states[:, :, 1:], term),
            "steps": (others.obs[p], others.act[p], others.next_obs[p], others.term[p]),
        }.items():
            flat, flat_act = obs.reshape(-1, 3), act.reshape(-1, 2)
            bound = 1.0 / (chi2 * (1.0 - gamma))
            future = member(learner.v, after.reshape(-1, 3)).clamp(-bound, bound) * (1.0 - end.flatten())
            q = member(learner.q, torch.cat([flat, flat_act], dim=-1))  # [E, N]
            advantage = q.amin(0) - member(learner.v, flat)  # targets equal the critics before the first update
            density = learner.policy(flat.expand(4, -1, -1)).log_prob(flat_act.expand(4, -1, -1))[p]
            weight = (3.0 * advantage).exp().clamp(max=100.0)
            parts[source] = (q - gamma * future, losses.expectile(advantage, 0.7), -weight * density)
        total = parts["pairs"][0].reshape(2, 6, 2, 4).sum(-1)
        expected["loss"].append(losses.bradley_terry(total[..., 1] - total[..., 0], batch.label[p]).mean())
        for i, name in enumerate(("reward", "loss_v", "loss_pi")):
            expected[name].append(sources(parts["pairs"][i], parts["steps"][i]))
    found = learner.update({"pairs": batch, "transitions": others})
    for name, values in expected.items():
        torch.testing.assert_close(found[name], torch.stack(values).detach(), rtol=1e-12, atol=1e-12)


def test_no_value_follows_a_true_end() -> None:
    """At a terminal transition r_Q is Q, however large V is; elsewhere it is not."""
    learner = IPL(SPEC, sweep(IPLConfig(**SMALL), [0, 1], {"chi2": [0.5]}, dtype=DOUBLE))
    with torch.no_grad():
        list(learner.v.parameters())[-1].fill_(3.0)
    steps = transitions(2)
    q = learner.q(torch.cat([steps.obs, steps.act], dim=-1)).squeeze(-1)
    same = learner.rewards(steps.obs, steps.act, steps.next_obs, steps.term) == q
    assert same[..., steps.term[0] == 1].all()
    assert not same[..., steps.term[0] == 0].any()


def test_values_are_clipped_to_what_bounded_rewards_allow() -> None:
    config = IPLConfig(**SMALL, gamma=0.9)
    learner = IPL(SPEC, sweep(config, [0], {"chi2": [0.5, 4.0]}, dtype=DOUBLE))
    with torch.no_grad():
        list(learner.v.parameters())[-1].fill_(1e6)
    steps = transitions(2)
    open_end = torch.zeros_like(steps.term)
    q = learner.q(torch.cat([steps.obs, steps.act], dim=-1)).squeeze(-1)
    given = q - learner.rewards(steps.obs, steps.act, steps.next_obs, open_end)
    torch.testing.assert_close(given[0], torch.full_like(given[0], 0.9 * 20.0))
    torch.testing.assert_close(given[1], torch.full_like(given[1], 0.9 * 2.5))


def test_the_value_follows_the_target_critics_and_the_reward_the_critics() -> None:
    learner = IPL(SPEC, sweep(IPLConfig(**SMALL), [0, 1], dtype=DOUBLE))
    learner.replays = False

    def found() -> tuple[Tensor, Tensor]:
        obs, act, next_obs, term = (x.flatten(1, 3) for x in successors(batch, 64, learner.keys))
        steps = Steps(obs, act, next_obs, term, obs.shape[1])
        _, metrics = learner._losses(steps, batch.label, learner.keys)
        return metrics["loss_v"], metrics["loss"]

    batch = pairs(2, ends=False)
    value, fit = found()
    with torch.no_grad():
        for parameter in learner.q.parameters():
            parameter.mul_(1.5)
    assert torch.equal(found()[0], value)
    assert bool((found()[1] != fit).all())
    fit = found()[1]
    with torch.no_grad():
        for parameter in learner.target.parameters():
            parameter.mul_(1.5)
    assert bool((found()[0] != value).all())
    assert torch.equal(found()[1], fit)


def test_the_value_is_a_constant_in_the_reward() -> None:
    learner = IPL(SPEC, sweep(IPLConfig(**SMALL), [0], dtype=DOUBLE))
    steps = transitions(1)
    learner.rewards(steps.obs, steps.act, steps.next_obs, steps.term).sum().backward()
    assert all(p.grad is None for p in learner.v.parameters())
    assert all(p.grad is not None for p in learner.q.parameters())


# --- steps of segments ------------------------------------------------------------------------------------------------


def test_every_offset_of_a_shorter_segment_is_equally_likely() -> None:
    """Offsets 0 to 6 of 4 steps among 10, chi-square; each brings the steps that follow it, with successors."""
    length, size, count = 10, 4, 1400
    time = torch.arange(length, dtype=DOUBLE)
    obs = (time[:, None] + 100 * torch.arange(count, dtype=DOUBLE)[:, None, None, None]).expand(2, count, 2, length, 1)
    last = torch.full((2, count, 2, 1), 10.0, dtype=DOUBLE) + 100 * torch.arange(count, dtype=DOUBLE)[:, None, None]
    whole = LabelledPairs(obs, -obs, torch.zeros(2, count), last, torch.ones(2, count, 2, dtype=DOUBLE))
    keys = rng.keys([5, 6])
    found, act, after, term = successors(whole, size, keys)
    offset = (found[..., 0, 0] - obs[..., 0, 0]).long()  # [P, B, 2]
    assert torch.equal(offset[..., 0], offset[..., 1]), "the two segments of a pair are cut alike"
    assert torch.equal(found[..., 0], obs[..., :size, 0] + offset[..., None])
    assert torch.equal(after, found + 1)
    assert torch.equal(act, -found)
    assert torch.equal(term[..., -1], (offset == length - size).to(DOUBLE))
    assert not term[..., :-1].any()
    for member in range(2):
        counts = torch.bincount(offset[member, :, 0], minlength=length - size + 1)
        assert len(counts) == length - size + 1
        assert stats.chisquare(counts.numpy()).pvalue > 1e-4
    assert not torch.equal(offset[0], offset[1])
    alone = successors(LabelledPairs(*(x[1:] for x in vars(whole).values())), size, keys[1:])
    assert torch.equal(alone[0][0], found[1])


def test_segments_without_known_successors_lose_their_last_step() -> None:
    batch = pairs(1, ends=False)
    obs, act, after, term = successors(batch, 64, rng.keys([0]))
    assert torch.equal(obs, batch.obs[..., :-1, :])
    assert torch.equal(act, batch.act[..., :-1, :])
    assert torch.equal(after, batch.obs[..., 1:, :])
    assert not term.any()


def test_judgement_is_the_sum_of_rewards_inside_the_segment() -> None:
    learner = IPL(SPEC, sweep(IPLConfig(**SMALL), [0, 1], dtype=DOUBLE))
    batch = pairs(2, ends=False)
    obs, act, after, term = (x.flatten(1, 3) for x in successors(batch, 64, learner.keys))
    expected = learner.rewards(obs, act, after, term).mean(1).reshape(2, 12, 3).sum(-1)
    torch.testing.assert_close(learner.judge(batch.obs.flatten(1, 2), batch.act.flatten(1, 2)), expected.detach())


# --- what there is to learn from --------------------------------------------------------------------------------------


def test_pairs_alone_are_enough() -> None:
    _, answers = contract.tiny_data()
    human = dataclasses.replace(answers.pairs.segments, last_obs=None, term=None)
    source = Source.of(
        preferences=dataclasses.replace(answers, pairs=dataclasses.replace(answers.pairs, segments=human))
    )
    learner = IPL(Spec("test", contract.OBS, contract.ACT), sweep(IPLConfig(**SMALL), [0]))
    prepared = learner.prepare(source)
    assert set(learner.wants()) == {"pairs"}
    metrics = learner.update(prepared.draw(learner.wants(), learner.keys, 0))
    assert all(value.isfinite().all() for value in metrics.values())


def test_single_steps_without_successors_are_refused() -> None:
    _, answers = contract.tiny_data()
    segments = answers.pairs.segments
    short = dataclasses.replace(
        segments, obs=segments.obs[:, :1], act=segments.act[:, :1], rew=None, last_obs=None, term=None
    )
    one = dataclasses.replace(answers, pairs=dataclasses.replace(answers.pairs, segments=short))
    learner = IPL(Spec("test", contract.OBS, contract.ACT), sweep(IPLConfig(**SMALL), [0]))
    with pytest.raises(InputError, match="each step's successor"):
        learner.prepare(Source.of(preferences=one))
