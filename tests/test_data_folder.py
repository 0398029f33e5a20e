"""Data from a folder that another behaviour run left: hand-made ones in the real format, and the real ones."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import envs
from experiments.cli import main
from experiments.datasets.behaviour import roll_out, uniform_policy
from experiments.datasets.behaviour_folder import behaviour
from experiments.datasets.make import make_data
from pbrl.data import hdf5
from pbrl.errors import InputError
from pbrl.labelers.oracle import load_critic

from .data_cases import SHARED

ENV = "Reacher-v5"
REAL = SHARED / "behaviour"


def network(sizes: tuple[int, ...], name: str, seed: int, twins: int = 0) -> dict[str, Any]:
    """Layers in flax's naming."""
    generator = np.random.default_rng(seed)
    lead = (twins,) if twins else ()
    arrays: dict[str, Any] = {}
    for depth, (before, after) in enumerate(itertools.pairwise(sizes)):
        arrays[f"{name}/Dense_{depth}/kernel"] = generator.normal(0, 0.3, (*lead, before, after)).astype(np.float32)
        arrays[f"{name}/Dense_{depth}/bias"] = generator.normal(0, 0.1, (*lead, after)).astype(np.float32)
    return arrays


def policy(seed: int) -> dict[str, Any]:
    actor = network((10, 8, 8, 2), "actor", seed)
    spread = network((8, 2), "actor", seed + 100)
    actor |= {name.replace("Dense_0", "Dense_3"): array for name, array in spread.items()}
    return actor | network((12, 8, 8, 1), "critic", seed, twins=2) | {"log_alpha": np.float32(-1.5)}


def write(folder: Path) -> Path:
    """Ten episodes of a random policy, a medium snapshot after six of them and a best one after all."""
    env = envs.make(ENV, 10)
    log = roll_out(env, uniform_policy(2), 500, [0])
    env.close()
    folder.mkdir(exist_ok=True)
    np.savez(folder / "replay.npz", **vars(log))
    np.savez(folder / "policy_medium.npz", **policy(1))
    np.savez(folder / "policy_best.npz", **policy(2))
    snapshots = {
        "medium": {"file": "policy_medium.npz", "env_steps": 300, "return_mean": -30.0},
        "best": {"file": "policy_best.npz", "env_steps": 500, "return_mean": -5.0},
        "last": {"file": "policy_best.npz", "env_steps": 500, "return_mean": -5.0},
    }
    (folder / "manifest.json").write_text(json.dumps({"env": ENV, "seed": 7, "snapshots": snapshots}))
    return folder


def test_snapshots_replay_and_oracle_are_the_folders(tmp_path: Path) -> None:
    run = behaviour(envs.make(ENV, 1).spec, write(tmp_path))
    assert [snapshot.steps for snapshot in run.snapshots] == [300, 500]
    assert (run.expert.steps, run.medium(-42.5).steps, len(run.log)) == (500, 300, 500)
    assert run.oracle_attrs == {"kind": "sac", "gamma": 0.99}
    assert run.about["seed"] == 7
    obs = np.random.default_rng(0).normal(size=(4, 10)).astype(np.float32)
    weights = policy(2)
    hidden = obs
    for depth in range(2):
        hidden = np.maximum(hidden @ weights[f"actor/Dense_{depth}/kernel"] + weights[f"actor/Dense_{depth}/bias"], 0)
    mean = np.tanh(hidden @ weights["actor/Dense_2/kernel"] + weights["actor/Dense_2/bias"])
    np.testing.assert_allclose(run.expert.greedy(obs, np.random.default_rng(0)), mean, atol=1e-6)


def test_medium_replay_is_the_beginning_of_the_replay(tmp_path: Path) -> None:
    made = make_data(ENV, "medium-replay", 1000, 0, tmp_path, folder=write(tmp_path / "run"), progress=False).dataset
    log = np.load(tmp_path / "run" / "replay.npz")
    assert len(made) == 300
    for field in ("obs", "act", "rew", "next_obs", "term", "trunc"):
        np.testing.assert_array_equal(getattr(made, field).numpy(), log[field][:300])
    assert hdf5.load(tmp_path / f"{made.name}.hdf5").fingerprint == made.fingerprint


