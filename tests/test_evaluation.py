"""Roll-outs in a small environment whose returns are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from pbrl import rng
from pbrl.data.reference_scores import normalise
from pbrl.errors import InputError
from pbrl.evaluation import EVALUATION_SEED, evaluate, rollout
from pbrl.play.memory import Memory
from pbrl.spec import Spec

HORIZON = 6


class Clock:
    """Observes (seed, step), pays seed + (t + 1) act at step t, and ends after 2 + seed % 7 steps or is cut at 6."""

    def __init__(self, copies: int, horizon: int | None = HORIZON) -> None:
        self.copies = copies
        self.spec = Spec("Clock-v0", obs_size=2, act_size=1, horizon=horizon)
        self.resets: list[list[int]] = []
        self.closed = False
        self.smallest = np.inf

    def reset(self, seeds: Sequence[int]) -> NDArray[np.float64]:
        assert len(seeds) == self.copies
        self.resets.append(list(seeds))
        self.seeds = np.asarray(seeds)
        self.time = np.zeros(self.copies, dtype=int)
        return self._obs()

    def _obs(self) -> NDArray[np.float64]:
        return np.stack([self.seeds, self.time], axis=1).astype(np.float64)

    def step(self, act: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_], NDArray[np.bool_]]:
        assert act.shape == (self.copies, 1)
        assert np.isfinite(act).all(), "the simulator must never see NaN"
        end = np.minimum(2 + self.seeds % 7, HORIZON)
        alive = self.time < end
        self.time += alive
        rew = np.where(alive, self.seeds + self.time * act[:, 0], 0.0)
        finished = self.time >= end
        truly = 2 + self.seeds % 7 <= HORIZON
        return self._obs(), rew, finished & truly, finished & ~truly

    def close(self) -> None:
        self.closed = True


def expected(level: float, seed: int) -> tuple[float, int]:
    length = min(2 + seed % 7, HORIZON)
    return sum(seed + (t + 1) * level for t in range(length)), length


@dataclass
class Constant:
    """Member p always does ``levels[p]``; ``bad`` (member, step, seed) gives NaN."""

    levels: Tensor
    bad: tuple[int, int, int | None] | None = None

    def act(self, obs: Tensor, key: Tensor | None = None) -> Tensor:
        assert key is None
        act = self.levels.reshape(-1, 1, 1).expand(len(self.levels), obs.shape[1], 1).clone()
        if self.bad:
            member, step, seed = self.bad
            hit = (obs[member, :, 1] == step) & ((obs[member, :, 0] == seed) if seed is not None else True)
            act[member, hit] = torch.nan
        return act


LEVELS = torch.tensor([0.0, 0.25, -0.5], dtype=torch.float64)


@pytest.mark.parametrize("per_member", [1, 2, 3, 4, 8, 11])
def test_known_returns_in_waves_of_any_size(per_member: int) -> None:
    env = Clock(3 * per_member)
    scores = rollout(Constant(LEVELS).act, env, members=3, episodes=8, seed=100, dtype=torch.float64)
    wanted = np.array([[expected(level, 100 + i) for i in range(8)] for level in LEVELS.tolist()])
    np.testing.assert_allclose(scores.returns, wanted[..., 0])
    np.testing.assert_array_equal(scores.lengths, wanted[..., 1])
    assert len(set(scores.lengths[0])) == 5, "episodes of different lengths are what this is about"
    assert not scores.diverged.any()
    np.testing.assert_allclose(scores.mean, wanted[..., 0].mean(1))


def test_every_member_plays_the_same_episodes() -> None:
    env = Clock(6)
    rollout(Constant(LEVELS).act, env, members=3, episodes=3)
    assert env.resets[0] == [EVALUATION_SEED, EVALUATION_SEED + 1] * 3
    assert env.resets[1][0] == EVALUATION_SEED + 2
    assert len(env.resets) == 2


def test_a_diverging_member_is_reported_and_harms_no_other() -> None:
    good = rollout(Constant(LEVELS).act, Clock(6), members=3, episodes=4)
    scores = rollout(Constant(LEVELS, bad=(1, 2, None)).act, Clock(6), members=3, episodes=4)
    np.testing.assert_array_equal(scores.diverged, [False, True, False])
    assert np.isnan(scores.returns[1]).all()
    np.testing.assert_array_equal(scores.returns[[0, 2]], good.returns[[0, 2]])
    np.testing.assert_array_equal(scores.lengths[[0, 2]], good.lengths[[0, 2]])


def test_nan_counts_only_while_an_episode_is_played() -> None:
    """NaN in a copy that has finished (seed 70 ends at step 2) or in the surplus of the last wave is nobody's score."""
    finished = rollout(Constant(LEVELS, bad=(1, 2, 70)).act, Clock(6), members=3, episodes=2, seed=70)
    assert not finished.diverged.any()
    surplus = rollout(Constant(LEVELS, bad=(1, 0, 73)).act, Clock(6), members=3, episodes=3, seed=70)
    assert not surplus.diverged.any()
    played = rollout(Constant(LEVELS, bad=(1, 0, 73)).act, Clock(6), members=3, episodes=4, seed=70)
    assert played.diverged.any()


