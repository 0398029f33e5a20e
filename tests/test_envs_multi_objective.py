"""Problems with several objectives: the same steps as mo-gymnasium's, fronts in closed form, restarts and bad input."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import envs
from envs import multi_objective
from envs.mujoco import GymnasiumCopies
from envs.multi_objective import (
    Batched,
    BatchedLocomotion,
    FruitTree,
    Regulator,
    ResourceGathering,
    SeaTreasure,
    locomotion,
    task_names,
)
from envs.multi_objective.analytic import Bandit
from envs.multi_objective.sea_treasure import CONCAVE, CONVEX
from pbrl import pareto
from pbrl.errors import InputError
from pbrl.play.vector_env import RestartableEnv

OURS = sorted(multi_objective.RULES)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo writes MUJOCO_LOG.TXT where it is


def official(name: str) -> Any:
    assert name in multi_objective.task_names()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*precision lowered by casting")
        return gymnasium.make(name).unwrapped


@pytest.mark.parametrize("name", OURS)
def test_episodes_end_freeze_and_begin_again(name: str) -> None:
    env = envs.make(name, 3)
    assert isinstance(env, RestartableEnv)
    horizon, objectives = env.spec.horizon, env.spec.objectives
    assert horizon is not None
    assert objectives >= 2
    rng = np.random.default_rng(0)

    def draw() -> Any:
        shape = (3, env.spec.act_size)
        return rng.uniform(-2, 2, shape) if env.spec.actions is None else rng.integers(0, env.spec.actions, shape)

    first = env.reset([1, 2, 3])
    assert first.shape == (3, env.spec.obs_size)
    over = np.zeros(3, dtype=bool)
    for t in range(horizon):
        obs, rew, term, trunc = env.step(draw())
        assert rew.shape == (3, objectives)
        assert not rew[over].any(), "a finished copy earns"
        assert not (term & trunc).any()
        assert (over <= (term | trunc)).all(), "a finished copy goes on"
        over = term | trunc
        assert over.all() or t < horizon - 1
    assert over.all()
    again = env.restart(np.array([False, True, False]), [9])
    assert np.array_equal(again[1], first[1])
    assert np.array_equal(again[[0, 2]], obs[[0, 2]])
    _, rew, term, trunc = env.step(draw())
    assert not rew[[0, 2]].any()
    assert rew[1].any() or name.startswith(("Fruit", "Resource"))
    env.close()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (SeaTreasure("x", CONVEX), "deep-sea-treasure-v0"),
        (SeaTreasure("x", CONCAVE), "deep-sea-treasure-concave-v0"),
        (FruitTree(6), "fruit-tree-v0"),
    ],
)
def test_the_same_steps_as_mo_gymnasium(ours: Any, theirs: str) -> None:
    env, other = Batched(ours, 1), official(theirs)
    rng = np.random.default_rng(1)
    for episode in range(40):
        env.reset([episode])
        other.reset(seed=episode)
        for _ in range(ours.spec.horizon):
            act = int(rng.integers(ours.spec.actions))
            _, rew, term, trunc = env.step([[act]])
            _, expected, ended, _, _ = other.step(act)
            assert np.allclose(rew[0], expected, rtol=1e-6)
            assert bool(term[0]) == ended
            if term[0] or trunc[0]:
                break


def test_the_same_steps_as_resource_gathering() -> None:
    ours, other = ResourceGathering(), official("resource-gathering-v0")
    rng, state = np.random.default_rng(2), ResourceGathering().start()[None]
    other.reset(seed=0)
    for _ in range(2000):
        act, before = int(rng.integers(4)), state
        _, expected, ended, _, _ = other.step(act)
        killed = bool(expected[0] < 0)
        state, rew, term = ours.move(before, np.array([[act]], float), np.array([0.0 if killed else 0.5]))
        assert np.array_equal(rew[0], expected)
        assert bool(term[0]) == ended
        assert np.array_equal(state[0], [*other.current_pos, other.has_gold, other.has_gem])
        if ended:
            other.reset()
            state = ours.start()[None]


def test_enemies_strike_one_time_in_ten_by_the_copys_own_seed() -> None:
    env = Batched(ResourceGathering(), 2000)
    env.reset(range(2000))
    for _ in range(3):
        _, rew, term, _ = env.step(np.zeros((2000, 1)))  # three times up is onto an enemy
    assert 0.08 < term.mean() < 0.12
    lone = Batched(ResourceGathering(), 1)
    lone.reset([int(np.flatnonzero(term)[0])])
    for _ in range(3):
        _, rew, ends, _ = lone.step([[0.0]])
    assert ends[0]
    assert rew[0].tolist() == [-1, 0, 0]


def values_of_gathering(weights: Any, gamma: float) -> Any:
    """Return vector of the optimal policy for weights, by value iteration over rules that are asked for every step."""
    rules = ResourceGathering()
    grid = np.stack(np.meshgrid(range(5), range(5), range(2), range(2), indexing="ij"), -1).reshape(-1, 4)
    states = grid.astype(float)
    outcomes = []
    for act in range(4):
        for chance, share in ((0.0, 0.1), (0.5, 0.9)):
            after, rew, term = rules.move(states, np.full((100, 1), float(act)), np.full(100, chance))
            index = after.astype(int) @ [20, 4, 2, 1]
            outcomes.append((act, share, index, rew, term))
    value = np.zeros((100, 3))
    for _ in range(400):
        q = np.zeros((4, 100, 3))
        for act, share, index, rew, term in outcomes:
            q[act] += share * (rew + gamma * value[index] * ~term[:, None])
        best = (q @ weights).argmax(0)
        value = q[best, np.arange(100)]
    return value[int(np.array([4, 2, 0, 0]) @ [20, 4, 2, 1])]


def test_resource_gathering_has_the_known_coverage_set() -> None:
    points = np.array([values_of_gathering(w, 0.99) for w in pareto.simplex_grid(3, 8)])
    front = points[pareto.convex_coverage(points.round(9))]
    known = [[0, 0, 0.913517], [0, 0.842943, 0.842943], [0, 0.895338, 0]]
    assert np.allclose(sorted(front.tolist()), known, atol=1e-6)


@pytest.mark.parametrize(
    ("depth", "zero", "minus"),
    [(5, 8808.418720, 44346.884946), (6, 12575.873297, 58271.258398), (7, 17665.284404, 75470.678497)],
)
def test_fronts_of_the_fruit_tree(depth: int, zero: float, minus: float) -> None:
    front = FruitTree(depth).front(1.0)
    assert pareto.non_dominated(front).all()
    assert np.allclose(np.linalg.norm(front, axis=1), 10, atol=1e-4)
    assert pareto.hypervolume(front, np.zeros(6)) == pytest.approx(zero, rel=1e-8)
    assert pareto.hypervolume(front, -np.ones(6)) == pytest.approx(minus, rel=1e-8)
    if depth == 6:
        assert pareto.convex_coverage(front).all()
        assert pareto.hypervolume(FruitTree(6).front(0.99), -np.ones(6)) == pytest.approx(46034.801698, rel=1e-8)
        assert pareto.sparsity(front) == pytest.approx(0.297038, abs=5e-7)
        assert pareto.expected_utility(front, pareto.simplex_grid(6, 5)) == pytest.approx(5.947714, abs=5e-7)


def test_every_leaf_of_the_fruit_tree_is_reached() -> None:
    rules = FruitTree(6)
    env = Batched(rules, 64)
    env.reset(range(64))
    total = np.zeros((64, 6))
    for level in range(6):
        _, rew, term, _ = env.step((np.arange(64)[:, None] >> (5 - level)) & 1)
        total += rew
    assert term.all()
    assert np.array_equal(total, rules.front(1.0))


def test_fronts_of_deep_sea_treasure() -> None:
    convex, concave = SeaTreasure("x", CONVEX), SeaTreasure("x", CONCAVE)
    assert pareto.hypervolume(convex.front(1.0), [0, -25]) == pytest.approx(401.8)
    assert pareto.hypervolume(concave.front(1.0), [0, -25]) == pytest.approx(1155)
    assert pareto.hypervolume(convex.front(0.99), [0, -25]) == pytest.approx(360.400946, rel=1e-8)
    env = Batched(convex, 1)
    env.reset([0])
    total = np.zeros(2)
    for act in (3, 3, 3, 3, 3, 1, 1, 1, 1):
        _, rew, term, _ = env.step([[act]])
        total += rew[0]
    assert term[0]
    assert total.tolist() == [16.1, -9]


def test_the_regulators_front() -> None:
    rules = Regulator()
    front = rules.front(0.9, 10)
    known = {0: (-272.021, -130.614), 5: (-158.840, -158.840)}
    known |= {1: (-226.172, -132.765), 2: (-200.401, -137.217), 3: (-182.719, -143.063), 4: (-169.403, -150.207)}
    for place, point in known.items():
        assert np.allclose(front[place], point, atol=5e-4)
        assert np.allclose(front[10 - place], point[::-1], atol=5e-4)
    assert pareto.hypervolume(front, [-310, -310]) == pytest.approx(29286.768, rel=1e-7)
    assert pareto.hypervolume(rules.front(0.9, 3000), [-310, -310]) == pytest.approx(29863.153, rel=1e-4)
    env = Batched(rules, 1)
    obs, total = env.reset([0]), np.zeros(2)
    gain = rules.gains([0.3, 0.7], 0.9)
    for t in range(50):
        obs, rew, _, trunc = env.step(-gain * obs)
        total += 0.9**t * rew[0]
    assert trunc[0]
    assert np.allclose(total, front[3], atol=1e-4)


def test_the_bandit() -> None:
    env = Batched(Bandit(shift=4.0), 2)
    env.reset([0, 1])
    _, rew, term, trunc = env.step([[0.0], [1.0]])
    assert rew.tolist() == [[3, 3], [4, 0]]
    assert term.all()
    assert not trunc.any()


def test_tasks_of_mo_gymnasium_have_vector_rewards() -> None:
    assert len(multi_objective.task_names()) >= 30
    env = envs.make("mo-halfcheetah-v5", 2)
    assert (env.spec.objectives, env.spec.horizon, env.spec.act_size) == (2, 1000, 6)
    assert isinstance(env, RestartableEnv)
    obs, other = env.reset([3, 4]), official("mo-halfcheetah-v5")
    assert np.array_equal(obs[1], other.reset(seed=4)[0])
    act = np.random.default_rng(0).uniform(-1, 1, (2, 6))
    for _ in range(5):
        obs, rew, _, _ = env.step(act)
        expected, reward, *_ = other.step(act[1].astype(np.float32))
        assert rew.shape == (2, 2)
        assert np.allclose(obs[1], expected)
        assert np.allclose(rew[1], reward)
    env.close()
    sea = envs.make("deep-sea-treasure-v0", 1)
    assert (sea.spec.objectives, sea.spec.actions) == (2, 4)
    sea.close()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: envs.make("DeepSeaTresure-v0", 1), "did you mean DeepSeaTreasure"),
        (lambda: envs.make("FruitTree6-v0", 0), "copies is 0"),
        (lambda: envs.make("FruitTree6-v0", 2).step([[0], [1]]), "before it was reset"),
        (lambda: envs.make("FruitTree6-v0", 2).reset([1]), "1 seeds for 2 copies"),
        (lambda: _begun("FruitTree6-v0").step([[2]]), "whole numbers from 0 to 1"),
        (lambda: _begun("FruitTree6-v0").step([[0, 1]]), "act has shape"),
        (lambda: _begun("FruitTree6-v0").restart(np.array([True]), []), "0 seeds for 1 chosen"),
        (lambda: Batched(FruitTree(5), 1).restart(np.array([True]), [1]), "restarted before it was reset"),
    ],
)
def test_bad_input(call: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        call()


def _begun(name: str) -> Any:
    env = envs.make(name, 1)
    env.reset([0])
    return env


@pytest.mark.parametrize("name", list(locomotion.TASKS))
def test_batched_locomotion_is_mo_gymnasiums_bit_for_bit(name: str) -> None:
    task_names()
    ours, theirs = envs.make(name, 5), GymnasiumCopies(name, 5)
    assert isinstance(ours, BatchedLocomotion)
    assert ours.spec == theirs.spec
    generator = np.random.default_rng(0)
    seeds = list(range(5))
    assert np.array_equal(ours.reset(seeds), theirs.reset(seeds))
    ended = np.zeros(5, dtype=bool)
    for step in range(70):
        act = generator.uniform(-1.2, 1.2, (5, ours.spec.act_size))
        for what, mine, other in zip(("obs", "rew", "term", "trunc"), ours.step(act), theirs.step(act)):
            assert np.array_equal(mine, other), f"{what} at step {step}"
            ended |= mine if what == "term" else False
        if step == 50:
            chosen = ended | (np.arange(5) == 0)
            fresh = generator.integers(1 << 31, size=int(chosen.sum())).tolist()
            assert np.array_equal(ours.restart(chosen, fresh), theirs.restart(chosen, fresh))
    assert ended.any() == ("hopper" in name)
    ours.close()
    theirs.close()


def test_batched_locomotion_knows_its_tasks() -> None:
    with pytest.raises(InputError, match=r"unknown task 'mo-ant-v5', expected one of mo-hopper-v5"):
        BatchedLocomotion("mo-ant-v5", 1)