def test_medium_expert_is_played_by_both_policies_and_has_the_best_ones_critic(tmp_path: Path) -> None:
    folder = write(tmp_path / "run")
    out = tmp_path / "made"
    words = ["data", "make", ENV, "--tier", "medium-expert", "--steps", "200", "--behaviour", str(folder)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PBRL_DATA_DIR", str(out))
        assert main(words) == 0
    path = out / "local" / "reacher" / "medium-expert-v1.hdf5"
    made = hdf5.load(path)
    assert [(part["policy"], part["rows"]) for part in made.info["parts"]] == [("medium", 100), ("expert", 100)]
    assert "best snapshot of one run" in made.info["behaviour"]["note"]
    assert made.info["command"].endswith(f"--behaviour {folder}")
    critic, weights = load_critic(path), policy(2)
    pair = torch.cat([made.obs[:5], made.act[:5]], dim=1).numpy()
    values = []
    for twin in range(2):
        x = pair
        for depth in range(3):
            kernel, bias = (weights[f"critic/Dense_{depth}/{part}"][twin] for part in ("kernel", "bias"))
            x = x @ kernel + bias
            x = np.maximum(x, 0) if depth < 2 else x
        values.append(x[:, 0])
    np.testing.assert_allclose(critic.q(made.obs[:5], made.act[:5]).numpy(), np.mean(values, axis=0), atol=1e-5)
    assert not (out / "behaviour").exists()  # nothing was trained


def rewrite(name: str, **changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        arrays = dict(np.load(folder / name)) | changes
        np.savez(folder / name, **{key: value for key, value in arrays.items() if value is not None})

    return change


def manifest(**changes: Any) -> Callable[[Path], Any]:
    return lambda folder: (folder / "manifest.json").write_text(
        json.dumps(json.loads((folder / "manifest.json").read_text()) | changes)
    )


BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no manifest": (lambda folder: (folder / "manifest.json").unlink(), "no such file, expected the manifest"),
    "no JSON": (lambda folder: (folder / "manifest.json").write_text("{"), "damaged, expected env and snapshots"),
    "another task": (manifest(env="Hopper-v5"), "holds the behaviour of Hopper-v5, expected that of Reacher-v5"),
    "no snapshots": (manifest(snapshots={}), "damaged, expected env and snapshots"),
    "late snapshot": (
        manifest(snapshots={"best": {"file": "policy_best.npz", "env_steps": 501, "return_mean": 0.0}}),
        "a snapshot is of step 501, expected 1 to 500",
    ),
    "no replay": (lambda folder: (folder / "replay.npz").unlink(), "replay.npz: no such file"),
    "no rewards": (rewrite("replay.npz", rew=None), "replay.npz: key 'rew' is missing"),
    "short": (rewrite("replay.npz", rew=np.zeros(3)), r"replay.npz: rew has shape \[3\], expected \[500\]"),
    "pickle": (rewrite("replay.npz", rew=np.array([None])), "replay.npz: unreadable npz file"),
    "both ends": (
        rewrite("replay.npz", term=np.ones(500, bool), trunc=np.ones(500, bool)),
        "replay.npz: term and trunc are both set",
    ),
    "not npz": (lambda folder: (folder / "policy_best.npz").write_text("x"), "policy_best.npz: unreadable npz file"),
    "no twin": (rewrite("policy_best.npz", **{"critic/Dense_1/kernel": None}), "lacks the array 'critic/1/weight'"),
    "other actions": (
        rewrite(
            "policy_medium.npz",
            **{"actor/Dense_2/kernel": np.zeros((8, 3), np.float32), "actor/Dense_2/bias": np.zeros(3, np.float32)},
        ),
        r"policy_medium.npz: actor/mean/weight has shape \[8, 3\], expected 2 on axis 1",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_folders_are_told_in_one_sentence(tmp_path: Path, case: str) -> None:
    spoil, message = BAD[case]
    spoil(write(tmp_path / "run"))
    with pytest.raises(InputError, match=message) as caught:
        make_data(ENV, "medium-expert", 200, 0, tmp_path, folder=tmp_path / "run", progress=False)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("**/*.hdf5"))


def test_settings_of_training_contradict_a_finished_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is trained already, expected no --behaviour-steps"):
        make_data(ENV, "medium", 200, 0, tmp_path, folder=write(tmp_path / "run"), behaviour_steps=100)


@pytest.mark.skipif(not REAL.is_dir(), reason="the real folders are not on this machine")
@pytest.mark.parametrize(("name", "env"), [("hopper", "Hopper-v5"), ("halfcheetah", "HalfCheetah-v5")])
def test_the_real_folders_are_read(name: str, env: str) -> None:
    run = behaviour(envs.make(env, 1).spec, REAL / name)
    assert run.medium(0.0).steps < run.expert.steps <= len(run.log)
    assert run.expert.score > 2 * run.medium(0.0).score
