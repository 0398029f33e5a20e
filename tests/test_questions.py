"""Questions whose held-out part shares no episode with the rest, and what the command line makes of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from experiments import cli
from experiments.command_line.options import LabelOptions
from experiments.command_line.problem import Answers, answers
from experiments.questions import put_aside, questions
from pbrl import data
from pbrl.data import By, Pairs, Preferences, Segments
from pbrl.errors import InputError
from pbrl.labelers.teachers import mean_segment_return
from pbrl.rng import keys
from tests.cli_cases import point_mass
from tests.data_cases import dataset

SHIPPED = "local/reacher/mixed-v1"
KEY = keys([7])[0]


def steps(segments: Segments) -> set[bytes]:
    return {step.numpy().tobytes() for step in segments.obs.flatten(0, 1)}


def told(labels: str = "partial_return", **options: object) -> Answers:
    chosen = dataclasses.replace(LabelOptions(), **options)  # type: ignore[arg-type]
    return answers(chosen, labels, data.load(SHIPPED), SHIPPED)


def test_every_pair_that_was_asked_for_is_kept() -> None:
    """On data so dense that 1000 pairs of random segments touch nearly every episode."""
    found = told()
    assert found.held_out is not None
    assert (len(found.train), len(found.held_out), found.note) == (1000, 111, "")
    assert not steps(found.train.pairs.segments) & steps(found.held_out.pairs.segments)
    other = told(label_seed=1)
    assert not torch.equal(other.train.pairs.segments.obs, found.train.pairs.segments.obs)


def test_labelers_are_asked_the_same() -> None:
    one, other = told(), told("regret")
    assert one.held_out is not None
    assert other.held_out is not None
    for mine, theirs in ((one.train, other.train), (one.held_out, other.held_out)):
        assert torch.equal(mine.pairs.segments.obs, theirs.pairs.segments.obs)
        assert not torch.equal(mine.label, theirs.label)


def test_nothing_is_held_out_on_request() -> None:
    found = told(held_out=0.0, pairs=50)
    assert (len(found.train), found.held_out) == (50, None)


def test_short_episodes_are_never_all_that_is_held_out() -> None:
    whole = dataset((2, 2, 9, 2, 2, 2, 9, 2, 2), "x" * 9)
    for seed in range(20):
        held, rest = put_aside(whole, 0.5, 5, keys([seed])[0])
        assert held.lengths.tolist() == [9]
        assert sorted(rest.lengths.tolist()) == [2] * 7 + [9]
        training, unseen = questions(held, rest, 6, 4, 5, KEY)
        assert (len(training), len(unseen)) == (6, 4)
        assert not steps(training.segments) & steps(unseen.segments)


@pytest.mark.parametrize(
    ("lengths", "share", "length", "words"),
    [
        ((9,), 0.5, 3, "1 episodes of at least 3 steps"),
        ((9, 9), 0.1, 3, "expected some to learn from and some to hold out"),
        ((9, 9), 0.5, 10, "segment length is 10, expected at most 9"),
    ],
)
def test_too_few_episodes(lengths: tuple[int, ...], share: float, length: int, words: str) -> None:
    with pytest.raises(InputError, match=words):
        put_aside(dataset(lengths, "x" * len(lengths)), share, length, KEY)


def test_an_episode_of_one_segment_cannot_be_asked_about() -> None:
    held, rest = put_aside(dataset((5, 9), "xx"), 0.5, 5, keys([0])[0])
    if len(held) > len(rest):
        held, rest = rest, held
    with pytest.raises(InputError, match=r"held-out episodes: .* has one window of 5 steps"):
        questions(held, rest, 3, 3, 5, KEY)


def test_pairs_that_are_all_ties_are_not_held_out_and_that_is_told(tmp_path: Path) -> None:
    small = data.load(str(point_mass(tmp_path)))
    pairs = Pairs.sample(small, 6, 1, KEY)
    ties = Preferences(pairs, torch.tensor([1.0, 0.5, 0.5, 0.5, 0.5, 0.5]), By("me"))
    ties.save(tmp_path / "mine.hdf5")
    told, refused = 0, 0
    for seed in range(20):
        try:
            found = answers(LabelOptions(label_seed=seed, held_out=0.3), str(tmp_path / "mine.hdf5"), small, "")
        except InputError as error:  # the only answer that says something is held out
            refused += "preferences by me are ties" in str(error)
            continue
        assert found.held_out is None
        assert "(2) are ties, which nobody can predict: all are learned from" in found.note
        assert len(found.train) == 6
        told += 1
    assert told > 0
    assert refused > 0


def test_a_file_says_what_its_split_drops(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = point_mass(tmp_path)
    pairs = Pairs.sample(data.load(str(small)), 200, 3, KEY)
    labels = torch.arange(200).remainder(2).float()
    Preferences(pairs, labels, By("me")).save(tmp_path / "mine.hdf5")
    words = ["train", "cpl", "--dataset", str(small), "--labels", str(tmp_path / "mine.hdf5"), "--episodes", "0"]
    words += ["--updates", "4", "--hidden", "8", "--out", str(tmp_path)]
    assert cli.main(words) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "of the 200 pairs of" in said
    assert "--held-out 0 learns from all" in said
    assert cli.main([*words, "--held-out", "0"]) == 0
    assert "of the 200 pairs" not in " ".join(capsys.readouterr().err.split())


def test_the_margin_is_in_units_of_the_score() -> None:
    plain = data.load(SHIPPED)
    cheerful = plain.with_reward(plain.rew + 10.0)
    for labels in ("partial_return", "partial_return:sum"):
        found = answers(LabelOptions(label_equal=0.01), labels, cheerful, SHIPPED)
        assert found.train.by.settings["margin"] == mean_segment_return(cheerful, 25)
    for labels in ("partial_return:mean", "partial_return:discounted", "regret"):
        chosen = LabelOptions(label_equal=0.01, label_gamma=0.9)
        with pytest.raises(InputError, match=f"--label-margin is missing, expected a number in units of '{labels}'"):
            answers(chosen, labels, cheerful, SHIPPED)
        found = answers(dataclasses.replace(chosen, label_margin=2.0), labels, cheerful, SHIPPED)
        assert found.train.by.settings["margin"] == 2.0


def test_a_negative_mean_return_is_no_margin() -> None:
    with pytest.raises(InputError, match=r"--label-margin is missing, .* the mean return of a segment, -18\.\d+, is"):
        told(label_skip=0.1)


def test_a_discount_goes_to_the_discounted_score_alone(tmp_path: Path) -> None:
    words = ["train", "cpl", "--dataset", SHIPPED, "--labels", "partial_return:discounted", "regret"]
    words += ["--label-gamma", "0.9", "--pairs", "20", "--updates", "4", "--hidden", "8", "--episodes", "0"]
    assert cli.main([*words, "--out", str(tmp_path)]) == 0
