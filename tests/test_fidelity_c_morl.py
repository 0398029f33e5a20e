"""C-MORL does what its paper says and holds its constraint: closed forms, numbers by hand, the released formula."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import torch
from torch import Tensor

import envs
from agents.multi_objective.c_morl import CMORL, CMORLConfig
from agents.on_policy.ppo import PPO, PPOConfig
from envs.multi_objective.analytic import Bandit
from pbrl import grouped, pareto, rng
from pbrl.data.rollout import Rollout
from pbrl.errors import InputError
from pbrl.fronts import archive, constraints
from pbrl.fronts.archive import Archive
from pbrl.loops import Playing, on_policy
from pbrl.members import sweep
from pbrl.nets.mlp import StackedLinear
from pbrl.parts.episode_returns import EpisodeReturns
from pbrl.spec import Spec

DOUBLE = torch.float64


def numbers(*values: Any) -> Tensor:
    return torch.tensor(values, dtype=DOUBLE)


# --- the constraint ---------------------------------------------------------------------------------------------------


def test_limits_lie_below_the_return_whatever_its_sign() -> None:
    found = constraints.limits(numbers([2.0, -2.0, 0.0]), numbers(0.9))
    assert found.tolist() == [[pytest.approx(1.8), pytest.approx(-2.2), 0.0]]


def rise(act: float, sharpness: float, beta: float) -> float:
    """d/da of what extension climbs on the shifted bandit, from a = 0: the forces times the objectives' slopes."""
    value = torch.as_tensor(Bandit(shift=4.0).values(act))[None]
    start = torch.as_tensor(Bandit(shift=4.0).values(0.0))[None]
    margin = value - constraints.limits(start, numbers(beta))
    force = constraints.barrier_force(numbers([1.0, 0.0]), margin, numbers(sharpness), torch.ones_like(margin))
    return float((force * numbers([2.0 * (1.0 - act), -2.0 * (1.0 + act)])).sum())


@pytest.mark.parametrize(
    ("sharpness", "beta", "optimum"),
    [
        (1, 0.9, -0.202234),
        (5, 0.9, 0.040689),
        (20, 0.9, 0.112359),
        (100, 0.9, 0.134414),
        (1000, 0.9, 0.139594),
        (20, 0.8, 0.232747),
    ],
)
def test_the_barriers_optimum_on_the_bandit(sharpness: float, beta: float, optimum: float) -> None:
    edge = math.sqrt(4.0 - 3.0 * beta) - 1.0 - 1e-9
    found = scipy.optimize.brentq(rise, -0.9, edge, args=(sharpness, beta), xtol=1e-10)
    assert found == pytest.approx(optimum, abs=1e-6)


def test_a_broken_limit_is_all_that_counts() -> None:
    aim, scale = numbers([1.0, 0.0, 0.0]), numbers([1.0, 2.0, 4.0])
    force = constraints.barrier_force(aim, numbers([-5.0, 0.1, -0.1]), numbers(20.0), scale)
    assert force.tolist() == [[0.0, 0.0, 0.25]]
    held = constraints.barrier_force(aim, numbers([-5.0, 0.1, 0.5]), numbers(20.0), scale)
    assert held.tolist() == [[1.0, pytest.approx(0.5), pytest.approx(0.1)]]


def test_multipliers_rise_while_a_limit_is_broken() -> None:
    duals = constraints.lagrangian_step(numbers([0.0, 0.5, 0.5]), numbers([1.0, 0, 0]), numbers([-3.0, -1.0, 2.0]), 0.2)
    assert duals.tolist() == [[0.0, pytest.approx(0.7), pytest.approx(0.1)]]


