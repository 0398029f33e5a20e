"""The data generator: tiers, recorded ends, exact resumption, the oracle, and refusal of bad input before any work."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

import envs
from envs.point_mass import PointMass, solve
from experiments.datasets import behaviour_sac, make
from experiments.datasets.behaviour import Transitions, returns, roll_out, uniform_policy
from experiments.datasets.behaviour_sac import SACRun, chunk_ends
from experiments.datasets.make import TIERS, _spread, dataset_name, default_behaviour_steps, make_data
from experiments.datasets.sac_policy import sac_policy
from pbrl.data import Dataset, hdf5
from pbrl.errors import InputError
from pbrl.labelers.oracle import load_critic, make_critic

SHIPPED = Path(__file__).parents[1] / "pbrl" / "data" / "shipped" / "reacher-mixed-v1.hdf5"


def made(folder: Path, tier: str, steps: int = 3000, seed: int = 0) -> Dataset:
    return make_data("PointMass-v0", tier, steps, seed, folder, behaviour_steps=6000, progress=False).dataset


def part_returns(dataset: Dataset) -> dict[str, float]:
    return {part["policy"]: part["mean_return"] for part in dataset.info["parts"]}


def test_tiers_differ_in_skill_as_their_names_say(tmp_path: Path) -> None:
    tiers = {tier: made(tmp_path, tier) for tier in TIERS}
    mean = {tier: float(dataset.episode_returns().mean()) for tier, dataset in tiers.items()}
    assert mean["random"] < mean["medium"] < mean["medium-expert"] < mean["expert"]
    assert mean["random"] < mean["mixed"] < mean["expert"]
    assert mean["random"] < mean["medium-replay"] < mean["medium-expert"]
    third = mean["random"] + (mean["expert"] - mean["random"]) / 3
    assert abs(mean["medium"] - third) < 0.1 * (mean["expert"] - mean["random"])
    low, high = tiers["mixed"].info["reference"]
    assert low == pytest.approx(mean["random"], rel=0.2)
    assert high == pytest.approx(mean["expert"], rel=0.2)
    assert [part["policy"] for part in tiers["mixed"].info["parts"]] == ["random", "poor", "medium", "expert"]
    for tier, dataset in tiers.items():
        assert dataset.name == f"local/pointmass/{tier}-v1"
        assert dataset.env == "PointMass-v0"
        assert len(dataset) == 3000 if tier != "medium-replay" else len(dataset) < 3000
        assert dataset.spec.horizon == 100
        assert hdf5.load(tmp_path / f"{dataset.name}.hdf5").fingerprint == dataset.fingerprint


def test_the_seed_decides(tmp_path: Path) -> None:
    first, again, other = (made(tmp_path / name, "mixed", seed=seed) for name, seed in [("a", 3), ("b", 3), ("c", 4)])
    assert first.fingerprint == again.fingerprint
    assert first.info == again.info
    assert first.fingerprint != other.fingerprint


def test_the_point_mass_oracle_is_exact(tmp_path: Path) -> None:
    dataset = made(tmp_path, "random")
    critic = load_critic(tmp_path / "local/pointmass/random-v1.hdf5")
    env = PointMass(1)
    exact = solve(env.problem).critic
    assert critic.gamma == exact.gamma
    obs, act = dataset.obs.double(), dataset.act.double()
    assert torch.allclose(critic.q(obs, act).double(), exact.q(obs, act), rtol=1e-9)
    assert torch.allclose(critic.v(obs).double(), exact.v(obs), rtol=1e-9)


def test_rows_chain_within_episodes_and_obey_the_simulator(tmp_path: Path) -> None:
    data = made(tmp_path, "mixed", steps=3000)  # the last episode of each part is cut after 50 steps
    end = data.term | data.trunc
    assert int(end.sum()) == len(data.start) == 32
    assert sorted(set(data.lengths.tolist())) == [50, 100]
    inside = ~end[:-1]
    assert torch.equal(data.next_obs[:-1][inside], data.obs[1:][inside])
    a, b = PointMass(1).problem.dynamics
    drift = data.next_obs.numpy() - (data.obs.numpy() @ a.T + data.act.numpy() @ b.T)
    assert drift.std() == pytest.approx(PointMass(1).problem.noise, rel=0.05)
    assert np.abs(drift).max() < 6 * PointMass(1).problem.noise


def test_true_ends_are_recorded_with_their_successor(tmp_path: Path) -> None:
    env = envs.make("Hopper-v5", 4)
    rows = roll_out(env, uniform_policy(3), 300, [0])
    env.close()
    assert len(rows) == 300
    assert rows.term.sum() > 5
    assert rows.trunc.sum() <= 1  # only where the recording was cut
    unhealthy = (rows.next_obs[:, 0] < 0.7) | (np.abs(rows.next_obs[:, 1:]) > 100).any(1)
    unhealthy |= np.abs(rows.next_obs[:, 1]) > 0.2
    assert np.array_equal(unhealthy, rows.term)  # the state that ended the episode is the recorded successor


def test_roll_outs_do_not_prefer_short_episodes() -> None:
    env = envs.make("PointMass-v0", 4)
    rows = roll_out(env, uniform_policy(2), 1234, [0])
    assert len(rows) == 1234
    assert rows.trunc.sum() == 13
    assert rows.trunc[-1]
    whole = returns(env, uniform_policy(2), 10, [0])
    assert np.allclose(rows.episode_returns()[:10], whole)


def test_replay_is_thinned_to_whole_episodes_spread_over_the_run() -> None:
    count, length = 64, 5
    column = np.repeat(np.arange(count, dtype=np.float32), length)
    ends = np.tile(np.arange(length) == length - 1, count)
    log = Transitions(column[:, None], column[:, None], column, column[:, None], ends & False, ends)
    thin = _spread(log, 40)
    assert len(thin) == 40
    assert thin.rew.reshape(8, length).std(axis=1).max() == 0
    assert np.diff(thin.rew[::length]).min() >= 4
    assert _spread(log, 1000) is log


def test_chunks_are_multiples_of_the_horizon() -> None:
    assert chunk_ends(50_000, 50) == list(range(1000, 50_001, 1000))
    assert chunk_ends(120, 50) == [50, 100, 120]
    assert chunk_ends(2_000_000, 1000)[:2] == [10_000, 20_000]
    assert chunk_ends(20_000, 1000)[0] == 1000


class Killed(Exception):
    """Raised from the progress callback, that is, between any two steps."""


def killing(at: int) -> Callable[[int, str], None]:
    def advance(steps: int, words: str) -> None:
        if steps >= at:
            raise Killed

    return advance


def never(steps: int, words: str) -> None:
    raise AssertionError("a finished run was trained again")


def test_a_killed_sac_run_continues_to_the_same_bits_and_is_reused(tmp_path: Path) -> None:
    run = SACRun("Reacher-v5", 220, 1, 8)
    whole = behaviour_sac.behaviour(run, tmp_path / "whole", lambda steps, words: None)
    for at in (30, 130, 180):
        with pytest.raises(Killed):
            behaviour_sac.behaviour(run, tmp_path / "killed", killing(at))
    resumed = behaviour_sac.behaviour(run, tmp_path / "killed", lambda steps, words: None)
    for one, other in zip(whole.snapshots, resumed.snapshots, strict=True):
        assert (one.steps, one.score) == (other.steps, other.score)
        for name, weights in one.oracle.items():
            assert np.array_equal(weights, other.oracle[name]), name
    for name, column in vars(whole.log).items():
        assert np.array_equal(column, getattr(resumed.log, name)), name
    first, last = (whole.snapshots[i].oracle for i in (0, -1))
    assert not np.array_equal(first["actor/0/weight"], last["actor/0/weight"])  # something was learned at all
    behaviour_sac.behaviour(run, tmp_path / "killed", never)

    with pytest.raises(
        InputError, match="holds a behaviour run with --hidden 8, but 9 is wanted: expected --hidden 8, another --seed"
    ):
        behaviour_sac.behaviour(SACRun("Reacher-v5", 220, 1, 9), tmp_path / "killed", never)
    (tmp_path / "killed" / "chunk-100.npz").write_bytes(b"PK not a zip")
    with pytest.raises(InputError, match=r"chunk-100.npz: unreadable"):
        behaviour_sac.behaviour(run, tmp_path / "killed", never)


def test_sac_networks_are_stable_baselines3s(tmp_path: Path) -> None:
    from stable_baselines3 import SAC

    run = SACRun("Pusher-v5", 200, 0, 8)
    behaviour = behaviour_sac.behaviour(run, tmp_path, lambda steps, words: None)
    model = SAC.load(tmp_path / "state-200.zip", device="cpu")
    snapshot = behaviour.snapshots[-1]
    obs, act = behaviour.log.obs.astype(np.float32), behaviour.log.act.astype(np.float32)
    theirs, _ = model.predict(obs, deterministic=True)
    ours = snapshot.greedy(obs, np.random.default_rng(0))
    assert np.allclose(theirs, 2.0 * ours, atol=1e-5)  # Pusher's bounds are -2 and 2
    critic = make_critic(snapshot.oracle, behaviour.oracle_attrs)
    with torch.no_grad():
        twins = model.critic(torch.from_numpy(obs), torch.from_numpy(act))
    assert torch.allclose(
        critic.q(torch.from_numpy(obs), torch.from_numpy(act)), torch.cat(twins, 1).mean(1), atol=1e-4
    )
    assert np.abs(behaviour.log.act).max() > 0.9  # the first steps are uniform over the bounds
    assert behaviour.log.trunc.sum() == 2
    assert not behaviour.log.term.any()


def test_sac_samples_around_its_mode() -> None:
    rng = np.random.default_rng(0)
    shapes = {"actor/0": (3, 4), "actor/1": (4, 4), "actor/mean": (4, 2), "actor/log_std": (4, 2)}
    weights = {f"{name}/weight": rng.normal(size=shape) for name, shape in shapes.items()}
    weights |= {f"{name}/bias": np.zeros(shape[1]) for name, shape in shapes.items()}
    weights["actor/log_std/weight"][:] = 0.0
    weights["actor/log_std/bias"][:] = np.log(0.1)
    obs = np.repeat(rng.normal(size=(1, 3)), 20_000, axis=0)
    raw = np.arctanh(sac_policy(weights)(obs, rng)) - np.arctanh(sac_policy(weights, greedy=True)(obs, rng))
    assert np.allclose(raw.mean(0), 0.0, atol=0.004)
    assert np.allclose(raw.std(0), 0.1, rtol=0.03)


def test_a_sac_data_set_holds_its_oracle_and_its_origin(tmp_path: Path) -> None:
    arguments = {"behaviour_steps": 110, "hidden": 8, "progress": False}
    result = make_data("Reacher-v5", "medium-expert", 100, 0, tmp_path, **arguments)  # type: ignore[arg-type]
    assert result.path == tmp_path / "local/reacher/medium-expert-v1.hdf5"
    info = hdf5.load(result.path).info
    assert info["behaviour"]["versions"].keys() >= {"gymnasium", "mujoco", "stable-baselines3", "torch"}
    assert info["command"].endswith("--tier medium-expert --steps 100 --seed 0 --behaviour-steps 110 --hidden 8")
    assert [steps for steps, _ in info["curve"]] == [50, 100, 110]
    weights, attrs = hdf5.load_oracle(result.path)
    assert attrs == {"kind": "sac", "gamma": 0.99}
    assert weights["critic/0/weight"].shape == (2, 12, 8)
    before = (tmp_path / "behaviour/Reacher-v5/seed0/state-110.zip").stat().st_mtime_ns
    replay = make_data("Reacher-v5", "medium-replay", 50, 0, tmp_path, **arguments).dataset  # type: ignore[arg-type]
    assert (tmp_path / "behaviour/Reacher-v5/seed0/state-110.zip").stat().st_mtime_ns == before
    assert 0 < len(replay) <= 50


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"env": "Reechr-v5"}, "unknown environment 'Reechr-v5': did you mean Reacher-v5"),
        ({"env": "CartPole-v1"}, "'CartPole-v1' has Discrete actions"),
        ({"tier": "expret"}, "unknown tier 'expret', expected one of random, medium"),
        ({"steps": 0}, "steps is 0, expected at least 400: 4 episodes of 100 steps for tier 'mixed'"),
        ({"steps": 99, "tier": "random"}, "steps is 99, expected at least 100: one episode of 100 steps"),
        ({"seed": -1}, "seed is -1, expected at least 0"),
        ({"behaviour_steps": 99}, "behaviour_steps is 99, expected at least one episode of 100 steps"),
        ({"hidden": 0}, "hidden is 0, expected at least 1"),
    ],
)
def test_bad_input_is_refused_before_any_work(tmp_path: Path, changes: dict[str, object], sentence: str) -> None:
    arguments = {"env": "PointMass-v0", "tier": "mixed", "steps": 400, "seed": 0, "out_dir": tmp_path / "data"}
    with pytest.raises(InputError, match=sentence):
        make_data(**{**arguments, **changes})  # type: ignore[arg-type]
    assert not (tmp_path / "data").exists()


def test_unwritable_folders_and_existing_data_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file: cannot be written, expected a folder"):
        make_data("PointMass-v0", "random", 100, 0, tmp_path / "file", progress=False)
    made(tmp_path, "random", steps=100)
    with pytest.raises(InputError, match=r"random-v1.hdf5: exists already, expected --overwrite to replace it"):
        made(tmp_path, "random", steps=100)
    make_data("PointMass-v0", "random", 200, 0, tmp_path, overwrite=True, progress=False)
    assert len(hdf5.load(tmp_path / "local/pointmass/random-v1.hdf5")) == 200
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(InputError, match=r"cannot be written, expected a folder with permission"):
        made(tmp_path, "expert", steps=100)


@pytest.mark.parametrize(
    ("at", "told"),
    [
        (30, "none of the 120 environment steps of the behaviour run are kept yet, the same command starts over"),
        (80, "50 of 120 environment steps of the behaviour run are kept, the same command goes on from there"),
    ],
)
def test_ctrl_c_tells_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, told: str) -> None:
    @contextmanager
    def pressing(what: str, total: int, *, shown: bool) -> Iterator[Callable[[int, str], None]]:
        def advance(steps: int, words: str) -> None:
            if steps >= at:
                raise KeyboardInterrupt

        yield advance

    arguments = {"behaviour_steps": 120, "hidden": 8, "progress": False}
    monkeypatch.setattr(make, "_bar", pressing)
    with pytest.raises(KeyboardInterrupt) as stopped:
        make_data("Reacher-v5", "random", 50, 0, tmp_path, **arguments)  # type: ignore[arg-type]
    assert str(stopped.value) == told


@pytest.mark.parametrize(
    ("expert", "errors", "doubted"), [(-9.0, [0.3, 0.4], False), (-9.1, [0.3, 0.4], True), (-11.0, [0.0, 0.0], True)]
)
def test_an_expert_that_has_not_learned_is_doubted(expert: float, errors: list[float], doubted: bool) -> None:
    """Two standard errors of the difference are 2 sqrt(0.3^2 + 0.4^2) = 1."""
    said = make.doubt({"reference": [-10.0, expert], "reference_errors": errors})
    assert ("is not clearly above the random policy's -10.0" in said) == doubted
    assert bool(said) == doubted


def test_standard_errors_of_the_reference_are_stored(tmp_path: Path) -> None:
    low, high = made(tmp_path, "expert").info["reference_errors"]
    assert 0.0 < high < low


def test_names_and_defaults() -> None:
    assert dataset_name("HalfCheetah-v5", "medium") == "local/halfcheetah/medium-v1"
    assert dataset_name("PointMass3D-v0", "random") == "local/pointmass3d/random-v1"
    assert default_behaviour_steps("PointMass3D-v0") == default_behaviour_steps("PointMass-v0") == 20_000
    assert default_behaviour_steps("Walker2d-v5") == 1_000_000


def test_the_shipped_data_set_is_small_complete_and_leaves_room_to_improve() -> None:
    assert SHIPPED.stat().st_size < 3_000_000
    data = hdf5.load(SHIPPED)
    assert (data.name, data.env, data.spec.horizon) == ("local/reacher/mixed-v1", "Reacher-v5", 50)
    low, high = data.info["reference"]
    score = 100 * (float(data.episode_returns().mean()) - low) / (high - low)
    assert 10 < score < 50
    parts = part_returns(data)
    assert parts["poor"] < parts["random"] < parts["medium"] < parts["expert"]
    assert data.info["behaviour"]["versions"].keys() >= {"gymnasium", "mujoco", "stable-baselines3", "torch"}
    critic = load_critic(SHIPPED)
    rows = torch.arange(0, len(data), 7)
    gain = critic.q(data.obs[rows], data.act[rows]) - critic.v(data.obs[rows])
    quarters = [float(quarter.mean()) for quarter in gain.chunk(4)]  # random, poor, medium, expert
    assert max(quarters[:2]) < quarters[2] < quarters[3]
