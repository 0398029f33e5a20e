"""``pbrl train`` with ``--env-steps``: from nothing, from data, killed and resumed; and what it refuses."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

import envs
from experiments import cli
from pbrl.data import hdf5
from pbrl.data.hdf5 import load
from pbrl.records import checkpoint
from pbrl.records.run import Run
from tests.cli_cases import point_mass
from tests.test_resume import only_run, start

TINY = ["--hidden", "8", "--batch-size", "8", "--episodes", "2", "--threads", "1"]
SAC = ["sac", "--env", "PointMass-v0", "--env-steps", "400", "--updates-per-step", "0.1", "--seed", "0", "1", *TINY]


def train(folder: Path, *words: str) -> Path:
    assert cli.main(["train", *words, "--out", str(folder)]) == 0
    return only_run(folder)


def refused(capsys: pytest.CaptureFixture[str], folder: Path, *words: str) -> str:
    assert cli.main(["train", *words, "--out", str(folder / "refused")]) == 2
    assert not (folder / "refused").exists()
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def state(run: Path) -> dict[str, torch.Tensor]:
    index = checkpoint.find(run / "checkpoint")
    assert index is not None
    assert index.collected is not None
    files = [safetensors.torch.load_file(run / "checkpoint" / name) for name in (index.weights, index.collected)]
    return {f"{place} {name}": value for place, file in enumerate(files) for name, value in file.items()}


def test_sac_learns_from_nothing_but_a_simulator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = train(tmp_path, *SAC, "--envs-per-member", "2", "--random-steps", "100", "--lr", "1e-3", "3e-3")
    run = Run.open(folder)
    assert "last (at 400 environment steps)" in capsys.readouterr().out
    steps, returns = run.series("return")
    assert steps == list(range(40, 401, 40))
    assert np.asarray(returns).shape == (4, 10)
    assert run.count == "env_steps"
    saved = run.saved()
    assert saved is not None
    assert (saved.updates, saved.env_steps) == (30, 400)
    assert {row["env_steps"] for row in run.metrics() if row["updates"] == "0"} >= {"4", "100"}
    assert sorted(path.name for path in run.checkpoint.iterdir()) == [
        "checkpoint.json",
        "collected-30-400.safetensors",
        "weights-30-400.safetensors",
    ]
    assert (run.figures / "return.png").exists()
    assert cli.main(["evaluate", str(folder), "--episodes", "2"]) == 0
    assert "30 updates" in capsys.readouterr().out


def test_the_same_object_goes_from_data_into_the_simulator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The updates on data, and their evaluation, are bit for bit those of a run that stops there."""
    data = point_mass(tmp_path)
    words = ["iql", "--dataset", str(data), "--updates", "20", *TINY]
    offline = Run.open(train(tmp_path / "offline", *words))
    whole = Run.open(train(tmp_path / "online", *words, "--env-steps", "200", "--updates-per-step", "0.1"))
    heading = capsys.readouterr().out
    assert all(word in heading for word in ("offline", "dip", "regret"))
    before = [row for row in whole.metrics() if row["env_steps"] == "0"]
    assert before == offline.metrics()
    steps, scores = whole.series("score")
    assert steps == list(range(0, 201, 20))
    assert scores[0][0] == offline.series("score")[1][0][-1]
    saved = whole.saved()
    assert saved is not None
    assert (saved.updates, saved.env_steps) == (40, 200)


@pytest.mark.parametrize("replay", ["prefill", "empty", "mixed"])
def test_replay_decides_what_is_learned_from(replay: str, tmp_path: Path) -> None:
    data = point_mass(tmp_path)
    words = ["iql", "--dataset", str(data), "--updates", "5", "--env-steps", "100", "--updates-per-step", "0.2", *TINY]
    share = ["--replay-share", "0.75", "--replay-last-share", "0.25", "--replay-anneal", "50"]
    folder = train(tmp_path / replay, *words, "--replay", replay, *(share if replay == "mixed" else []))
    other = train(tmp_path / "other", *words, "--replay", "empty" if replay == "prefill" else "prefill")
    values = [[row["value"] for row in Run.open(each).metrics() if row["name"] == "loss_q"] for each in (folder, other)]
    assert values[0] != values[1]