def test_the_released_term_by_hand() -> None:
    ratio, target = numbers([1.0, 1.1, 2.0]), numbers([[1.0, -1.0]] * 3)
    found = constraints.released_barrier(ratio, target, numbers([0.0, 1.0]), numbers(0.2), numbers(0.9), numbers(20.0))
    # Row 1 is left out; objective 0 has R = 1: log 0.1 and log 0.3; objective 1 has R = -1: the floor.
    mean = sum(-(math.log(kept) + math.log(1e-3)) / 2 for kept in (0.1, 0.3)) / 2
    assert found.tolist() == [pytest.approx(mean / 20.0)]


def extended(constraint: Any, updates: int, log_std: float = -1.5, lr: float = 2e-2) -> tuple[CMORL, Tensor]:
    """Two policies from a = 0 on the shifted bandit, one for each objective: the learner and their actions."""
    config = CMORLConfig(
        constraint=constraint,
        init_updates=1,
        extension_updates=1000,
        policies=2,
        steps=64,
        hidden=(),
        init_log_std=log_std,
        lr=lr,
        epochs=4,
        batch_size=512,
        normalize_obs=False,
        gamma=1.0,
        archive=20,
        greedy=0,
    )
    env = envs.make("ShiftedParabolaBandit-v0", 16)
    learner = CMORL(env.spec, sweep(config, [0], dtype=DOUBLE), torch.full((2, 2), 0.5, dtype=DOUBLE))
    for _ in on_policy(learner, Playing(env, learner.keys, dtype=DOUBLE), updates, every=10):
        continue
    return learner, learner.core.act(torch.ones(2, 1, 1, dtype=DOUBLE)).flatten()


def optimum(limit: float, variance: float) -> float:
    """The barrier's optimum at t = 20 for a policy of some variance."""

    def slope(act: float) -> float:
        return (1.0 - act) - (1.0 + act) / (20.0 * (4.0 - (1.0 + act) ** 2 - variance - limit))

    edge = math.sqrt(4.0 - variance - limit) - 1.0
    return float(scipy.optimize.brentq(slope, -0.9, edge - 1e-9))


def test_extension_goes_to_the_barriers_optimum() -> None:
    learner, act = extended("barrier", 30, math.log(0.1), 5e-3)  # of deviation .1: G2 = 2.99, and 2.69 is to be held
    assert learner.core.policy.log_std is not None
    variance = learner.core.policy.log_std.detach().exp().square().flatten()
    for place, sign in ((0, 1.0), (1, -1.0)):
        goal = optimum(float(learner.extension.limit[place, 1 - place]), float(variance[place]))
        assert sign * float(act[place]) == pytest.approx(goal, abs=0.02)
        assert 0.08 < goal < 0.16
        others = 4.0 - (1.0 + sign * float(act[place])) ** 2
        assert others >= float(learner.extension.limit[place, 1 - place])
        assert others >= 2.69


def test_the_lagrangian_holds_and_the_released_formula_does_not() -> None:
    held, act = extended("lagrangian", 30)
    assert float(act[0]) == pytest.approx(0.14, abs=0.05)
    assert float(held.extension.duals[0, 1]) > 0.1
    _, act = extended("reference", 40)
    assert 4.0 - (1.0 + float(act[0])) ** 2 < 0.18, "the limit is 2.7; on its way to 0 the released code gets to .17"


# --- returns of finished episodes -------------------------------------------------------------------------------------


def test_returns_of_finished_episodes() -> None:
    returns = EpisodeReturns(numbers(0.5), 2, 1)
    rew = numbers([[1.0], [8.0]], [[2.0], [4.0]], [[4.0], [2.0]])[None]  # [1, 3, 2, 1]
    ended = numbers([0.0, 0.0], [1.0, 0.0], [0.0, 1.0])[None]
    returns.see(rew, ended)
    assert returns.mean.tolist() == [[(2.0 + 10.5) / 2]]
    assert returns.count.tolist() == [2.0]
    assert returns.length.tolist() == [2.5]
    assert returns.span.tolist() == [pytest.approx((1 - 0.5**2.5) / 0.5)]
    returns.begin(numbers([7.0]))  # copy 0 is in the midst of an episode that another policy began
    returns.see(rew, ended)
    assert returns.mean.tolist() == [[8.0 + 0.5 * 4.0 + 0.25 * 2.0]]
    returns.see(rew[:, :1], ended[:, :1])
    assert returns.count.tolist() == [0.0]
    assert returns.mean.tolist() == [[10.5]]
    assert EpisodeReturns(numbers(1.0), 1, 1).span.tolist() == [1.0]


