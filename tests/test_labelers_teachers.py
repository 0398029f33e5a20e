"""The scripted teachers: orientation, the order of their faults, and their statistics on 200 000 pairs."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from scipy import stats

from pbrl import rng
from pbrl.data import Dataset, Segments
from pbrl.errors import InputError
from pbrl.labelers.scores import PartialReturn
from pbrl.labelers.teachers import (
    LABELERS,
    Teacher,
    make_labeler,
    mean_segment_return,
    partial_return_labeler,
    regret_labeler,
)

from .labelers_cases import KEY, normal_pairs, pairs_of, segments_of

COUNT = 200_000


class Zero:
    """A critic that thinks nothing of anything but the action."""

    gamma = 0.5

    def q(self, obs: torch.Tensor, act: torch.Tensor) -> torch.Tensor:
        return act.sum(-1)

    def v(self, obs: torch.Tensor) -> torch.Tensor:
        return torch.zeros(obs.shape[:-1])


def test_one_means_that_the_second_is_preferred() -> None:
    answers = partial_return_labeler()(pairs_of([[1.0], [2.0], [2.0], [1.0], [3.0], [3.0]]), KEY)
    assert answers.label.tolist() == [1.0, 0.0, 0.5]
    assert answers.label.dtype == torch.float32
    answers.check()


def test_regret_is_turned_so_that_higher_is_better() -> None:
    act = torch.tensor([[[0.0]], [[1.0]]])
    assert regret_labeler(Zero())(pairs_of([[0.0], [0.0]], act=act), KEY).label.tolist() == [1.0]


def test_stochastic_teacher_answers_as_its_sigmoid_says() -> None:
    pairs = normal_pairs(COUNT)
    p2 = partial_return_labeler(beta=1.0, soft=True)(pairs, KEY).label.double()
    drawn = partial_return_labeler(beta=1.0)(pairs, KEY).label.double()
    assert set(drawn.tolist()) == {0.0, 1.0}
    expected = (p2 * (1 - p2)).mean()
    assert abs((drawn - p2).square().mean() - expected) < 0.002
    assert abs((drawn - p2).mean()) < 0.004
    score = PartialReturn()(pairs.segments)
    torch.testing.assert_close(p2, torch.sigmoid(score[1::2] - score[0::2]), rtol=0, atol=1e-6)


def test_beta_is_a_temperature() -> None:
    pairs = pairs_of([[0.0, 0.0], [1.0, 1.0]])
    by_sum = partial_return_labeler(beta=1.0, soft=True)(pairs, KEY).label
    by_mean = partial_return_labeler("mean", beta=2.0, soft=True)(pairs, KEY).label
    torch.testing.assert_close(by_sum, by_mean)
    assert by_sum.item() == pytest.approx(1 / (1 + math.exp(-2.0)))


def test_mistakes() -> None:
    pairs = normal_pairs(COUNT)
    right = partial_return_labeler()(pairs, KEY).label
    wrong = partial_return_labeler(mistake=0.1)(pairs, KEY).label
    assert abs((right != wrong).double().mean() - 0.1) < 0.002
    assert torch.equal(partial_return_labeler(mistake=1.0)(pairs, KEY).label, 1 - right)
    coin = partial_return_labeler(beta=0.0, mistake=0.3)(pairs, KEY).label
    assert abs(coin.double().mean() - 0.5) < 0.005, "mistakes must not depend on the answers"
    soft = partial_return_labeler(mistake=0.1, soft=True)(pairs, KEY).label
    torch.testing.assert_close(soft, 0.9 * right + 0.1 * (1 - right))


def test_ties_by_the_papers_threshold() -> None:
    pairs = normal_pairs(COUNT)
    teacher = partial_return_labeler(equal=0.1, margin=3.853)
    expected = 2 * stats.norm.cdf(0.3853) - 1
    assert expected == pytest.approx(0.3, abs=1e-4)
    for session in range(3):  # the reference code's threshold is squared from the second session on: 0.0305
        ties = ~teacher(pairs, rng.fold(KEY, session)).decisive
        assert abs(ties.double().mean() - expected) < 0.003


def test_ties_are_never_turned_round_and_skipping_everything_is_an_answer() -> None:
    pairs = normal_pairs(100)
    answers = partial_return_labeler(equal=math.inf, mistake=1.0, margin=1.0)(pairs, KEY)
    assert (answers.label == 0.5).all()
    nothing = partial_return_labeler(skip=math.inf, margin=1.0)(pairs, KEY)
    assert len(nothing) == len(nothing.pairs) == 0
    assert nothing.by.settings["asked"] == nothing.by.settings["skipped"] == 100
    with pytest.raises(InputError, match="empty"):
        nothing.check()


def test_skip_goes_by_the_better_of_both_and_keeps_the_order() -> None:
    pairs = pairs_of([[0.0], [3.0], [1.0], [2.0], [5.0], [0.0]])
    answers = partial_return_labeler(skip=0.5, margin=4.0)(pairs, KEY)  # at most 2 is skipped
    assert answers.label.tolist() == [1.0, 0.0]
    assert answers.pairs.segments.row[answers.pairs.first].tolist() == [0, 4]
    assert answers.by.settings["skipped"] == 1


def test_myopia_weighs_late_steps_but_not_the_thresholds() -> None:
    pairs = pairs_of([[10.0, 0.0, 0.0], [0.0, 0.0, 2.0]])
    assert partial_return_labeler()(pairs, KEY).label.tolist() == [0.0]
    assert partial_return_labeler(myopia=0.1)(pairs, KEY).label.tolist() == [1.0]  # 0.1 against 2
    soft = partial_return_labeler(myopia=0.5, beta=1.0, soft=True)(pairs, KEY).label
    assert soft.item() == pytest.approx(1 / (1 + math.exp(2.5 - 2.0)))
    # Sums differ by 8: no tie at 7.9, whatever the myopic sums (0.1 and 2) say. A best sum of 10 is above 9.9.
    assert partial_return_labeler(myopia=0.1, equal=1.0, margin=7.9)(pairs, KEY).label.tolist() == [1.0]
    assert partial_return_labeler(myopia=0.1, equal=1.0, margin=8.1)(pairs, KEY).label.tolist() == [0.5]
    assert len(partial_return_labeler(myopia=0.1, skip=1.0, margin=9.9)(pairs, KEY)) == 1


def test_myopic_disagreement_with_the_oracle() -> None:
    """For independent normal rewards the two sums are jointly normal: they disagree in arccos(correlation) / pi."""
    pairs, gamma, length = normal_pairs(20_000, 10), 0.9, 10
    weight = gamma ** torch.arange(length, dtype=torch.float64)
    correlation = weight.sum() / (length * weight.square().sum()).sqrt()
    expected = math.acos(float(correlation)) / math.pi
    right = partial_return_labeler()(pairs, KEY).label
    myopic = partial_return_labeler(myopia=gamma)(pairs, KEY).label
    assert abs((right != myopic).double().mean() - expected) < 0.006


def test_draws_depend_on_the_key_and_the_position_alone() -> None:
    pairs, teacher = normal_pairs(1000), partial_return_labeler(beta=0.1, mistake=0.2)
    labels = teacher(pairs, KEY).label
    assert torch.equal(labels, teacher(pairs, KEY).label)
    assert torch.equal(labels, teacher(pairs, KEY.reshape(1)).label)
    assert not torch.equal(labels, teacher(pairs, rng.fold(KEY, 1)).label)
    assert torch.equal(labels[:100], teacher(pairs.take(torch.arange(100)), KEY).label)


def test_any_function_is_a_score() -> None:
    def first_observation(segments: Segments) -> torch.Tensor:
        return segments.obs[:, 0, 0]

    answers = Teacher(first_observation)(pairs_of([[0.0], [0.0]]), KEY)
    assert answers.label.tolist() == [1.0]
    with pytest.raises(InputError, match="not a sum over steps"):
        Teacher(first_observation, myopia=0.9)


def test_margin_of_the_paper() -> None:
    """Episodes of 2 and 4 steps with returns 3 and 9: 6 on average, over 3 steps on average; T = 2 gives 4."""
    ends = [False, True, False, False, False, True]
    data = Dataset.from_arrays(
        obs=[[0.0]] * 6,
        act=[[0.0]] * 6,
        rew=[1.0, 2.0, 3.0, 3.0, 3.0, 0.0],
        term=ends,
        trunc=[False] * 6,
        next_obs=[[0.0]] * 6,
    )
    assert mean_segment_return(data, 2) == pytest.approx(4.0)


def test_provenance_is_what_json_holds() -> None:
    by = partial_return_labeler("discounted", 0.9, mistake=0.1)(normal_pairs(3), KEY).by
    assert by.who == "partial_return(discounted, gamma=0.9) by a teacher with mistake=0.1"
    assert json.loads(json.dumps(by.settings, allow_nan=False))["beta"] == "inf"
    assert by.settings["mistake"] == 0.1


@pytest.mark.parametrize("name", LABELERS)
def test_every_name_makes_a_labeler(name: str) -> None:
    gamma = 0.5 if name.endswith("discounted") else None
    act = torch.tensor([[[0.0]], [[1.0]]])
    labeler = make_labeler(name, critic=Zero(), gamma=gamma, beta=1.0)
    answers = labeler(pairs_of([[0.0], [1.0]], act=act), KEY)
    assert answers.by.settings["beta"] == 1.0
    assert name.split(":")[-1] in answers.by.who


def test_names_without_a_form() -> None:
    assert str(make_labeler("partial_return").score) == "partial_return(sum)"
    assert str(make_labeler("regret", critic=Zero()).score) == "regret(dir)"


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("return", {}, "unknown labels 'return', expected one of partial_return"),
        ("regret", {}, "need an oracle critic"),
        ("regret", {"critic": Zero(), "gamma": 0.9}, "discounts by its critic's gamma"),
        ("partial_return:discounted", {}, "needs one"),
        ("partial_return", {"beta": -1.0}, "Teacher.beta is -1.0"),
        ("partial_return", {"beta": math.nan}, "Teacher.beta is nan"),
        ("partial_return", {"mistake": 1.1}, "Teacher.mistake is 1.1"),
        ("partial_return", {"myopia": 1.1}, "Teacher.myopia is 1.1"),
        ("partial_return", {"skip": 0.1}, "Teacher.margin is None"),
        ("partial_return", {"equal": 0.1, "margin": -3.0}, "Teacher.margin is -3.0"),
        ("partial_return", {"margin": 3.0}, "neither skip nor equal uses it"),
    ],
)
def test_bad_settings(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_labeler(name, **settings)


def test_equal_rewards_in_another_order_are_a_tie_of_no_rounding() -> None:
    rew = torch.tensor([[0.1, 0.2, 0.3, 0.7], [0.7, 0.3, 0.2, 0.1]], dtype=torch.float32)
    score = PartialReturn()(segments_of(rew))
    assert score[0] == score[1]
