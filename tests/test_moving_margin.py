"""B-Pref's moving margin: the unit of skip and equal is what a member's segments have lately been worth."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from pbrl import rng
from pbrl.data.buffer import Buffer
from pbrl.errors import InputError
from pbrl.labelers.desk import AtOnce, Question
from pbrl.labelers.margin import recent_segment_return
from pbrl.labelers.scores import PartialReturn
from pbrl.labelers.teachers import Teacher

from .asking_cases import SCHEDULE, SPEC, case

LENGTH = SCHEDULE.segment_length


def buffer_of(episodes: list[tuple[int, float]], *, capacity: int = 1000, members: int = 1) -> Buffer:
    """Episodes of so many steps that pay so much at every step; member p is paid p times as much more."""
    buffer = Buffer(SPEC, members, capacity)
    for steps, pay in episodes:
        for step in range(steps):
            place = (members, 1)
            paid = pay * (1.0 + torch.arange(members, dtype=torch.float32))[:, None]
            end = torch.full(place, step == steps - 1)
            obs, act = torch.zeros(*place, SPEC.obs_size), torch.zeros(*place, SPEC.act_size)
            buffer.add(obs, act, -paid, obs, torch.zeros_like(end), end, env_rew=paid)
    return buffer


def test_it_is_the_mean_return_of_a_segment_of_the_last_episodes() -> None:
    ten = [(5, 1.0)] * 9 + [(15, 3.0)]
    buffer = buffer_of([(10, 100.0), *ten, (4, 7.0)][:11], members=2)
    expected = (9 * 5 * 1.0 + 15 * 3.0) / 10 * LENGTH / (60 / 10)
    assert recent_segment_return(buffer, LENGTH) == pytest.approx([expected, 2 * expected])
    assert recent_segment_return(buffer_of([]), LENGTH) == [None]
    assert recent_segment_return(buffer_of([(10, 2.0)]), LENGTH, episodes=3) == pytest.approx([2.0 * LENGTH])


def test_episodes_whose_beginning_is_overwritten_do_not_count() -> None:
    assert recent_segment_return(buffer_of([(10, 5.0), (10, 2.0)], capacity=15), LENGTH) == [2.0 * LENGTH]


def test_a_teacher_takes_the_margin_of_the_question() -> None:
    moving = Teacher(PartialReturn(), skip=0.1, equal=0.2, margin="moving")
    assert moving.at(8.0) == Teacher(PartialReturn(), skip=0.1, equal=0.2, margin=8.0)
    for none in (None, 0.0, -3.0, math.nan):
        assert moving.at(none) == Teacher(PartialReturn())
    fixed = Teacher(PartialReturn(), skip=0.1, margin=3.0)
    assert fixed.at(8.0) is fixed


class Notes(AtOnce):
    """Remembers what it is asked."""

    def __init__(self, keys: Tensor) -> None:
        super().__init__(Teacher(PartialReturn()), keys)
        self.seen: list[Question] = []

    def ask(self, questions: Sequence[Question]) -> None:
        self.seen += questions
        super().ask(questions)


def test_without_a_question_there_is_none() -> None:
    run = case(constant=1.0)
    desk = Notes(run.learner.keys)
    run.desk = desk
    run.run()
    assert {question.margin for question in desk.seen} == {float(LENGTH)}
    with pytest.raises(InputError, match="margin is 'moving', but these pairs bring none"):
        Teacher(PartialReturn(), skip=0.1, margin="moving")(desk.seen[0].pair, rng.keys([0])[0])


@pytest.mark.parametrize(
    ("constant", "skip", "equal", "answered"),
    [
        (1.0, 0.5, 0.0, 9),
        (1.0, 1.0, 0.0, 0),  # no segment is worth more than the mean
        (1.0, 0.0, 0.1, 9),
        (-1.0, 1.0, 9.0, 9),  # the margin is negative: no thresholds
    ],
)
def test_the_loop_asks_with_it(constant: float, skip: float, equal: float, answered: int) -> None:
    teacher = Teacher(PartialReturn(), skip=skip, equal=equal, margin="moving")
    run = case(constant=constant, labeler=teacher)
    run.run()
    questions = run.interview.questions
    assert questions.answered.tolist() == [answered] * 2
    assert questions.skipped.tolist() == [0 if answered else int(questions.asked[0])] * 2
    assert int(questions.asked[0]) >= 9
    assert bool((questions.label == 0.5).all())


def test_it_turns_small_differences_into_ties() -> None:
    labels = {}
    for equal in (0.0, 0.2, 50.0):
        run = case(factor=-1.0, labeler=Teacher(PartialReturn(), equal=equal, margin="moving" if equal else None))
        run.run()
        labels[equal] = run.interview.questions.label
    ties = [int((label == 0.5).sum()) for label in labels.values()]
    assert ties[0] == 0 < ties[1] < ties[2] == 18