# --- the archive ------------------------------------------------------------------------------------------------------


def test_the_archive_keeps_what_is_not_dominated() -> None:
    generator = np.random.default_rng(0)
    store = Archive(torch.zeros(2, 1, dtype=DOUBLE), 40, 3)
    seen = np.zeros((2, 0, 3))
    for _ in range(12):
        points = generator.integers(0, 9, (2, 5, 3)).astype(float)
        seen = np.concatenate([seen, points], axis=1)
        store.offer(torch.as_tensor(points), torch.as_tensor(points.sum(-1, keepdims=True)), torch.ones(2, 5) > 0)
    for member in range(2):
        kept = store.points[member][store.used[member]].numpy()
        front = seen[member][pareto.non_dominated(seen[member])]
        assert sorted(kept.tolist()) == sorted(front.tolist())
        assert torch.equal(
            store.policies[member, :, 0] * store.used[member], store.points[member].sum(-1) * store.used[member]
        )
        crowd = archive.crowding(store.points, store.used)[member][store.used[member]]
        assert np.allclose(crowd.numpy(), pareto.crowding(kept))
        weights = np.array([0.2, 0.3, 0.5])
        best = int(store.assign(torch.as_tensor(weights).expand(2, 3))[member])
        assert float(store.points[member, best] @ torch.as_tensor(weights)) == pytest.approx((kept @ weights).max())
    assert store.offers.tolist() == [60, 60]


def test_a_full_archive_thins_the_crowd_and_keeps_the_extremes() -> None:
    store = Archive(torch.zeros(1, 1), 3, 2)
    points = numbers([0.0, 4.0], [1.0, 3.0], [1.1, 2.9], [4.0, 0.0])[None]
    store.offer(points, torch.zeros(1, 4, 1), torch.ones(1, 4) > 0)
    kept = store.points[0][store.used[0]].tolist()
    assert [0.0, 4.0] in kept
    assert [4.0, 0.0] in kept
    assert len(kept) == 3
    first = store.points[0, store.select(2)[0]].tolist()
    assert sorted(first) == [[0.0, 4.0], [4.0, 0.0]]
    assert store.points[0, store.select(1)[0]].tolist()[0] in kept
    assert int(store.times.min()) == 1, "what was extended goes behind what was not"


def test_what_is_not_valid_or_not_finite_is_not_taken() -> None:
    store = Archive(torch.ones(1, 1), 3, 2)
    points = numbers([1.0, 1.0], [math.nan, 9.0], [9.0, 9.0])[None]
    store.offer(points, torch.zeros(1, 3, 1), torch.tensor([[True, True, False]]))
    assert store.points[0][store.used[0]].tolist() == [[1.0, 1.0]]


# --- the agent --------------------------------------------------------------------------------------------------------


def small(**changes: Any) -> CMORLConfig:
    sizes = {"policies": 3, "steps": 8, "environments": 2, "hidden": (4,), "batch_size": 8, "epochs": 1, "archive": 5}
    return dataclasses.replace(CMORLConfig(), **{**sizes, **changes})


