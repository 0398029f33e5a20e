"""The on-policy loop: what a rollout holds, how episodes follow one another, and how a resumed run finds its place."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import envs
from pbrl import rng
from pbrl.agent import Metrics
from pbrl.data.rollout import Rollout
from pbrl.data.source import Batch, Wants
from pbrl.errors import InputError
from pbrl.loops import Playing, on_policy
from pbrl.play.vector_env import Flags, RestartableEnv

from .contract import tiny_data
from .tiny_env import LENGTH, Array, TinyEnv, base_reward

DOUBLE = torch.float64


Draw = Callable[[Tensor, Tensor], Tensor]


def wild(obs: Tensor, key: Tensor) -> Tensor:
    """Two numbers by chance, unclipped."""
    return obs[..., :1] + rng.normal(key, obs.shape[1], 2, dtype=obs.dtype)


class Player(nn.Module):
    """Learns nothing and remembers the rollouts."""

    keys: Tensor

    def __init__(self, seeds: list[int], steps: int, chosen: Draw = wild, updates: int = 0) -> None:
        super().__init__()
        self.register_buffer("keys", rng.keys(seeds))
        self.steps, self.chosen, self.updates = steps, chosen, updates
        self.rollouts: list[Rollout] = []

    @property
    def environments(self) -> int:
        raise AssertionError("a loop plays in the copies that there are")

    def draw(self, obs: Tensor, key: Tensor) -> Tensor:
        return self.chosen(obs, key)

    def wants(self) -> Wants:
        return {"rollout": self.steps}

    def update(self, batch: Batch) -> Metrics:
        self.rollouts.append(batch["rollout"])
        self.updates += 1
        return {}


def tiny(copies: int) -> TinyEnv:
    return TinyEnv.like(tiny_data()[0], copies)


def played(
    env: RestartableEnv, seeds: list[int], steps: int, updates: int
) -> tuple[list[Rollout], list[dict[str, Tensor]]]:
    learner = Player(seeds, steps)
    found = list(on_policy(learner, Playing(env, learner.keys, dtype=DOUBLE), updates, every=1))
    return learner.rollouts, found


def joined(rollouts: list[Rollout], field: str) -> Tensor:
    return torch.cat([getattr(rollout, field) for rollout in rollouts], dim=1)


def test_a_rollout_tells_true_successors_and_both_kinds_of_end() -> None:
    rollouts, _ = played(tiny(6), [0, 1], 7, 6)
    obs, act, rew, after, term, trunc = (
        joined(rollouts, name) for name in ("obs", "act", "rew", "next_obs", "term", "trunc")
    )
    assert obs.shape == (2, 42, 3, 3)
    ended = (term + trunc) > 0
    # Every tenth step ends an episode, some truly, some not; the next one starts elsewhere.
    expected = torch.arange(42) % LENGTH == LENGTH - 1
    assert (ended == expected[None, :, None]).all()
    assert 0 < int(term.sum()) < int(ended.sum())
    assert not (term * trunc).any()
    going = ~expected[:-1]
    assert torch.equal(obs[:, 1:][:, going], after[:, :-1][:, going])
    assert (obs[:, 1:][:, ~going] != after[:, :-1][:, ~going]).all()
    # What the environment got are the clipped actions; the rollout holds those that were drawn.
    clipped = act.clamp(-1.0, 1.0)
    assert act.abs().max() > 1.0
    torch.testing.assert_close(rew.squeeze(-1), base_reward(obs, clipped), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(after, 0.9 * obs + 0.1 * clipped[..., :1], rtol=1e-12, atol=1e-12)


def test_returns_are_those_of_finished_episodes() -> None:
    rollouts, metrics = played(tiny(4), [0, 1], 4, 5)
    rew = joined(rollouts, "rew").squeeze(-1)  # [P, 20, N]: two episodes, ended in updates 3 and 5
    assert [set(found) for found in metrics] == [set(), set(), {"episode_return"}, set(), {"episode_return"}]
    torch.testing.assert_close(metrics[2]["episode_return"], rew[:, :10].sum(1).mean(1))
    torch.testing.assert_close(metrics[4]["episode_return"], rew[:, 10:].sum(1).mean(1))


def test_a_members_episodes_are_its_own() -> None:
    """They depend on its seed alone; and no two copies or episodes start alike."""
    together, _ = played(tiny(6), [5, 7, 9], 25, 1)
    alone, _ = played(tiny(2), [7], 25, 1)
    for field in ("obs", "act", "rew", "term"):
        assert torch.equal(getattr(together[0], field)[1], getattr(alone[0], field)[0])
    starts = together[0].obs[:, ::LENGTH].reshape(-1, 3)
    assert len(starts.unique(dim=0)) == len(starts) == 18


def chance(obs: Tensor, key: Tensor) -> Tensor:
    """One of two choices."""
    return rng.indices(key, obs.shape[1], 2).unsqueeze(-1).to(obs.dtype)


@pytest.mark.parametrize("name", ["PointMass-v0", "CartPole-v1"])
@pytest.mark.parametrize("stop", [1, 3])
def test_a_resumed_run_finds_its_place_in_every_episode(name: str, stop: int) -> None:
    def start(updates: int = 0) -> tuple[Player, Playing]:
        learner = Player([0, 1], 13, chance if name == "CartPole-v1" else wild, updates)
        return learner, Playing(envs.make(name, 6), learner.keys, dtype=DOUBLE)

    whole, playing = start()
    for _ in on_policy(whole, playing, 5, every=1):
        pass
    first, begun = start()
    for _ in on_policy(first, begun, stop, every=1):
        pass
    second, resumed = start(stop)
    resumed.load_state_dict({key: value.clone() for key, value in begun.state_dict().items()})
    for _ in on_policy(second, resumed, 5, every=1):
        pass
    assert resumed.env_steps == playing.env_steps == 5 * 13 * 3
    for ours, theirs in zip(second.rollouts, whole.rollouts[stop:], strict=True):
        for field in ("obs", "act", "rew", "next_obs", "term", "trunc"):
            assert torch.equal(getattr(ours, field), getattr(theirs, field)), field
    assert torch.equal(resumed.returns, playing.returns)


def test_a_state_loaded_in_mid_run_takes_the_environments_along() -> None:
    learner = Player([0], 4)
    playing = Playing(tiny(2), learner.keys, dtype=DOUBLE)
    playing.collect(learner, 4)
    state = {key: value.clone() for key, value in playing.state_dict().items()}
    learner.updates = 1
    one, _ = playing.collect(learner, 9)
    playing.load_state_dict(state)
    two, _ = playing.collect(learner, 9)
    assert torch.equal(one.obs, two.obs)
    assert torch.equal(one.rew, two.rew)


class TwoRewards(TinyEnv):
    """The tiny environment's reward and the first coordinate of the action."""

    def step(self, act: Array) -> tuple[Array, Array, Flags, Flags]:
        obs, rew, term, trunc = super().step(act)
        return obs, np.stack([rew[:, 0], act[:, 0]], axis=1), term, trunc


