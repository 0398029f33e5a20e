"""The online loop and the collector: a member alone, resuming, endings, seeds, rewards and bad input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import agents
import envs
from agents.off_policy.sac import SAC, SACConfig
from agents.offline.iql import IQL, IQLConfig
from envs.point_mass import PointMass, Problem
from pbrl import rng
from pbrl.agent import Agent, Metrics
from pbrl.data.buffer import Buffer, Replay
from pbrl.data.source import Batch, Source
from pbrl.errors import InputError
from pbrl.loops import offline, online
from pbrl.members import sweep
from pbrl.play.collector import Collector, EnvFault
from pbrl.play.vector_env import RestartableEnv
from pbrl.spec import Spec

from .data_cases import dataset

SMALL = {"hidden": (8,), "batch_size": 8}
STREAMS = 3


class Countdown:
    """Copies whose episodes last ``2 + seed % 4`` steps and end truly where the seed is even; obs = (seed, time).

    The reward is 1 for each step; ``broken`` is the number of steps after which everything is NaN.
    """

    def __init__(self, copies: int, broken: int | None = None) -> None:
        self.copies, self.spec = copies, Spec("Countdown", 2, 1, horizon=5)
        self.seed, self.time = np.zeros(copies, dtype=np.int64), np.zeros(copies, dtype=np.int64)
        self.broken, self.taken, self.began = broken, 0, [list[int]() for _ in range(copies)]

    def reset(self, seeds: Sequence[int]) -> NDArray[Any]:
        return self.restart(np.ones(self.copies, dtype=bool), seeds)

    def restart(self, chosen: NDArray[np.bool_], seeds: Sequence[int]) -> NDArray[Any]:
        for i, seed in zip(np.flatnonzero(chosen), seeds, strict=True):
            self.seed[i], self.time[i] = seed, 0
            self.began[i].append(seed)
        return self._obs()

    def _obs(self) -> NDArray[Any]:
        return np.stack([self.seed % 1000, self.time], axis=1).astype(np.float64)

    def step(self, act: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_], NDArray[np.bool_]]:
        assert act.shape == (self.copies, 1)
        assert np.abs(act).max() <= 1.0
        going = self.time < 2 + self.seed % 4
        assert going.all(), "a finished copy was not restarted"
        self.time += 1
        self.taken += 1
        end = self.time >= 2 + self.seed % 4
        obs = self._obs()
        if self.broken is not None and self.taken > self.broken:
            obs[-1, 0] = np.nan
        return obs, np.ones(self.copies), end & (self.seed % 2 == 0), end & (self.seed % 2 == 1)

    def close(self) -> None:
        return None


def population(name: str, seeds: Sequence[int], spec: Spec, **settings: Any) -> Any:
    algorithm = agents.find(name)
    return algorithm.make(spec, sweep(algorithm.config(**SMALL, **settings), seeds, dtype=torch.float64))


def gather(
    seeds: Sequence[int], env: RestartableEnv, streams: int = STREAMS, capacity: int = 450, name: str = "sac"
) -> tuple[Any, Collector]:
    learner = population(name, seeds, env.spec)
    buffer = Buffer(env.spec, len(seeds), capacity, streams=streams, dtype=torch.float64)
    return learner, Collector(env, buffer, learner.keys)


def run(learner: Any, collector: Collector, env_steps: int, **more: Any) -> list[dict[str, Tensor]]:
    settings = {"every": 60, "random_steps": 30, "updates_per_step": 0.1, **more}
    return list(online(learner, collector, env_steps, **settings))


def assert_same(one: Any, other: Any) -> None:
    ours, theirs = one.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name


# --- a member alone, and resuming -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sac", "td3"])
def test_a_member_alone_is_a_member_of_a_stack(name: str) -> None:
    def play(seeds: list[int]) -> tuple[Any, Buffer, list[dict[str, Tensor]]]:
        learner, collector = gather(seeds, envs.make("PointMass-v0", len(seeds) * STREAMS), name=name)
        return learner, collector.buffer, run(learner, collector, 330)

    together, buffer, history = play([4, 0, 7])
    for place, seed in enumerate((4, 0, 7)):
        alone, lone_buffer, lone_history = play([seed])
        for a, b in zip(together.parameters(), alone.parameters()):
            torch.testing.assert_close(a[place], b[0], rtol=1e-9, atol=1e-9)
        for column in ("obs", "act", "rew", "next_obs", "term"):
            ours, lone = getattr(buffer, column)[place], getattr(lone_buffer, column)[0]
            torch.testing.assert_close(ours, lone, rtol=1e-9, atol=1e-9)
        for ours, lone in zip(history, lone_history, strict=True):
            for metric in lone:
                torch.testing.assert_close(ours[metric][place], lone[metric][0], rtol=1e-9, atol=1e-9, equal_nan=True)
    assert together.updates == 30
    assert not torch.equal(buffer.obs[0], buffer.obs[1])


@pytest.mark.parametrize("env", ["PointMass-v0", "Hopper-v5"])
@pytest.mark.parametrize("stop", [60, 240])
def test_resumed_from_both_states_the_bits_are_those_of_an_uninterrupted_run(env: str, stop: int) -> None:
    def fresh() -> tuple[Any, Collector]:
        return gather([0, 5], envs.make(env, 2 * STREAMS), capacity=3000)

    whole, steady = fresh()
    expected = run(whole, steady, 420)
    first, collector = fresh()
    found = run(first, collector, stop)
    second, resumed = fresh()
    second.load_state_dict({name: value.clone() for name, value in first.state_dict().items()})
    resumed.buffer.load_state_dict({name: value.clone() for name, value in collector.buffer.state_dict().items()})
    found += run(second, resumed, 420)
    assert_same(second, whole)
    assert_same(resumed.buffer, steady.buffer)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name].nan_to_num(7.0), theirs[name].nan_to_num(7.0)) for name in ours)


def test_going_on_in_the_same_process_is_the_same_as_in_one_go() -> None:
    whole, steady = gather([0, 5], Countdown(6))
    run(whole, steady, 480)
    parts, collector = gather([0, 5], Countdown(6))
    for stop in (60, 120, 300, 480):
        run(parts, collector, stop)
    assert_same(parts, whole)
    assert_same(collector.buffer, steady.buffer)


def test_a_simulator_that_does_not_repeat_itself_is_found_out() -> None:
    learner, collector = gather([0], envs.make("PointMass-v0", STREAMS))
    run(learner, collector, 60)
    other = PointMass(STREAMS, Problem(noise=0.02))
    again, resumed = gather([0], other)
    resumed.buffer.load_state_dict(collector.buffer.state_dict())
    with pytest.raises(InputError, match="does not come back"):
        run(again, resumed, 120)


# --- episodes ---------------------------------------------------------------------------------------------------------


def test_endings_and_successors_are_those_of_the_episodes() -> None:
    env = Countdown(6)
    learner, collector = gather([0, 5], env, capacity=300)
    run(learner, collector, 240, updates_per_step=0.0)
    buffer = collector.buffer
    seed, time = buffer.obs.unbind(-1)
    assert torch.equal(buffer.next_obs[..., 0], seed)  # also at an end: the true last observation
    assert torch.equal(buffer.next_obs[..., 1], time + 1)
    end = time + 1 >= 2 + seed % 4
    assert torch.equal(buffer.term > 0, end & (seed % 2 == 0))
    assert torch.equal(buffer.trunc, end & (seed % 2 == 1))
    assert torch.equal(buffer.ended, end.reshape(2, -1, STREAMS).sum(1))
    assert {int(n) for n in (seed % 4).flatten()} == {0, 1, 2, 3}


def test_the_seed_of_an_episode_depends_on_member_stream_and_number() -> None:
    env, alone = Countdown(6), Countdown(3)
    run(*gather([0, 5], env), 240)
    run(*gather([5], alone), 240)
    assert env.began[3:] == alone.began
    drawn = [seed for copy in env.began for seed in copy]
    assert len(set(drawn)) == len(drawn)
    assert all(0 <= seed < 1 << 31 for seed in drawn)


def test_the_return_of_episodes_is_what_the_environment_paid() -> None:
    learner, collector = gather([0, 5], Countdown(6))
    history = run(learner, collector, 240, every=240, reward=lambda obs, act: -obs[..., 0])
    lengths = [[len(rows) for rows in collector.buffer.episodes(p)] for p in range(2)]
    assert history[0]["episode_return"].tolist() == [np.mean(each) for each in lengths]


# --- what is learned from ---------------------------------------------------------------------------------------------


def test_with_a_reward_of_its_own_the_learner_never_sees_the_environments() -> None:
    """Whatever the environment pays, everything that training changes has the same bits."""

    class Bribing(Countdown):
        def step(self, act: NDArray[Any]) -> Any:
            obs, rew, term, trunc = super().step(act)
            return obs, rew * 1e6, term, trunc

    learners = []
    for env in (Countdown(6), Bribing(6)):
        learner, collector = gather([0, 5], env)
        run(learner, collector, 240, reward=lambda obs, act: act[..., 0] - obs[..., 1])
        assert torch.equal(collector.buffer.rew, collector.buffer.act[..., 0] - collector.buffer.obs[..., 1])
        learners.append(learner)
    assert_same(*learners)
    assert float(collector.buffer.env_rew.min()) == 1e6


def test_the_first_steps_are_random_and_without_updates() -> None:
    learner, collector = gather([0, 5], envs.make("PointMass-v0", 6))
    run(learner, collector, 90, random_steps=90, updates_per_step=1.0)
    assert learner.updates == 0
    act = collector.buffer.act
    assert act.min() < -0.9
    assert act.max() > 0.9
    assert abs(float(act.mean())) < 0.1
    run(learner, collector, 96, random_steps=90, updates_per_step=1.5)
    assert learner.updates == 9


@pytest.mark.parametrize(("ratio", "updates"), [(0.0, 0), (0.25, 52), (1.0, 210), (2.0, 420)])
def test_updates_follow_the_ratio(ratio: float, updates: int) -> None:
    learner, collector = gather([0], Countdown(3))
    run(learner, collector, 240, updates_per_step=ratio)
    assert learner.updates == updates


def test_exploration_is_the_agents_own_and_keyed_by_its_steps() -> None:
    learner, collector = gather([0], Countdown(3))
    run(learner, collector, 3, random_steps=0, updates_per_step=0.0)
    buffer = collector.buffer
    key = rng.fold(learner.keys, "exploration", 0)
    assert torch.equal(buffer.act, learner.act(buffer.obs, key))
    assert not torch.equal(buffer.act, learner.act(buffer.obs))


def test_the_same_object_goes_online_with_rewards_on_the_scale_of_its_data() -> None:
    seen: list[Tensor] = []

    class Watched(IQL):
        def update(self, batch: Batch) -> Metrics:
            seen.append(batch["transitions"].rew)
            return super().update(batch)

    env = envs.make("PointMass1D-v0", 2 * STREAMS)
    learner = Watched(env.spec, sweep(IQLConfig(hidden=(8,), batch_size=8), [0, 1], dtype=torch.float64))
    collector = Collector(env, Buffer(env.spec, 2, 600, streams=STREAMS, dtype=torch.float64), learner.keys)
    run(learner, collector, 600, updates_per_step=0.0)
    data = Source.of(collector.buffer.to_dataset(0, name="first"), dtype=torch.float64)
    list(offline(learner, data, 5, every=5))
    prepared = learner.prepare(data)
    assert prepared.rew is not None
    assert data.rew is not None
    scale = float(prepared.rew[0] / data.rew[0])
    assert scale != 1.0
    before = learner.act(torch.ones(2, 4, 2, dtype=torch.float64))

    seen.clear()
    env = envs.make("PointMass1D-v0", 2 * STREAMS)
    mixed = Buffer(env.spec, 2, 600, streams=STREAMS, data=data, replay=Replay("mixed", 0.5), dtype=torch.float64)
    collector = Collector(env, mixed, learner.keys)
    run(learner, collector, 0)
    assert torch.equal(learner.act(torch.ones(2, 4, 2, dtype=torch.float64)), before)  # no step, no change
    run(learner, collector, 60, random_steps=0)
    raw = torch.cat([data.rew, mixed.env_rew.flatten()])
    assert len(seen) == 6
    for rew in torch.cat(seen).flatten():
        assert float((raw * scale - rew).abs().min()) < 1e-9


def test_iql_restored_online_has_its_scale() -> None:
    """The scale is in the state_dict, for whoever goes on without the data."""
    data = Source.of(dataset((20, 20), "xx"))
    first, second = (IQL(dataset().spec, sweep(IQLConfig(hidden=(8,), batch_size=8), [0])) for _ in range(2))
    first.prepare(data)
    second.load_state_dict(first.state_dict())
    batch = data.draw({"transitions": 4}, first.keys, 0)["transitions"]
    assert torch.equal(first.as_prepared(batch).rew, second.as_prepared(batch).rew)
    assert not torch.equal(first.as_prepared(batch).rew, batch.rew)


# --- bad input --------------------------------------------------------------------------------------------------------


def test_what_came_before_a_fault_is_kept() -> None:
    learner, collector = gather([0, 5], Countdown(6, broken=7))
    with pytest.raises(EnvFault, match="Countdown gave an observation that is not a number after 21 steps"):
        run(learner, collector, 240)
    assert collector.buffer.env_steps == 21
    assert collector.buffer.obs.isfinite().all()


def test_a_diverged_member_does_not_stop_the_others() -> None:
    """Its actions count as 0."""

    class Lost(SAC):
        def act(self, obs: Tensor, key: Tensor | None = None) -> Tensor:
            act = super().act(obs, key).clone()
            act[0] = float("nan")
            return act

    env = Countdown(6)
    learner = Lost(env.spec, sweep(SACConfig(hidden=(8,), batch_size=8), [0, 5], dtype=torch.float64))
    collector = Collector(env, Buffer(env.spec, 2, 300, streams=3, dtype=torch.float64), learner.keys)
    run(learner, collector, 90, random_steps=0)
    assert bool((collector.buffer.act[0] == 0.0).all())
    assert not bool((collector.buffer.act[1] == 0.0).any())


def test_misfits_are_named() -> None:
    env = Countdown(6)
    buffer = Buffer(env.spec, 2, 300, streams=3)
    with pytest.raises(InputError, match="4 environment copies"):
        Collector(Countdown(4), buffer, rng.keys([0, 1]))
    with pytest.raises(InputError, match="has 4 observations and 2 actions, expected 2 and 1"):
        Collector(envs.make("PointMass-v0", 6), buffer, rng.keys([0, 1]))
    with pytest.raises(InputError, match="holds 12 steps, expected at least 15"):
        Collector(env, Buffer(env.spec, 2, 12, streams=3), rng.keys([0, 1]))
    endless = Countdown(6)
    endless.spec = Spec("Endless", 2, 1)
    with pytest.raises(InputError, match="Endless has no time limit"):
        Collector(endless, buffer, rng.keys([0, 1]))
    collector = Collector(env, buffer, rng.keys([0, 1]))
    algorithm = agents.find("cpl")
    cloning = algorithm.make(env.spec, sweep(algorithm.config(hidden=(4,)), [0, 1]))
    assert isinstance(cloning, Agent)
    with pytest.raises(InputError, match="CPL learns from pairs"):
        next(online(cloning, collector, 10, every=5))
    with pytest.raises(InputError, match="updates_per_step -1"):
        next(online(population("sac", [0, 1], env.spec), collector, 10, every=5, updates_per_step=-1))
