"""Several users, and answers found again in a file."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from pbrl import rng
from pbrl.data import By, Pairs, Preferences
from pbrl.errors import InputError
from pbrl.labelers.mixture import Mixture
from pbrl.labelers.stored import Stored
from pbrl.labelers.teachers import partial_return_labeler

from .labelers_cases import KEY, normal_pairs, pairs_of

LIKES = partial_return_labeler()
DISLIKES = partial_return_labeler(mistake=1.0)


def test_every_pair_is_answered_by_one_user_in_proportion() -> None:
    pairs, crowd = normal_pairs(20_000), Mixture((LIKES, DISLIKES), (0.7, 0.3))
    answers = crowd(pairs, KEY)
    right = LIKES(pairs, KEY).label
    user = crowd.asked(len(pairs), KEY)
    assert torch.equal(answers.label, torch.where(user == 0, right, 1 - right))
    assert abs((user == 1).double().mean() - 0.3) < 0.01
    assert torch.equal(answers.pairs.first, pairs.first)
    assert answers.user is not None
    assert torch.equal(answers.user, user)
    assert answers.by.settings["answered"] == [int((user == 0).sum()), int((user == 1).sum())]
    assert answers.by.settings["skipped"] == 0


def test_users_can_be_kept_apart() -> None:
    pairs, crowd = normal_pairs(500), Mixture((LIKES, DISLIKES), (0.5, 0.5))
    likes, dislikes = crowd.by_user(pairs, KEY)
    user = crowd.asked(500, KEY)
    assert len(likes) + len(dislikes) == 500
    for answers, number in ((likes, 0), (dislikes, 1)):
        asked = pairs.take(user == number)
        assert torch.equal(answers.pairs.segments.row, asked.segments.row)
        assert torch.equal(answers.label, crowd.users[number](asked, KEY).label)
    assert likes.by.who != dislikes.by.who


def test_answers_keep_their_questions_when_a_user_skips() -> None:
    pairs = normal_pairs(500)
    picky = partial_return_labeler(skip=1.0, margin=0.5)
    answers = Mixture((picky, LIKES), (0.5, 0.5))(pairs, KEY)
    assert 0 < answers.by.settings["skipped"] == 500 - len(answers)
    assert torch.equal(answers.label, LIKES(answers.pairs, KEY).label), "a label moved to another pair"
    rows = answers.pairs.segments.row[answers.pairs.first]
    assert torch.equal(rows, rows.sort().values), "the order of the questions is lost"
    assert answers.user is not None
    assert torch.bincount(answers.user).tolist() == answers.by.settings["answered"]


def test_a_user_who_is_never_asked() -> None:
    answers = Mixture((LIKES, DISLIKES), (1.0, 0.0))(normal_pairs(50), KEY)
    assert torch.equal(answers.label, LIKES(normal_pairs(50), KEY).label)
    assert answers.by.settings["answered"] == [50, 0]


def test_users_draw_independently() -> None:
    noisy = partial_return_labeler(beta=0.0)
    crowd = Mixture((noisy, noisy), (0.5, 0.5))
    first, second = (answers.label[:300] for answers in crowd.by_user(normal_pairs(1000), KEY))
    assert abs((first == second).double().mean() - 0.5) < 0.1
    assert torch.equal(crowd(normal_pairs(1000), KEY).label, crowd(normal_pairs(1000), KEY).label)
    assert not torch.equal(crowd(normal_pairs(1000), KEY).label, crowd(normal_pairs(1000), rng.fold(KEY, 1)).label)


@pytest.mark.parametrize(
    ("users", "weights", "message"),
    [
        ((), (), "0 users"),
        ((LIKES,), (0.5, 0.5), "1 users and 2 weights"),
        ((LIKES, LIKES), (0.5, 0.6), "sum of 1"),
        ((LIKES, LIKES), (1.5, -0.5), "no negative ones"),
    ],
)
def test_bad_mixtures(users: Any, weights: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Mixture(users, weights)


HUMAN = By("anna", "Which walk looks better?", "2024-05-01", {"place": "lab"})


def test_stored_answers_are_found_in_either_order(tmp_path: Path) -> None:
    asked = pairs_of([[1.0], [2.0], [3.0], [4.0], [5.0], [6.0]])
    Preferences(asked, torch.tensor([1.0, 0.0, 0.5]), HUMAN).save(tmp_path / "anna.hdf5")
    anna = Stored(Preferences.load(tmp_path / "anna.hdf5"))
    assert anna(asked, KEY).label.tolist() == [1.0, 0.0, 0.5]

    turned = Pairs(asked.segments, asked.second, asked.first)
    assert anna(turned, KEY).label.tolist() == [0.0, 1.0, 0.5]

    # The same two segments under other numbers, and pairs that nobody answered: (5, 0), (1, 2).
    others = Pairs(asked.segments, torch.tensor([5, 2, 1]), torch.tensor([0, 3, 2]))
    answers = anna(others, KEY)
    assert answers.label.tolist() == [0.0]
    assert answers.pairs.segments.row[answers.pairs.first].tolist() == [2]
    assert dataclasses.replace(answers.by, settings=HUMAN.settings) == HUMAN
    assert answers.by.settings == {"place": "lab", "asked": 3, "skipped": 2}


def test_repeated_answers_are_averaged() -> None:
    asked = pairs_of([[1.0], [2.0]])
    both = Pairs(asked.segments, torch.tensor([0, 0, 1]), torch.tensor([1, 1, 0]))
    anna = Stored(Preferences(both, torch.tensor([1.0, 1.0, 1.0]), HUMAN))  # second, second, first
    assert anna(asked, KEY).label.tolist() == pytest.approx([2 / 3])


def test_nothing_known() -> None:
    known, asked = normal_pairs(4), pairs_of(torch.zeros(4, 1), obs=torch.full((4, 1, 1), -5.0))
    answers = Stored(LIKES(known, KEY))(asked, KEY)
    assert len(answers) == 0
    assert answers.by.settings["skipped"] == 2


def test_a_file_can_be_a_user() -> None:
    pairs = normal_pairs(200)
    human = Stored(DISLIKES(pairs.take(torch.arange(100)), KEY))
    answers = Mixture((human, LIKES), (0.5, 0.5))(pairs, KEY)
    assert 0 < answers.by.settings["skipped"] < 100
    assert 0 < answers.by.settings["answered"][0] < 100
