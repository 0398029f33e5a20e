"""Batched MuJoCo: bit for bit Gymnasium's trajectories, whatever the number of threads."""

from __future__ import annotations

import numpy as np
import pytest

import envs
from envs.batched_mujoco import BatchedMuJoCo, names
from envs.mujoco import GymnasiumCopies
from pbrl.errors import InputError

COPIES = 20
"""Enough for two threads, where there are two cores."""


@pytest.mark.parametrize("name", names())
def test_trajectories_are_gymnasiums_bit_for_bit(name: str) -> None:
    ours, theirs = BatchedMuJoCo(name, COPIES), GymnasiumCopies(name, COPIES)
    assert ours.spec == theirs.spec
    generator = np.random.default_rng(0)
    seeds = list(range(100, 100 + COPIES))
    assert np.array_equal(ours.reset(seeds), theirs.reset(seeds))
    ended = np.zeros(COPIES, dtype=bool)
    for step in range(120):
        act = generator.uniform(-1.2, 1.2, (COPIES, ours.spec.act_size))
        found, expected = ours.step(act), theirs.step(act)
        for what, mine, other in zip(("obs", "rew", "term", "trunc"), found, expected):
            assert np.array_equal(mine, other), f"{what} at step {step}"
        ended |= found[2]
        if step % 40 == 39:  # those that fell, and some that did not
            chosen = found[2] | (np.arange(COPIES) % 7 == step // 40)
            fresh = generator.integers(1 << 31, size=int(chosen.sum())).tolist()
            assert np.array_equal(ours.restart(chosen, fresh), theirs.restart(chosen, fresh))
    if name.startswith(("Hopper", "Walker", "Inverted")):
        assert ended.any(), "no copy fell: the ending was not tested"
    ours.close()
    theirs.close()


def test_the_time_limit_cuts_and_freezes() -> None:
    env = BatchedMuJoCo("HalfCheetah-v5", 2)
    env.reset([0, 1])
    act = np.zeros((2, 6))
    for step in range(1000):
        obs, _, term, trunc = env.step(act)
        assert trunc.all() == (step == 999)
    again, rew, term, trunc = env.step(act)
    assert np.array_equal(obs, again)
    assert rew.tolist() == [0.0, 0.0]
    assert trunc.all()
    assert not term.any()
    env.close()


def test_make_takes_it_where_it_can() -> None:
    for name, kind in (("Walker2d-v5", BatchedMuJoCo), ("Reacher-v5", GymnasiumCopies)):
        made = envs.make(name, 2)
        assert isinstance(made, kind)
        made.close()


def test_misuse_is_named() -> None:
    with pytest.raises(InputError, match="copies is 0"):
        BatchedMuJoCo("Hopper-v5", 0)
    env = BatchedMuJoCo("Hopper-v5", 2)
    with pytest.raises(InputError, match="stepped before it was reset"):
        env.step(np.zeros((2, 3)))
    with pytest.raises(InputError, match="restarted before it was reset"):
        env.restart(np.array([True, False]), [0])
    with pytest.raises(InputError, match="3 seeds for 2 copies"):
        env.reset([0, 1, 2])
    env.reset([0, 1])
    with pytest.raises(InputError, match="2 seeds for 1 chosen copies"):
        env.restart(np.array([True, False]), [0, 1])
    with pytest.raises(InputError, match="act has shape"):
        env.step(np.zeros((2, 4)))
    env.close()
