"""Lists of segments in order on the command line, and the teachers who put them in order."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from experiments import cli
from pbrl import rng
from pbrl.data import load
from pbrl.data.rankings import Rankings
from pbrl.data.segments import Segments
from pbrl.errors import InputError
from pbrl.labelers.ranker import rank
from pbrl.labelers.teachers import partial_return_labeler
from pbrl.records.run import Run
from tests.test_cli_users import only_run, ruled

KEY = rng.keys([3])[0]
WORDS = [
    "--segment-length",
    "3",
    "--feedback",
    "rankings",
    "--pairs",
    "200",
    "--held-out",
    "0.25",
    "--list-length",
    "5",
]
SMALL = ["--hidden", "16", "--lr", "0.01", "--batch-size", "16", "--ensemble", "1", "--updates", "150"]


def questions(folder: Path, count: int, size: int) -> tuple[Segments, torch.Tensor]:
    return Rankings.sample(load(str(ruled(folder))), count, size, 3, KEY)


def test_a_reward_model_learns_from_ranked_lists(tmp_path: Path) -> None:
    words = ["--dataset", str(ruled(tmp_path)), *WORDS, *SMALL, "--out", str(tmp_path)]
    assert cli.main(["train", "reward_model", *words]) == 0
    run = only_run(tmp_path, "reward_model")
    assert run.series("held_out_accuracy")[1][0][-1] > 0.75
    (told,) = run.config["identity"]["answers"]
    assert told["train"]["pairs"] == 200 * 10  # all pairs of 200 lists of five
    assert told["held_out"]["pairs"] == 67
    assert told["by"]["settings"]["list_size"] == 5
    assert Run.open(run.folder).config["options"]["label"]["list_length"] == 5


def test_p_iql_learns_from_ranked_lists(tmp_path: Path) -> None:
    words = ["--dataset", str(ruled(tmp_path)), "--reward-feedback", "rankings", *WORDS[:2], *WORDS[4:]]
    words += ["--hidden", "8", "--reward-hidden", "8", "--reward-updates", "5", "--updates", "10", "--episodes", "0"]
    assert cli.main(["train", "p_iql", *words, "--out", str(tmp_path), "--label-beta", "2"]) == 0
    assert only_run(tmp_path, "p_iql").config["identity"]["answers"][0]["by"]["settings"]["beta"] == 2.0


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--label-mistake", "0.1"], "--label-mistake has no effect on labels partial_return: lists are put in order"),
        (["--label-users", "2"], "--label-users has no effect"),
        (["--labels", "partial_return", "partial_return:mean"], "all members learn the same rankings"),
        (["--labels", "answers.hdf5"], "expected a labeler such as partial_return to rank"),
        (["--list-length", "1"], "list_length is 1, expected at least 2"),
        (["--feedback", "pairs"], "--list-length has no effect on labels partial_return: answers are about pairs"),
    ],
)
def test_misuse_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], part: str
) -> None:
    given = ["--dataset", str(ruled(tmp_path)), *WORDS, *SMALL, "--out", str(tmp_path / "runs")]
    at = given.index(words[0]) if words[0] in given else len(given)
    given[at : at + len(words)] = words
    assert cli.main(["train", "reward_model", *given]) == 2
    assert part in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "runs").exists()


def test_a_perfect_teacher_ranks_by_score(tmp_path: Path) -> None:
    segments, lists = questions(tmp_path, 50, 4)
    found = rank(partial_return_labeler(), segments, lists, KEY)
    found.check()
    assert segments.rew is not None
    score = segments.rew.sum(1)[found.lists]
    assert bool((score.diff(dim=1) <= 0).all())
    assert torch.equal(found.lists.sort(1).values, lists.sort(1).values)


def test_a_noisy_teacher_ranks_as_plackett_and_luce_say(tmp_path: Path) -> None:
    """The same three segments again and again: the six orders come as often as the model says."""
    segments, _ = questions(tmp_path, 1, 3)
    lists = torch.arange(3).expand(20_000, 3)
    found = rank(partial_return_labeler(beta=1.5), segments, lists, KEY).lists
    assert segments.rew is not None
    weight = [math.exp(1.5 * float(s)) for s in segments.rew.double().sum(1)]
    for order in ((0, 1, 2), (1, 0, 2), (2, 1, 0)):
        expected, left = 1.0, sum(weight)
        for segment in order:
            expected *= weight[segment] / left
            left -= weight[segment]
        share = float((found == torch.tensor(order)).all(1).double().mean())
        assert share == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / 20_000) + 1e-9)
    assert torch.equal(found, rank(partial_return_labeler(beta=1.5), segments, lists, KEY).lists)


def test_a_teacher_with_faults_of_pairs_cannot_rank(tmp_path: Path) -> None:
    segments, lists = questions(tmp_path, 5, 3)
    for teacher, fault in (
        (partial_return_labeler(mistake=0.1), "mistake"),
        (partial_return_labeler(soft=True), "soft"),
    ):
        with pytest.raises(InputError, match=rf"Teacher.{fault} is \S+, expected 0 for rankings"):
            rank(teacher, segments, lists, KEY)