class Dice:
    """Draws its actions when it gets keys."""

    def act(self, obs: Tensor, key: Tensor | None = None) -> Tensor:
        if key is None:
            return torch.zeros(*obs.shape[:2], 1)
        assert key.shape == obs.shape[:1]
        return rng.uniform(key, obs.shape[1], 1) * 2 - 1


def test_stochastic_members_play_as_they_would_alone() -> None:
    keys = rng.keys([3, 4, 5])
    together = rollout(Dice().act, Clock(6), members=3, episodes=5, stochastic_keys=keys)
    alone = rollout(Dice().act, Clock(2), members=1, episodes=5, stochastic_keys=keys[1:2])
    np.testing.assert_array_equal(together.returns[1:2], alone.returns)
    assert len(np.unique(together.returns)) == together.returns.size
    again = rollout(Dice().act, Clock(6), members=3, episodes=5, stochastic_keys=keys)
    np.testing.assert_array_equal(together.returns, again.returns)
    greedy = rollout(Dice().act, Clock(6), members=3, episodes=5)
    assert (greedy.returns != together.returns).all()


def test_actions_are_drawn_anew_at_every_step_and_in_every_wave() -> None:
    seen: list[float] = []

    def act(obs: Tensor, key: Tensor | None = None) -> Tensor:
        drawn = Dice().act(obs, key)
        seen.append(drawn.item())
        return drawn

    rollout(act, Clock(1), members=1, episodes=4, seed=70, stochastic_keys=rng.keys([0]))
    assert len(set(seen)) == len(seen) == 2 + 3 + 4 + 5


class Counting:
    """Remembers how many steps of the episode it has seen and the first observation; acts by both.

    ``scales`` [P] tell members apart, and every copy's memory is its own.
    """

    def __init__(self, scales: Tensor) -> None:
        self.scales = scales
        self.begun: list[int] = []

    def empty_memory(self, copies: int) -> Memory:
        self.begun.append(copies)
        empty = torch.zeros(len(self.scales), copies, 1, dtype=torch.float64)
        return {"steps": empty, "seed": empty}

    def act(self, obs: Tensor, key: Tensor | None = None) -> Tensor:
        return self.act_with(self.empty_memory(obs.shape[1]), obs, key)[0]

    def act_with(self, memory: Memory, obs: Tensor, key: Tensor | None = None) -> tuple[Tensor, Memory]:
        seed = torch.where(memory["steps"] == 0, obs[..., :1], memory["seed"])
        steps = memory["steps"] + 1
        noise = torch.zeros_like(steps) if key is None else rng.uniform(key, *steps.shape[1:], dtype=torch.float64)
        act = (self.scales.reshape(-1, 1, 1) * steps + seed % 3 + noise) / 10.0
        return act, {"steps": steps, "seed": seed}


