"""Gymnasium tasks as vector environments: the same numbers as Gymnasium, limits told from ends, bad ids refused."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import numpy as np
import pytest

import envs
from envs.mujoco import GymnasiumCopies
from pbrl.errors import InputError


def test_copies_equal_gymnasium_step_by_step() -> None:
    env = envs.make("Pusher-v5", 3)
    assert (env.spec.obs_size, env.spec.act_size, env.spec.horizon) == (23, 7, 100)
    originals = [gymnasium.make("Pusher-v5") for _ in range(3)]
    obs = env.reset([5, 6, 7])
    for i, original in enumerate(originals):
        assert np.array_equal(obs[i], original.reset(seed=5 + i)[0])
    rng = np.random.default_rng(0)
    for _ in range(10):
        act = rng.uniform(-1, 1, (3, 7))
        obs, rew, _, _ = env.step(act)
        for i, original in enumerate(originals):
            expected, reward, *_ = original.step((2.0 * act[i]).astype(np.float32))  # Pusher's bounds are -2 and 2
            assert np.allclose(obs[i], expected, atol=1e-6)
            assert rew[i] == pytest.approx(float(reward), abs=1e-6)
    env.close()
    for original in originals:
        original.close()


def test_actions_are_clipped_and_rescaled_to_asymmetric_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    env = GymnasiumCopies("MountainCarContinuous-v0", 1)
    seen: list[np.ndarray] = []
    original = env._envs[0].step

    def recording_step(act: np.ndarray) -> object:
        seen.append(act.copy())
        return original(act)

    monkeypatch.setattr(env._envs[0], "step", recording_step)
    env._low, env._high = np.array([-0.5]), np.array([1.0])
    env.reset([0])
    for value in (-1.0, 0.0, 1.0, 7.0):
        env.step([[value]])
    assert np.allclose(np.concatenate(seen), [-0.5, 0.25, 1.0, 1.0])


def test_time_limit_truncates_and_freezes() -> None:
    env = envs.make("Reacher-v5", 2)
    env.reset([0, 1])
    for t in range(1, 51):
        obs, rew, term, trunc = env.step(np.zeros((2, 2)))
        assert not term.any()
        assert (trunc == (t == 50)).all()
    again, rew, term, trunc = env.step(np.ones((2, 2)))
    assert np.array_equal(again, obs)
    assert (rew == 0).all()
    assert trunc.all()
    fresh = env.reset([0, 1])
    assert not np.array_equal(fresh, obs)
    assert not env.step(np.zeros((2, 2)))[3].any()
    env.close()


def test_a_fall_terminates_its_own_copy_only() -> None:
    env = envs.make("Hopper-v5", 2)
    env.reset([0, 1])
    rng = np.random.default_rng(0)
    ends = np.full(2, -1)
    for t in range(300):
        _, rew, term, trunc = env.step(rng.uniform(-1, 1, (2, 3)))
        assert not trunc.any()
        if (ends >= 0).any():
            frozen = ends >= 0
            late = frozen & (ends < t)
            assert (rew[late] == 0).all()
            assert (term[late]).all()
        ends = np.where(term & (ends < 0), t, ends)
        if (ends >= 0).all():
            break
    assert (ends >= 0).all()
    assert ends[0] != ends[1]
    env.close()


def test_an_end_at_the_time_limit_is_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    env = GymnasiumCopies("Pendulum-v1", 1)
    env.reset([0])
    monkeypatch.setattr(env._envs[0], "step", lambda act: (np.zeros(3), 1.0, True, True, {}))
    _, rew, term, trunc = env.step([[0.0]])
    assert (rew[0], term[0], trunc[0]) == (1.0, True, False)


def test_making_is_quiet_and_leaves_no_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo would write MUJOCO_LOG.TXT here
    for name in ("HalfCheetah-v5", "Hopper-v4"):  # warnings are errors in the tests: v4's deprecation must be silenced
        envs.make(name, 1).close()
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("Reechr-v5", r"unknown environment 'Reechr-v5': did you mean Reacher-v5"),
        ("CartPol-v1", r"unknown environment 'CartPol-v1': expected an id such as Reacher-v5 or PointMass-v0"),
        ("PointMas-v0", r"unknown environment 'PointMas-v0': did you mean PointMass-v0"),
        ("qqqqqqqq", r"unknown environment 'qqqqqqqq': expected an id such as Reacher-v5 or PointMass-v0"),
        ("Reacher-v2", r"'Reacher-v2' cannot be made: The mujoco v2 and v3 based environments"),
        ("FrozenLake-v1", r"'FrozenLake-v1' has Discrete observations, expected a Box"),
    ],
)
def test_bad_ids_are_told_in_one_sentence(name: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence) as caught:
        envs.make(name, 1)
    assert "\n" not in str(caught.value)


def test_bad_calls_are_told_in_one_sentence() -> None:
    with pytest.raises(InputError, match="copies is 0, expected at least 1"):
        envs.make("Reacher-v5", 0)
    env = envs.make("Reacher-v5", 2)
    with pytest.raises(InputError, match="before it was reset"):
        env.step(np.zeros((2, 2)))
    with pytest.raises(InputError, match="3 seeds for 2 copies of Reacher-v5"):
        env.reset([0, 1, 2])
    env.reset([0, 1])
    with pytest.raises(InputError, match=r"act has shape \(2,\), expected \(2, 2\)"):
        env.step(np.zeros(2))
    env.close()


def test_names_can_all_be_made_or_parsed() -> None:
    names = envs.names()
    assert len(names) == len(set(names))
    assert {"PointMass-v0", "Reacher-v5", "HalfCheetah-v5", "Humanoid-v5"} <= set(names)
    assert not [name for name in names if name.endswith("-v2")]


def test_a_choice_among_actions_is_a_whole_number() -> None:
    """CartPole, step for step as Gymnasium itself plays it."""
    env, theirs = envs.make("CartPole-v1", 2), gymnasium.make("CartPole-v1")
    assert (env.spec.actions, env.spec.act_size, env.spec.horizon) == (2, 1, 500)
    obs, (expected, _) = env.reset([3, 4]), theirs.reset(seed=4)
    np.testing.assert_array_equal(obs[1], expected)
    for act in (0, 1, 1, 0, 1):
        obs, rew, term, _ = env.step([[1 - act], [act]])
        expected, reward, over, _, _ = theirs.step(act)
        np.testing.assert_array_equal(obs[1], expected)
        assert (rew[1], term[1]) == (reward, over)
    for wrong in (0.5, 2.0, -1.0, float("nan")):
        with pytest.raises(InputError, match="expected whole numbers from 0 to 1: CartPole-v1 has a choice"):
            env.step([[1.0], [wrong]])
    theirs.close()
