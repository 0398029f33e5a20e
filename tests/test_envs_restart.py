"""Copies that begin new episodes one by one."""

from __future__ import annotations

import numpy as np
import pytest

import envs
from pbrl.errors import InputError
from pbrl.play.vector_env import RestartableEnv

IDS = ["PointMass-v0", "Hopper-v5", "Reacher-v5"]


@pytest.mark.parametrize("name", IDS)
def test_a_restarted_copy_is_as_after_a_reset_and_the_others_go_on(name: str) -> None:
    env, undisturbed, fresh = (envs.make(name, copies) for copies in (3, 3, 1))
    assert isinstance(env, RestartableEnv)
    generator = np.random.default_rng(0)
    for each in (env, undisturbed):
        each.reset([4, 5, 6])
    for _ in range(5):
        act = generator.uniform(-1, 1, (3, env.spec.act_size))
        last = env.step(act)[0]
        undisturbed.step(act)
    chosen = np.array([False, True, False])
    obs = env.restart(chosen, [9])
    first = fresh.reset([9])
    assert np.array_equal(obs[1], first[0])
    assert np.array_equal(obs[[0, 2]], last[[0, 2]])
    for _ in range(5):
        act = generator.uniform(-1, 1, (3, env.spec.act_size))
        ours, theirs, alone = env.step(act), undisturbed.step(act), fresh.step(act[1:2])
        for mine, other, lone in zip(ours, theirs, alone):
            assert np.array_equal(mine[[0, 2]], other[[0, 2]])
            assert np.array_equal(mine[1], lone[0])
    for each in (env, undisturbed, fresh):
        each.close()


@pytest.mark.parametrize("name", ["PointMass-v0", "Reacher-v5"])
def test_a_frozen_copy_lives_again(name: str) -> None:
    env = envs.make(name, 2)
    env.reset([1, 2])
    act = np.full((2, env.spec.act_size), 0.5)
    assert env.spec.horizon is not None
    for _ in range(env.spec.horizon):
        trunc = env.step(act)[3]
    assert trunc.all()
    env.restart(np.array([True, False]), [3])
    _, rew, term, trunc = env.step(act)
    assert rew[0] != 0.0
    assert rew[1] == 0.0
    assert trunc.tolist() == [False, True]
    assert not term.any()
    env.close()


@pytest.mark.parametrize("name", ["PointMass-v0", "Reacher-v5"])
def test_misuse_is_named(name: str) -> None:
    env = envs.make(name, 2)
    with pytest.raises(InputError, match="restarted before it was reset"):
        env.restart(np.array([True, False]), [3])
    env.reset([1, 2])
    with pytest.raises(InputError, match="2 seeds for 1 chosen copies"):
        env.restart(np.array([True, False]), [3, 4])
    env.close()