def test_several_objectives_stay_apart() -> None:
    one = tiny(4)
    spec = type(one.spec)("two", 3, 2, horizon=LENGTH, objectives=2)
    two = TwoRewards(4, spec, factor=1.0, constant=None, ends=True)
    rollouts, metrics = played(two, [0, 1], 10, 1)
    assert rollouts[0].rew.shape == (2, 10, 2, 2)
    torch.testing.assert_close(rollouts[0].rew[..., 1], rollouts[0].act[..., 0].clamp(-1.0, 1.0))
    for k in range(2):
        torch.testing.assert_close(metrics[0][f"episode_return_{k}"], rollouts[0].rew[..., k].sum(1).mean(1))


def test_a_member_that_acts_nan_stands_still_and_leaves_the_others() -> None:
    def lost(obs: Tensor, key: Tensor) -> Tensor:
        return wild(obs, key) * torch.tensor([1.0, torch.nan])[:, None, None]

    learner = Player([0, 1], 12, lost)
    rollout, _ = Playing(tiny(4), learner.keys, dtype=DOUBLE).collect(learner, 12)
    alone, _ = played(tiny(2), [0], 12, 1)
    assert rollout.obs.isfinite().all()
    assert torch.equal(rollout.obs[0], alone[0].obs[0])


def test_environments_that_cannot_be_played_are_refused() -> None:
    with pytest.raises(InputError, match="5 copies for 2 members, expected a multiple"):
        Playing(tiny(5), rng.keys([0, 1]))
    endless = tiny(2)
    endless.spec = type(endless.spec)("endless", 3, 2)
    with pytest.raises(InputError, match="endless has no time limit"):
        Playing(endless, rng.keys([0, 1]))
