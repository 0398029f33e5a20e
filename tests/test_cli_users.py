"""Labels of several users on the command line, and agents that are told whom to act for."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from experiments import cli
from experiments.command_line.options import LabelOptions
from experiments.command_line.problem import Answers, answers
from pbrl.data import Dataset, Pairs, hdf5, load
from pbrl.labelers.teachers import partial_return_labeler
from pbrl.records.run import Run
from pbrl.rng import keys
from tests.cli_cases import point_mass

SMALL = ["--reward-hidden", "16", "--hidden", "8", "--batch-size", "8", "--latent", "2", "--context", "8"]
TRAIN = [*SMALL, "--reward-batch-size", "8", "--reward-lr", "0.01", "--reward-updates", "150", "--trajectories", "1"]


def ruled(folder: Path) -> Path:
    """The small data set with rewards that a network can learn: the first number of the observation."""
    data = hdf5.load(point_mass(folder))
    path = folder / "ruled.hdf5"
    hdf5.save(dataclasses.replace(data, rew=data.obs[:, 0].clone(), name="ruled"), path)
    return path


def told(dataset: Dataset, **options: object) -> Answers:
    chosen = dataclasses.replace(LabelOptions(pairs=200, segment_length=3, held_out=0.2), **options)  # type: ignore[arg-type]
    return answers(chosen, "partial_return", dataset, "small")


def only_run(out: Path, part: str) -> Run:
    (run,) = (path for path in (out / "train").iterdir() if part in path.name)
    return Run.open(run)


def test_pairs_are_put_to_users_of_whom_a_share_prefers_the_opposite(tmp_path: Path) -> None:
    dataset = load(str(ruled(tmp_path)))
    found = told(dataset, label_users=5, label_opposed=0.4)
    agreeing = partial_return_labeler()
    for side in (found.train, found.held_out):
        assert side is not None
        assert side.user is not None
        assert side.user.unique().tolist() == [0, 1, 2, 3, 4]
        right = agreeing(side.pairs, keys([0])[0]).label
        assert torch.equal(side.label, torch.where(side.user < 3, right, 1 - right))
    assert told(dataset).train.user is None


def test_opposed_users_err_as_often_as_the_others(tmp_path: Path) -> None:
    dataset = load(str(ruled(tmp_path)))
    found = told(dataset, label_users=2, label_opposed=0.5, label_mistake=0.25, pairs=2000).train
    right = partial_return_labeler()(found.pairs, keys([0])[0]).label
    assert found.user is not None
    for user, share in ((0, 0.75), (1, 0.25)):
        mine = found.user == user
        assert float((found.label[mine] == right[mine]).double().mean()) == pytest.approx(share, abs=0.05)


def test_an_agent_for_many_users_predicts_what_one_reward_cannot(tmp_path: Path) -> None:
    data = str(ruled(tmp_path))
    words = ["--dataset", data, "--pairs", "400", "--segment-length", "3", "--held-out", "0.25", "--episodes", "0"]
    words += ["--label-users", "4", "--label-opposed", "0.5", "--out", str(tmp_path)]
    assert cli.main(["train", "vpl", *words, *TRAIN, "--updates", "160"]) == 0
    single = ["--hidden", "16", "--lr", "0.01", "--updates", "160", "--batch-size", "32"]
    assert cli.main(["train", "reward_model", *words, *single]) == 0
    ours, one = (only_run(tmp_path, name).series("held_out_accuracy")[1][0][-1] for name in ("vpl", "reward_model"))
    assert ours > 0.85
    assert 0.3 < one < 0.7


def test_a_run_is_evaluated_for_the_user_whose_answers_are_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ruled(tmp_path)
    dataset = load(str(data))
    key = keys([1])[0]
    likes, dislikes = (partial_return_labeler(mistake=share) for share in (0.0, 1.0))
    pairs = Pairs.sample(dataset, 200, 3, key)
    user = torch.arange(200) % 2
    label = torch.where(user == 0, likes(pairs, key).label, dislikes(pairs, key).label)
    dataclasses.replace(likes(pairs, key), label=label, user=user).save(tmp_path / "crowd.hdf5")
    for name, labeler in (("right", likes), ("left", dislikes)):
        labeler(Pairs.sample(dataset, 20, 3, keys([2])[0]), key).save(tmp_path / f"{name}.hdf5")
    words = ["train", "vpl", "--dataset", str(data), "--labels", str(tmp_path / "crowd.hdf5"), "--held-out", "0"]
    assert cli.main([*words, *TRAIN, "--updates", "200", "--episodes", "2", "--out", str(tmp_path)]) == 0
    run = only_run(tmp_path, "vpl").folder
    assert cli.main(["evaluate", str(run), "--episodes", "2"]) == 0
    for name in ("right", "left"):
        assert cli.main(["evaluate", str(run), "--episodes", "2", "--answers", str(tmp_path / f"{name}.hdf5")]) == 0
    written = [
        (run / f"evaluation-PointMass-v0-greedy{whom}.csv").read_text() for whom in ("", "-for-right", "-for-left")
    ]
    assert len(set(written)) == 3
    capsys.readouterr()
    arrays: dict[str, Any] = {name: np.zeros((2, 3, 1)) for name in ("obs_1", "obs_2", "action_1", "action_2")}
    np.savez(tmp_path / "other.npz", label=np.array([0.0, 1.0]), **arrays)
    assert cli.main(["evaluate", str(run), "--answers", str(tmp_path / "other.npz")]) == 2
    assert "the segments have 1 observations and 1 actions, expected 4 and 2" in " ".join(
        capsys.readouterr().err.split()
    )


def test_an_agent_for_everybody_is_not_told_of_users(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = point_mass(tmp_path)
    quick = ["--updates", "4", "--episodes", "1", "--hidden", "8", "--batch-size", "4", "--out", str(tmp_path)]
    assert cli.main(["train", "bc", "--dataset", str(data), *quick]) == 0
    dataset = load(str(data))
    partial_return_labeler()(Pairs.sample(dataset, 5, 3, keys([2])[0]), keys([2])[0]).save(tmp_path / "one.hdf5")
    run = only_run(tmp_path, "bc").folder
    assert cli.main(["evaluate", str(run), "--answers", str(tmp_path / "one.hdf5")]) == 2
    assert "acts alike for all users" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--label-opposed", "0.5"], "--label-opposed has no effect on labels partial_return"),
        (["--label-users", "0"], "label_users is 0, expected at least 1"),
        (["--label-users", "4", "--label-opposed", "1.5"], "label_opposed is 1.5, expected a share of 0 to 1"),
        (["--label-users", "9", "--pairs", "20"], "has answered"),
    ],
)
def test_what_users_cannot_be(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["train", "vpl", "--dataset", str(point_mass(tmp_path)), "--segment-length", "3", *TRAIN]
    assert cli.main([*base, "--updates", "200", *words, "--out", str(tmp_path)]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "train").exists()
