"""A user's own files: every preference agent learns from own data with own answers, and from people's pairs alone."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from experiments import cli
from experiments.command_line.problem import unplaced
from pbrl import rng
from pbrl.data import By, Pairs, Preferences, load
from pbrl.records.run import Run

from .cli_cases import point_mass
from .test_resume import only_run

LAYERS = ["--hidden", "8"]
REWARD = [*LAYERS, "--reward-updates", "5", "--reward-batch-size", "4"]
AGENTS = {
    "cpl": LAYERS,
    "cpl_bc": LAYERS,
    "cpl_kl": LAYERS,
    "sft": LAYERS,
    "ipl": [*LAYERS, "--replay-batch-size", "4"],
    "reward_model": LAYERS,
    "oppo": ["--width", "8", "--layers", "1", "--context", "3"],
    "preference_transformer": ["--width", "8", "--heads", "2"],
    "p_iql": [*REWARD, "--reward-hidden", "8"],
    "pt_iql": [*REWARD, "--reward-width", "8", "--reward-heads", "2"],
    "pebble": [*REWARD, "--reward-hidden", "8"],
    "vpl": [*REWARD, "--reward-hidden", "8", "--context", "2"],
}
FROM_PAIRS = ("cpl", "cpl_bc", "cpl_kl", "sft", "ipl", "reward_model", "oppo", "preference_transformer")
"""Those that need no transitions beside the pairs."""
QUICK = ["--updates", "8", "--episodes", "1", "--batch-size", "4", "--held-out", "0", "--threads", "1"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """small.hdf5: data; answers.hdf5 and people.npz: the same answers; crowd.hdf5 and crowd.npz: those of two users."""
    folder = tmp_path_factory.mktemp("own")
    dataset = load(point_mass(folder))
    pairs = Pairs.sample(dataset, 12, 4, rng.keys([0])[0])
    label, user = (torch.arange(12) % 3 / 2).float(), torch.arange(12) % 2
    Preferences(pairs, label, By("me")).save(folder / "answers.hdf5")
    Preferences(pairs, label, By("us"), user).save(folder / "crowd.hdf5")
    sides = zip(("1", "2"), (pairs.first, pairs.second))
    arrays: dict[str, Any] = {}
    for side, index in sides:
        arrays |= {
            f"obs_{side}": pairs.segments.obs[index].numpy(),
            f"action_{side}": pairs.segments.act[index].numpy(),
        }
    np.savez(folder / "people.npz", label=label.numpy(), **arrays)
    np.savez(folder / "crowd.npz", label=label.numpy(), user=user.numpy(), **arrays)
    return folder


def trained(agent: str, out: Path, *words: str) -> Run:
    assert cli.main(["train", agent, *words, *AGENTS[agent], *QUICK, "--out", str(out)]) == 0
    run = Run.open(only_run(out))
    saved = run.saved()
    assert saved is not None
    assert saved.updates == 8
    return run


@pytest.mark.parametrize("form", ["hdf5", "npz"])
@pytest.mark.parametrize("agent", AGENTS)
def test_own_data_and_own_answers(agent: str, form: str, files: Path, tmp_path: Path) -> None:
    answers = "crowd" if agent == "vpl" else "answers" if form == "hdf5" else "people"
    run = trained(agent, tmp_path, "--dataset", str(files / "small.hdf5"), "--labels", str(files / f"{answers}.{form}"))
    told = run.config["identity"]["answers"][0]
    assert told["train"]["pairs"] == 12
    if agent not in ("reward_model", "preference_transformer"):
        assert cli.main(["evaluate", str(run.folder), "--episodes", "2"]) == 0
    assert cli.main(["report", str(run.folder), "--out", str(tmp_path / "page.html")]) == 0


@pytest.mark.parametrize("agent", FROM_PAIRS)
def test_answers_without_data(agent: str, files: Path, tmp_path: Path) -> None:
    run = trained(agent, tmp_path, "--labels", str(files / "people.npz"), "--env", "PointMass-v0")
    assert run.config["identity"]["dataset"] is None


def test_one_user_is_told_to_be_one(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(files / "small.hdf5")
    for place, (labels, alone) in enumerate((("answers", True), ("crowd", False))):
        trained("vpl", tmp_path / str(place), "--dataset", data, "--labels", str(files / f"{labels}.hdf5"))
        found = " ".join(capsys.readouterr().err.split())
        assert ("all answers count as one user's" in found) == alone
    trained("p_iql", tmp_path / "other", "--dataset", data, "--labels", str(files / "answers.hdf5"))
    assert "one user" not in capsys.readouterr().err


def test_a_run_on_files_named_from_where_they_lie_goes_on_from_anywhere(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files)
    run = trained("cpl", tmp_path, "--dataset", "small.hdf5", "--labels", "./answers.hdf5")
    for place in (files, tmp_path):
        monkeypatch.chdir(place)
        assert cli.main(["train", "--resume", str(run.folder)]) == 0


def test_other_answers_in_the_place_of_a_run_s_are_refused(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine.hdf5"
    shutil.copy(files / "answers.hdf5", mine)
    run = trained("cpl", tmp_path, "--dataset", str(files / "small.hdf5"), "--labels", str(mine))
    shutil.copy(files / "crowd.hdf5", mine)
    assert cli.main(["train", "--resume", str(run.folder)]) == 2
    assert "answers was" in capsys.readouterr().err


def test_where_only_ties_would_be_held_out_none_are(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = Preferences.load(files / "answers.hdf5")
    label = torch.full_like(told.label, 0.5)
    seen = told.split(0.1, rng.fold(rng.keys([0])[0], "held out"))[0].pairs.segments.row
    label[torch.isin(told.pairs.segments.row[told.pairs.first], seen)] = 1.0
    dataclasses.replace(told, label=label).save(tmp_path / "ties.hdf5")
    words = ["--dataset", str(files / "small.hdf5"), "--labels", str(tmp_path / "ties.hdf5"), "--hidden", "8"]
    assert cli.main(["train", "cpl", *words, *QUICK, "--held-out", "0.1", "--out", str(tmp_path)]) == 0
    assert "that would be held out (1) are ties" in " ".join(capsys.readouterr().err.split())
    (answers,) = Run.open(only_run(tmp_path)).config["identity"]["answers"]
    assert answers["train"]["pairs"] == 12
    assert answers["held_out"] is None


def test_the_folder_of_a_file_is_no_part_of_what_labels_are() -> None:
    assert unplaced("a/b.hdf5") == unplaced("/c/b.hdf5") == "b.hdf5"
    assert unplaced("page:a/b") == unplaced("page:/c/b") == "page:b"
    assert unplaced("partial_return:sum") == "partial_return:sum" != unplaced("regret:sum")
    assert unplaced("page") == "page"
