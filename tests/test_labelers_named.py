"""Labelers of general preferences by name, as the command line makes them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from experiments import cli
from experiments.command_line.options import LabelOptions
from experiments.command_line.problem import answers
from pbrl import rng
from pbrl.data import Pairs, hdf5
from pbrl.data.segments import Segments
from pbrl.errors import InputError
from pbrl.labelers.general import General
from pbrl.labelers.named import is_named, make_named
from pbrl.labelers.teachers import Teacher, make_labeler
from pbrl.spec import Spec
from tests.test_cli_users import only_run, ruled

KEY = rng.keys([1])[0]
SPEC = Spec("test", 3, 1)


def segments() -> Segments:
    """Three segments of four steps: a circle in three columns; the fourth is the action."""
    means = torch.tensor([[3.0, 1.0, 2.0], [2.0, 3.0, 1.0], [1.0, 2.0, 3.0]])
    obs = means.unsqueeze(1) + torch.tensor([-1.0, 1.0, 0.5, -0.5])[:, None]
    act = torch.tensor([-0.9, 0.1, 0.6]).reshape(3, 1, 1).expand(3, 4, 1)
    return Segments(obs, act, None, None, None, torch.arange(3), "test", "")


def label(name: str, first: int, second: int) -> float:
    pairs = Pairs(segments(), torch.tensor([first]), torch.tensor([second]))
    made = make_named(name, SPEC, mistake=0.0)
    return float((General(made.prefers, soft=True) if isinstance(made, General) else made)(pairs, KEY).label)


def test_votes_of_columns() -> None:
    name = "majority:obs0,obs1,obs2"
    assert [label(name, 1, 0), label(name, 2, 1), label(name, 0, 2)] == [1.0, 1.0, 1.0]  # 0 beats 1 beats 2 beats 0
    assert [label("majority:-obs0,-obs1,-obs2", *pair) for pair in ((1, 0), (2, 1), (0, 2))] == [0.0, 0.0, 0.0]
    assert label("share:obs0,obs1,act0", 0, 1) == pytest.approx(2 / 3)
    assert label("majority:act0", 0, 1) == 1.0


def test_speed_counts_late_where_it_was_low_early() -> None:
    # Sizes of the action in both halves: .9, .1 and .6.
    assert label("slow_then_fast:act0:0.7", 1, 2) == 1.0  # both slow enough: the faster one
    assert label("slow_then_fast:act0:0.7", 2, 0) == 0.0  # .9 is above the limit
    made = make_named("slow_then_fast:act0:0.7", SPEC, beta=2.0, mistake=0.1)
    assert isinstance(made, Teacher)
    assert made.score(segments()).tolist() == pytest.approx([-0.2, 0.1, 0.6])
    assert (made.beta, made.mistake) == (2.0, 0.1)


def test_mistakes_are_made() -> None:
    made = make_named("majority:act0", SPEC, mistake=0.3, beta=math.inf, margin=None)
    many = Pairs(segments(), torch.zeros(4000, dtype=torch.int64), torch.ones(4000, dtype=torch.int64))
    assert float(made(many, KEY).label.mean()) == pytest.approx(0.7, abs=0.03)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("majority", "cannot be read, expected such as majority:obs0"),
        ("majority:", "cannot be read"),
        ("majority:obs0,1", "cannot be read"),
        ("share:rew0", "cannot be read"),
        ("share:obs3", "name obs3, expected obs0 to obs2 as test has"),
        ("majority:act1", "name act1, expected act0 to act0"),
        ("slow_then_fast:obs1", "cannot be read"),
        ("slow_then_fast:-obs1:0.3", "cannot be read"),
        ("slow_then_fast:obs1:-1", "expected at least 0"),
        ("fastest:obs0", "cannot be read"),
    ],
)
def test_names_that_mean_nothing_are_one_sentence(name: str, part: str) -> None:
    with pytest.raises(InputError, match=part):
        make_named(name, SPEC, mistake=0.0)


def test_votes_have_no_faults_of_scores() -> None:
    for fault, value in (("beta", 1.0), ("skip", 0.1), ("myopia", 0.9)):
        with pytest.raises(InputError, match=f"have {fault} {value}, expected none: votes go by no one score"):
            make_named("share:obs0", SPEC, mistake=0.0, **{fault: value})


def test_no_name_of_a_teacher_is_taken() -> None:
    assert is_named("majority:obs0")
    assert not is_named("partial_return")
    with pytest.raises(InputError, match="unknown labels"):
        make_labeler("majority:obs0")


def test_spo_learns_from_them(tmp_path: Path) -> None:
    words = ["spo", "--env", "PointMass1D-v0", "--env-steps", "160", "--steps", "20", "--environments", "4"]
    words += ["--queue", "4", "--hidden", "8", "--batch-size", "40", "--epochs", "1", "--episodes", "0"]
    names = ["majority:act0", "share:-act0", "slow_then_fast:obs1:0.5"]
    assert cli.main(["train", *words, "--threads", "1", "--labels", *names, "--out", str(tmp_path)]) == 0
    run = only_run(tmp_path, "spo")
    assert [row["labels"] for row in run.members()] == names
    assert [each["by"] for each in run.config["identity"]["compared"]] == [
        "majority(1 * mean act[0]; decided)",
        "majority(-1 * mean act[0]; share)",
        "slow_then_fast(0.5)",
    ]
    _, losses = run.series("loss_pi")
    assert len({each[-1] for each in losses}) == 3


def test_stored_pairs_are_answered_by_them(tmp_path: Path) -> None:
    data = hdf5.load(ruled(tmp_path))
    options = LabelOptions(pairs=50, segment_length=3, held_out=0.2)
    found = answers(options, "majority:-obs0", data, "small")
    for side in (found.train, found.held_out):
        assert side is not None
        mean = side.pairs.segments.obs[..., 0].double().mean(1)
        assert torch.equal(side.label == 1.0, mean[side.pairs.second] < mean[side.pairs.first])
    with pytest.raises(InputError, match="name obs7, expected obs0 to obs3"):
        answers(options, "majority:obs7", data, "small")
    with pytest.raises(InputError, match="are answers about pairs, expected a labeler with a score to rank"):
        answers(options, "majority:obs0", data, "small", ranked=True)