def test_it_serves_the_policy_for_the_weights() -> None:
    env = envs.make("ParabolaBandit-v0", 2 * 6)
    learner = CMORL(env.spec, sweep(small(), [0, 1]))
    policies = learner.core.vectors()[:2]
    places = torch.tensor([-0.9, 0.0, 0.9])
    last = learner.core.policy.net.layers[-1]
    assert isinstance(last, StackedLinear)
    for place in places:  # an archive of three constant policies
        with torch.no_grad():
            last.weight.zero_()
            last.bias.fill_(float(place))
        point = torch.as_tensor(Bandit().values(float(place)), dtype=torch.float32).expand(2, 1, 2)
        policies = learner.core.vectors()[:2].unsqueeze(1)
        learner.archive.offer(point, policies, torch.ones(2, 1) > 0)
    for weight, act in ((0.95, 0.9), (0.5, 0.0), (0.05, -0.9)):
        learner.serve(torch.tensor([weight, 1.0 - weight]))
        assert learner.act(torch.ones(2, 3, 1)).flatten().tolist() == pytest.approx([act] * 6)
    learner.serve(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    assert learner.act(torch.ones(2, 1, 1)).flatten().tolist() == pytest.approx([0.9, -0.9])


def test_extension_begins_from_the_archive_at_the_full_learning_rate() -> None:
    env = envs.make("ParabolaBandit-v0", 6)
    learner = CMORL(env.spec, sweep(small(init_updates=2, extension_updates=50), [0]))
    for _ in on_policy(learner, Playing(env, learner.keys), 2, every=1):
        continue
    assert learner.adam.steps == 0
    assert not any(moment.any() for moment in learner.adam.first)
    chosen = learner.archive.times[0].nonzero().flatten()
    assert len(chosen) == 2, "three policies serve two selected ones times two objectives, but for one"
    starts = learner.core.vectors()
    assert all((learner.archive.policies[0, chosen] == start).all(1).any() for start in starts)
    assert learner.extension.aim.tolist() == [[1, 0], [0, 1], [1, 0]]
    assert torch.equal(learner.extension.limit, constraints.limits(learner.returns.mean, learner.extension.beta))


def test_the_archive_tells_what_greedy_policies_are_worth() -> None:
    """On a problem without chance: a point is to the last digit what its policy gets. Others explore to learn."""
    env = envs.make("ParabolaBandit-v0", 9)
    config = small(environments=3, greedy=1, init_updates=3, extension_updates=2, archive=40)
    learner = CMORL(env.spec, sweep(config, [0], dtype=DOUBLE))
    playing = Playing(env, learner.keys, dtype=DOUBLE)
    for _ in on_policy(learner, playing, 7, every=1):
        continue
    used = learner.archive.used[0]
    assert int(used.sum()) > 3
    acts = learner.policies(used.nonzero().T).act(torch.ones(int(used.sum()), 1, 1, dtype=DOUBLE)).flatten()
    values = torch.stack([torch.as_tensor(Bandit().values(float(act))) for act in acts])
    torch.testing.assert_close(learner.archive.points[0][used], values, rtol=1e-12, atol=1e-12)
    obs = torch.ones(1, 9, 1, dtype=DOUBLE)
    drawn = learner.draw(obs, learner.keys).reshape(3, 3)
    greedy = learner.core.act(obs.reshape(3, 3, 1))[:, 0, 0]
    assert torch.equal(drawn[:, 2], greedy)
    assert not torch.isclose(drawn[:, :2], greedy[:, None]).any()
    assert playing.env_steps == 7 * 8 * 9, "greedy steps count"


def test_greedy_copies_are_not_learned_from() -> None:
    env = envs.make("ParabolaBandit-v0", 9)
    config = small(environments=3, greedy=1)
    rollout, _ = Playing(env, sweep(config, [0]).keys).collect(CMORL(env.spec, sweep(config, [0])), 8)
    lying = dataclasses.replace(rollout, rew=rollout.rew.clone())
    lying.rew[:, :, 2::3] += 5.0
    honest, fooled = (CMORL(env.spec, sweep(config, [0])) for _ in range(2))
    honest.update({"rollout": rollout})
    fooled.update({"rollout": lying})
    assert torch.equal(honest.core.vectors(), fooled.core.vectors())
    assert not torch.equal(honest.archive.points, fooled.archive.points)


def test_a_limit_is_what_the_policy_gains_in_the_first_rollout_of_its_extension() -> None:
    env = envs.make("ParabolaBandit-v0", 9)
    learner = CMORL(env.spec, sweep(small(environments=3, init_updates=2, extension_updates=50), [0], dtype=DOUBLE))
    playing = Playing(env, learner.keys, dtype=DOUBLE)
    for _ in on_policy(learner, playing, 2, every=1):
        continue
    archived = learner.extension.limit.clone()
    rollout, _ = playing.collect(learner, 8)
    learner.update({"rollout": rollout})
    gained = rollout.rew[0].reshape(8, 3, 3, 2)[:, :, :2].mean((0, 2))  # [3, 2] of the two that explore
    torch.testing.assert_close(learner.extension.limit, constraints.limits(gained, learner.extension.beta))
    assert not torch.equal(learner.extension.limit, archived)
    first = learner.extension.limit.clone()
    rollout, _ = playing.collect(learner, 8)
    learner.update({"rollout": rollout})
    assert torch.equal(learner.extension.limit, first), "fixed for the round"


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: CMORL(Spec("one", 2, 1), sweep(small(), [0])), "one has one objective, expected at least 2"),
        (lambda: _bandit(torch.full((3, 2), 0.7)), "0.7 0.7, expected none below 0 and a sum of 1"),
        (lambda: _bandit(torch.full((2, 2), 0.5)), r"shape \[2, 2\], expected \[policies, objectives\] \[3, 2\]"),
        (lambda: _bandit(None).serve(torch.tensor([1.5, -0.5])), "1.5 -0.5"),
        (lambda: _bandit(None).serve(torch.tensor([1.0])), "expected 2 in a row"),
        (lambda: small(beta=1.5), "beta is 1.5"),
        (lambda: small(barrier=0.0), "barrier is 0.0"),
        (lambda: small(greedy=2), "greedy is 2 of environments 2, expected fewer"),
    ],
)
def test_bad_input(call: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        call()


def _bandit(weights: Tensor | None) -> CMORL:
    return CMORL(Bandit().spec, sweep(small(), [0]), weights)


def test_the_first_stage_is_ppo_with_fixed_weights() -> None:
    """The same networks after as many updates on the same rollouts, had PPO's scaled rewards no bound either."""
    sizes: dict[str, Any] = {"steps": 16, "environments": 2, "hidden": (4,), "batch_size": 8, "epochs": 2, "gamma": 0.9}
    weights = torch.tensor([[0.2, 0.8], [0.5, 0.5], [0.9, 0.1]], dtype=DOUBLE)
    seeds = [seed for s in range(3) for seed in rng.fold(sweep(small(), [5]).keys, "policy", s).tolist()]
    env = envs.make("TwoObjectiveLQR-v0", 6)
    sweep_of = PPO(env.spec, sweep(PPOConfig(**sizes), seeds, dtype=DOUBLE), weights)
    sweep_of.reward_scale.limit = math.inf
    learner = CMORL(env.spec, sweep(small(**sizes, init_updates=9, greedy=0), [5], dtype=DOUBLE), weights)
    assert torch.equal(sweep_of.vectors(), learner.core.vectors())
    playing = Playing(env, learner.keys, dtype=DOUBLE)
    for _ in range(3):
        rollout, _ = playing.collect(learner, 16)
        learner.update({"rollout": rollout})
        fields = (getattr(rollout, field.name) for field in dataclasses.fields(rollout))
        sweep_of.update({"rollout": Rollout(*(grouped.apart(x, 3, axis=2).contiguous() for x in fields))})
        torch.testing.assert_close(sweep_of.vectors(), learner.core.vectors(), rtol=1e-9, atol=1e-9)