@pytest.mark.parametrize("agent", ["sac", pytest.param("ppo", marks=pytest.mark.slow)])
def test_a_killed_run_ends_as_one_that_never_was(agent: str, tmp_path: Path) -> None:
    """Killed with SIGKILL at any moment; all that was collected is in its checkpoint."""
    words = [*SAC, "--eval-every-steps", "20", "--random-steps", "30", "--seed", "0", "3", "--episodes", "1"]
    if agent == "ppo":
        words = ["ppo", "--env", "PointMass-v0", "--env-steps", "3000", "--steps", "15", "--environments", "2"]
        words += ["--hidden", "8", "--episodes", "1", "--eval-every-steps", "60", "--seed", "0", "3", "--threads", "1"]
    else:
        words = [word if word != "400" else "1000" for word in words]
    threads = torch.get_num_threads()
    whole = train(tmp_path / "whole", *words)
    torch.set_num_threads(threads)
    process = start(*words, "--out", str(tmp_path / "killed"))
    runs, deadline = tmp_path / "killed" / "train", time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if runs.exists() and any(each.stat().st_size > 2000 for each in runs.glob("[!.]*/metrics.csv")):
            break
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "the kill came too late to test anything"
    process = start("--resume", str(only_run(tmp_path / "killed")))
    _, error = process.communicate(timeout=120)
    assert process.returncode == 0, error.decode()
    killed = only_run(tmp_path / "killed")
    ours, theirs = state(killed), state(whole)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert (killed / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()


def test_what_was_collected_can_be_learned_from_again(tmp_path: Path) -> None:
    folder = train(tmp_path, *SAC, "--export", "True")
    made = [load(folder / f"collected-{member}.hdf5") for member in range(2)]
    for each in made:
        assert len(each) == 400
        assert (each.env, each.info["agent"], each.info["horizon"]) == ("PointMass-v0", "sac", 100)
        assert each.lengths.tolist() == [100] * 4
    assert made[0].fingerprint != made[1].fingerprint
    words = ["bc", "--dataset", str(folder / "collected-1.hdf5"), "--updates", "5", *TINY]
    train(tmp_path / "again", *words)


def test_a_failing_environment_loses_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = envs.make

    def broken(env: str, copies: int) -> Any:
        made: Any = original(env, copies)
        step, taken = made.step, [0]

        def breaks(act: Any) -> Any:
            taken[0] += 1
            obs, rew, term, trunc = step(act)
            return (obs, np.full_like(rew, np.nan), term, trunc) if taken[0] > 150 else (obs, rew, term, trunc)

        if copies == 2:  # those that learn, not those that are evaluated
            made.step = breaks
        return made

    monkeypatch.setattr(envs, "make", broken)
    assert cli.main(["train", *SAC, "--episodes", "0", "--out", str(tmp_path)]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "PointMass-v0 gave a reward that is not a number after 150 steps" in line
    run = only_run(tmp_path)
    assert line.endswith(f"collected before: {run / 'collected-*.hdf5'}")
    assert [len(hdf5.load(run / f"collected-{member}.hdf5")) for member in range(2)] == [150, 150]


def test_a_failing_environment_leaves_a_player_its_last_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = envs.make

    def broken(env: str, copies: int) -> Any:
        made: Any = original(env, copies)
        step, taken = made.step, [0]

        def breaks(act: Any) -> Any:
            taken[0] += 1
            obs, rew, term, trunc = step(act)
            return (np.full_like(obs, np.nan), rew, term, trunc) if taken[0] > 27 else (obs, rew, term, trunc)

        if copies == 4:  # those that learn
            made.step = breaks
        return made

    monkeypatch.setattr(envs, "make", broken)
    words = ["ppo", "--env", "PointMass-v0", "--env-steps", "80", "--eval-every-steps", "20", "--seed", "0", "1"]
    words += ["--environments", "2", "--steps", "10", "--epochs", "1", "--hidden", "4", "--episodes", "0"]
    assert cli.main(["train", *words, "--out", str(tmp_path)]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "PointMass-v0 gave an observation that is not a number after 54 steps" in line
    run = Run.open(only_run(tmp_path))
    assert line.endswith(f"kept: {run.checkpoint} of 40 steps")
    saved = run.saved()
    assert saved is not None
    assert saved.updates == 2


# --- refused ----------------------------------------------------------------------------------------------------------


def check(capsys: pytest.CaptureFixture[str], folder: Path, words: Sequence[str], *expected: str) -> None:
    line = refused(capsys, folder, *words)
    for part in expected:
        assert part in line


def test_misuse_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(point_mass(tmp_path))
    on = ["--env", "PointMass-v0", "--env-steps", "100"]
    cases: list[tuple[list[str], tuple[str, ...]]] = [
        (["sac", "--env-steps", "100"], ("neither --dataset nor --env is given", "--env Hopper-v5")),
        (["sac", "--env", "PointMass-v0"], ("--dataset is missing",)),
        (["sac", "--env", "Nowhere-v1", "--env-steps", "100"], ("unknown environment 'Nowhere-v1'",)),
        (["bc", *on], ("bc cannot learn online: it does not learn from rewards", "such as sac")),
        (["cpl", *on], ("cpl cannot learn online: it learns from pairs",)),
        (["sac", "--env", "CartPole-v1", "--env-steps", "100"], ("a choice among 2", "such as ppo")),
        (["spo", "--env", "CartPole-v1", "--env-steps", "100"], ("spo acts in [-1, 1]", "such as ppo")),
        (["ppo", "--dataset", data], ("ppo learns from its own rollouts", "--env-steps")),
        (["ppo", "--dataset", data, "--env-steps", "100"], ("found a data set",)),
        (["ppo", *on, "--replay", "empty"], ("--replay has no effect", "ppo keeps no replay")),
        (["sac", *on, "--updates", "10"], ("--updates has no effect", "there is no data set")),
        (["sac", *on, "--replay", "prefill"], ("--replay is prefill but there is no --dataset",)),
        (["sac", *on, "--replay-share", "0.3"], ("--replay-share has no effect", "--replay mixed")),
        (["sac", *on, "--replay-capacity", "50"], ("replay_capacity is 50, expected at least 100",)),
        (["sac", *on, "--envs-per-member", "0"], ("envs_per_member is 0",)),
        (["sac", *on, "--updates-per-step", "-1"], ("updates_per_step is -1",)),
        (["iql", "--dataset", data, "--random-steps", "5"], ("--random-steps has no effect", "without --env-steps")),
        (["iql", "--dataset", data, "--env-steps", "100", "--env", "Hopper-v5"], ("Hopper-v5 has 11 observations",)),
    ]
    for words, expected in cases:
        check(capsys, tmp_path, words, *expected)


def test_an_agent_that_chooses_is_evaluated_as_it_was_trained(tmp_path: Path) -> None:
    words = ["--env", "CartPole-v1", "--env-steps", "100", "--steps", "25", "--environments", "2", "--epochs", "1"]
    folder = train(tmp_path, "ppo", *words, *TINY)
    assert cli.main(["evaluate", str(folder), "--episodes", "2"]) == 0
    assert Run.open(folder).config["identity"]["spec"]["actions"] == 2