SCALES = torch.tensor([1.0, 0.5], dtype=torch.float64)


@pytest.mark.parametrize("per_member", [1, 2, 3, 5])
def test_an_agent_that_remembers_begins_every_episode_afresh(per_member: int) -> None:
    """Returns by hand: act (scale * (t + 1) + seed % 3) / 10 at step t, whatever the other copies do meanwhile."""
    agent, episodes = Counting(SCALES), 5
    scores = rollout(agent, Clock(2 * per_member), members=2, episodes=episodes, seed=100, dtype=torch.float64)
    for member, scale in enumerate(SCALES.tolist()):
        for i in range(episodes):
            seed, length = 100 + i, expected(0.0, 100 + i)[1]
            acts = [(scale * (t + 1) + seed % 3) / 10.0 for t in range(length)]
            wanted = sum(seed + (t + 1) * act for t, act in enumerate(acts))
            assert scores.returns[member, i] == pytest.approx(wanted, rel=1e-12)
            assert scores.lengths[member, i] == length
    assert agent.begun == [per_member] * -(-episodes // per_member), "one empty memory per wave"


def test_evaluate_uses_the_memory_and_act_alone_is_a_first_step() -> None:
    agent = Counting(SCALES)
    scores = evaluate(agent, Clock, members=2, episodes=3, seed=100, dtype=torch.float64)
    remembered = rollout(agent, Clock(6), members=2, episodes=3, seed=100, dtype=torch.float64)
    forgetful = rollout(agent.act, Clock(6), members=2, episodes=3, seed=100, dtype=torch.float64)
    np.testing.assert_array_equal(scores.returns, remembered.returns)
    assert (forgetful.returns < remembered.returns).all()


def test_memories_of_members_are_their_own_with_stochastic_actions_too() -> None:
    keys = rng.keys([3, 4])
    together = rollout(Counting(SCALES), Clock(6), members=2, episodes=5, stochastic_keys=keys)
    alone = rollout(Counting(SCALES[1:]), Clock(3), members=1, episodes=5, stochastic_keys=keys[1:])
    np.testing.assert_array_equal(together.returns[1:], alone.returns)


def test_evaluate_closes_what_it_made() -> None:
    made: list[Clock] = []

    def make_env(copies: int) -> Clock:
        made.append(Clock(copies))
        return made[-1]

    scores = evaluate(Constant(LEVELS), make_env, members=3, episodes=7, together=4)
    assert scores.returns.shape == (3, 7)
    assert made[0].copies == 12
    assert made[0].closed
    with pytest.raises(InputError, match="expected a multiple"):
        evaluate(Constant(LEVELS), lambda copies: make_env(copies + 1), members=3, episodes=7)
    assert made[1].closed
    evaluate(Constant(LEVELS), make_env, members=3, episodes=2)
    assert made[2].copies == 6


def test_normalised_scores() -> None:
    returns = np.array([[0.0, 10.0], [-10.0, np.nan]])
    np.testing.assert_array_equal(normalise(returns, (-10.0, 10.0)), [[50.0, 100.0], [0.0, np.nan]])
    with pytest.raises(InputError, match="min below max"):
        normalise(np.zeros(2), (3.0, 3.0))


def test_bad_input() -> None:
    act = Constant(LEVELS).act
    for copies, members in [(4, 3), (2, 3), (3, 0)]:
        with pytest.raises(InputError, match=f"{copies} environment copies for {members} members"):
            rollout(act, Clock(copies), members=members, episodes=1)
    with pytest.raises(InputError, match="0 episodes"):
        rollout(act, Clock(3), members=3, episodes=0)
    with pytest.raises(InputError, match="time limit None"):
        rollout(act, Clock(3, horizon=None), members=3, episodes=1)
    with pytest.raises(InputError, match=r"shape \[3, 1, 2\], expected \[3, 1, 1\]"):
        rollout(lambda obs, key=None: torch.zeros(3, 1, 2), Clock(3), members=3, episodes=1)
