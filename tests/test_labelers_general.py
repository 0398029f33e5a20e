"""Preferences that no reward explains."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pbrl import rng
from pbrl.data import Pairs
from pbrl.data.segments import Segments
from pbrl.errors import InputError
from pbrl.labelers.general import General, Majority, Mean, SlowThenFast
from pbrl.labelers.teachers import Teacher

KEY = rng.keys([3])[0]


def segments(obs: Tensor) -> Segments:
    """Of observations [M, T, O], with actions of 0."""
    return Segments.from_arrays(obs, torch.zeros(*obs.shape[:2], 1))


def cycle() -> Segments:
    """Condorcet's three: what each is by three scores."""
    return segments(torch.tensor([[3.0, 1.0, 2.0], [2.0, 3.0, 1.0], [1.0, 2.0, 3.0]]).unsqueeze(1).repeat(1, 2, 1))


SCORES = (Mean(0), Mean(1), Mean(2))
ROUND = torch.tensor([0, 1, 2]), torch.tensor([1, 2, 0])


def test_a_majority_goes_round_in_circles() -> None:
    first, second = ROUND
    forth = General(Majority(SCORES))(Pairs(cycle(), first, second), KEY)
    back = General(Majority(SCORES))(Pairs(cycle(), second, first), KEY)
    # The second of (A, B) is not preferred, nor that of (B, C), nor that of (C, A): no score can have it so.
    assert forth.label.tolist() == [0.0, 0.0, 0.0]
    assert back.label.tolist() == [1.0, 1.0, 1.0]
    transitive = Teacher(Mean(0))(Pairs(cycle(), first, second), KEY)
    assert transitive.label.tolist() == [0.0, 0.0, 1.0]


def test_a_share_of_votes_is_a_probability() -> None:
    first, second = ROUND
    soft = General(Majority(SCORES, "share"), soft=True)(Pairs(cycle(), first, second), KEY)
    torch.testing.assert_close(soft.label, torch.full((3,), 1 / 3))
    many = Pairs(cycle(), torch.zeros(20_000, dtype=torch.int64), torch.ones(20_000, dtype=torch.int64))
    drawn = General(Majority(SCORES, "share"))(many, KEY).label
    assert set(drawn.tolist()) == {0.0, 1.0}
    assert abs(float(drawn.mean()) - 1 / 3) < 4 * math.sqrt(2 / 9 / 20_000)


def test_both_orders_of_a_pair_agree() -> None:
    obs = rng.normal(KEY, 30, 4, 3)
    first, second = rng.indices(rng.keys([1, 2]), 200, 30)
    for rule in ("decided", "share"):
        function = Majority(SCORES, rule)
        one, other = function(Pairs(segments(obs), first, second)), function(Pairs(segments(obs), second, first))
        torch.testing.assert_close(one + other, torch.ones(200, dtype=torch.float64))
        assert (one[first == second] == 0.5).all()


def test_mistakes_turn_answers_round_and_leave_ties() -> None:
    obs = torch.tensor([0.0, 1.0, 1.0]).reshape(3, 1, 1)
    many = Pairs(
        segments(obs), torch.tensor([0, 1] * 10_000), torch.tensor([1, 2] * 10_000)
    )  # the second of the first pair, then a tie
    label = General(Majority((Mean(0),)), mistake=0.2)(many, KEY).label
    assert abs(float(label[::2].mean()) - 0.8) < 4 * math.sqrt(0.16 / 10_000)
    assert (label[1::2] == 0.5).all()
    assert General(Majority((Mean(0),)), mistake=0.2, soft=True)(many, KEY).label[:2].tolist() == pytest.approx(
        [0.8, 0.5]
    )


def test_slow_then_fast_depends_on_the_order_of_steps() -> None:
    """The same steps in another order, and a step's worth that depends on steps before: no reward of steps."""
    speeds = torch.tensor([[0.1, 0.1, 1.0, 1.0], [1.0, 1.0, 0.1, 0.1], [0.1, 0.1, 0.5, 0.5], [1.0, 1.0, 1.0, 1.0]])
    score = SlowThenFast(lambda s: s.obs[..., 0], limit=0.3)
    found = score(segments(speeds.unsqueeze(-1)))
    torch.testing.assert_close(found, torch.tensor([1.0, -0.7, 0.5, -0.7], dtype=torch.float64), rtol=1e-6, atol=1e-6)
    # Swapping the second halves of 0 and 1 would keep any sum of rewards of steps; here it does not.
    halves = torch.cat([speeds[:2, :2], speeds[:2, 2:].flip(0)], dim=1)
    swapped = score(segments(halves.unsqueeze(-1)))
    assert float(swapped.sum()) != pytest.approx(float(found[:2].sum()))
    answers = Teacher(score)(Pairs(segments(speeds.unsqueeze(-1)), torch.tensor([0, 1]), torch.tensor([1, 2])), KEY)
    assert answers.label.tolist() == [0.0, 1.0]


def test_who_said_so_is_told() -> None:
    first, second = ROUND
    by = General(Majority(SCORES), mistake=0.1)(Pairs(cycle(), first, second), KEY).by
    assert by.who == "majority(1 * mean obs[0], 1 * mean obs[1], 1 * mean obs[2]; decided) with mistake=0.1"
    assert by.settings["asked"] == 3


def test_bad_input() -> None:
    with pytest.raises(InputError, match="no scores"):
        Majority(())
    with pytest.raises(InputError, match=r"mistake is 1\.5"):
        General(Majority(SCORES), mistake=1.5)
    with pytest.raises(InputError, match="limit is -1"):
        SlowThenFast(lambda s: s.obs[..., 0], -1.0)
    first, second = ROUND
    with pytest.raises(InputError, match=r"gives \[3\] numbers, expected 3 in \[0, 1\]"):
        General(lambda pairs: torch.full((len(pairs),), 1.5))(Pairs(cycle(), first, second), KEY)
