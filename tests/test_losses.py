"""Losses: numbers by hand, gradients by finite differences, and the identities that CPL's theory rests on."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from pbrl import losses, rng

DOUBLE = torch.float64
KEY = rng.keys([11])[0]
FIRST = rng.normal(rng.fold(KEY, "first"), 500, dtype=DOUBLE) * 3.0
SECOND = rng.normal(rng.fold(KEY, "second"), 500, dtype=DOUBLE) * 3.0
LABEL = rng.uniform(rng.fold(KEY, "label"), 500, dtype=DOUBLE)


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=DOUBLE)


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


@pytest.mark.parametrize(
    ("error", "level", "expected"),
    [(2.0, 0.7, 0.7 * 4), (-2.0, 0.7, 0.3 * 4), (2.0, 0.5, 2.0), (-2.0, 0.5, 2.0), (0.0, 0.9, 0.0), (-1.0, 1.0, 0.0)],
)
def test_expectile_by_hand(error: float, level: float, expected: float) -> None:
    assert float(losses.expectile(numbers(error), level)) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize(
    ("difference", "label", "expected"),
    [
        (0.0, 1.0, math.log(2)),
        (0.0, 0.3, math.log(2)),
        (2.0, 1.0, softplus(-2.0)),
        (2.0, 0.0, softplus(2.0)),
        (2.0, 0.5, 0.5 * softplus(-2.0) + 0.5 * softplus(2.0)),
        (-800.0, 1.0, 800.0),  # no overflow
        (800.0, 1.0, 0.0),
    ],
)
def test_bradley_terry_by_hand(difference: float, label: float, expected: float) -> None:
    assert float(losses.bradley_terry(numbers(difference), numbers(label))) == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize(
    ("first", "second", "label", "bias", "expected"),
    [
        (-3.0, -1.0, 1.0, 0.5, softplus(0.5 * -3.0 + 1.0)),  # -log sigmoid(-1 - 0.5 * -3)
        (-3.0, -1.0, 0.0, 0.5, softplus(0.5 * -1.0 + 3.0)),
        (-3.0, -1.0, 0.5, 0.5, 0.5 * softplus(-0.5) + 0.5 * softplus(2.5)),
        (-3.0, -1.0, 1.0, 1.0, softplus(-2.0)),
        (0.0, 0.0, 0.2, 0.3, math.log(2)),
    ],
)
def test_contrastive_by_hand(first: float, second: float, label: float, bias: float, expected: float) -> None:
    found = losses.contrastive(numbers(first), numbers(second), numbers(label), bias)
    assert float(found) == pytest.approx(expected, abs=1e-14)


LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "expectile": lambda a, b, y: losses.expectile(a - b, y),
    "bradley_terry": lambda a, b, y: losses.bradley_terry(b - a, y),
    "contrastive 1": lambda a, b, y: losses.contrastive(a, b, y, 1.0),
    "contrastive 0.5": lambda a, b, y: losses.contrastive(a, b, y, 0.5),
    "flips 0.2": lambda a, b, y: losses.bradley_terry_with_flips(b - a, y, 0.2),
    "unflipped 0.2": lambda a, b, y: losses.bradley_terry(b - a, losses.unflipped(y, 0.2)),
    "plackett_luce": lambda a, b, y: losses.plackett_luce(torch.stack([a, b, a * y, y], dim=-1)),
}


@pytest.mark.parametrize(
    ("difference", "label", "rate", "expected"),
    [
        (0.0, 1.0, 0.3, math.log(2)),
        (math.log(3), 1.0, 0.2, -math.log(0.8 * 0.75 + 0.2 * 0.25)),  # P = 3/4
        (math.log(3), 0.0, 0.2, -math.log(0.8 * 0.25 + 0.2 * 0.75)),
        (math.log(3), 0.5, 0.2, -0.5 * math.log(0.65) - 0.5 * math.log(0.35)),
        (-800.0, 1.0, 0.2, -math.log(0.2)),  # a certain contradiction costs no more than a flip
        (-800.0, 1.0, 0.0, 800.0),
    ],
)
def test_bradley_terry_with_flips_by_hand(difference: float, label: float, rate: float, expected: float) -> None:
    found = losses.bradley_terry_with_flips(numbers(difference), numbers(label), rate)
    assert float(found) == pytest.approx(expected, rel=1e-14)


def test_without_flips_the_corrections_are_bradley_terry() -> None:
    difference = (SECOND - FIRST).requires_grad_()
    plain = losses.bradley_terry(difference, LABEL)
    corrected = losses.bradley_terry_with_flips(difference, LABEL, 0.0)
    torch.testing.assert_close(corrected, plain, rtol=1e-13, atol=1e-13)
    slopes = [torch.autograd.grad(x.sum(), difference)[0] for x in (plain, corrected)]
    torch.testing.assert_close(*slopes, rtol=1e-13, atol=1e-13)
    assert torch.equal(losses.unflipped(LABEL, 0.0), LABEL)
    assert torch.equal(losses.smoothed(LABEL, 0.0), LABEL)


@pytest.mark.parametrize(("label", "expected"), [(1.0, 4 / 3), (0.0, -1 / 3), (0.5, 0.5), (0.8, 1.0)])
def test_unflipped_by_hand(label: float, expected: float) -> None:
    assert float(losses.unflipped(numbers(label), 0.2)) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize(("label", "expected"), [(1.0, 0.9), (0.0, 0.1), (0.5, 0.5), (0.8, 0.74)])
def test_smoothed_by_hand(label: float, expected: float) -> None:
    assert float(losses.smoothed(numbers(label), 0.2)) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("rate", [0.1, 0.2, 0.3])
def test_the_mean_of_the_unbiased_loss_over_flips_is_the_clean_loss(rate: float) -> None:
    """Exact, by enumeration of flipped and not flipped, at every difference; smoothing undoes it."""
    difference = SECOND - FIRST
    kept, turned = (losses.bradley_terry(difference, losses.unflipped(y, rate)) for y in (LABEL, 1.0 - LABEL))
    clean = losses.bradley_terry(difference, LABEL)
    torch.testing.assert_close((1.0 - rate) * kept + rate * turned, clean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(losses.smoothed(losses.unflipped(LABEL, rate), 2.0 * rate), LABEL)


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        ([0.0, 0.0, 0.0], math.log(6)),
        ([math.log(3), math.log(2), 0.0], -math.log(3 / 6 * 2 / 3)),
        ([0.0, math.log(2), math.log(3)], -math.log(1 / 6 * 2 / 5)),
        ([800.0, 0.0, -800.0], 0.0),
        ([-800.0, 0.0], 800.0),
        ([1.0], 0.0),
    ],
)
def test_plackett_luce_by_hand(score: list[float], expected: float) -> None:
    assert float(losses.plackett_luce(numbers(*score))) == pytest.approx(expected, abs=1e-14)


def test_plackett_luce_of_two_is_bradley_terry() -> None:
    found = losses.plackett_luce(torch.stack([FIRST, SECOND], dim=-1))
    torch.testing.assert_close(found, losses.bradley_terry(FIRST - SECOND, torch.ones(500, dtype=DOUBLE)))


def test_the_probabilities_of_all_orders_sum_to_one() -> None:
    score = numbers(0.3, -1.2, 2.0, 0.7)
    orders = torch.tensor(list(itertools.permutations(range(4))))
    assert float((-losses.plackett_luce(score[orders])).exp().sum()) == pytest.approx(1.0, abs=1e-14)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_by_finite_differences(name: str) -> None:
    first, second = (x[:20].clone().requires_grad_() for x in (FIRST, SECOND))
    assert gradcheck(lambda a, b: LOSSES[name](a, b, LABEL[:20]), (first, second))


def test_contrastive_without_bias_is_bradley_terry() -> None:
    torch.testing.assert_close(
        losses.contrastive(FIRST, SECOND, LABEL, 1.0), losses.bradley_terry(SECOND - FIRST, LABEL), rtol=0, atol=0
    )


def test_shift_leaves_the_unbiased_loss_and_raises_the_biased_one() -> None:
    """Lower log-probabilities everywhere cost nothing at bias 1, and strictly more below."""
    for shift in (0.1, 1.0, 10.0):
        same = losses.contrastive(FIRST - shift, SECOND - shift, LABEL, 1.0)
        torch.testing.assert_close(same, losses.contrastive(FIRST, SECOND, LABEL, 1.0), rtol=1e-12, atol=1e-12)
        more = losses.contrastive(FIRST - shift, SECOND - shift, LABEL, 0.5)
        assert (more > losses.contrastive(FIRST, SECOND, LABEL, 0.5)).all()


@pytest.mark.parametrize("bias", [0.3, 0.5, 1.0])
def test_swapping_segments_and_label_changes_nothing(bias: float) -> None:
    """Dossier T5."""
    swapped = losses.contrastive(SECOND, FIRST, 1.0 - LABEL, bias)
    torch.testing.assert_close(swapped, losses.contrastive(FIRST, SECOND, LABEL, bias), rtol=1e-14, atol=1e-14)


def test_ties_are_symmetric_and_pull_both_segments_up_when_biased() -> None:
    tie = torch.full_like(FIRST, 0.5)
    torch.testing.assert_close(losses.contrastive(FIRST, SECOND, tie, 0.5), losses.contrastive(SECOND, FIRST, tie, 0.5))
    both = numbers(-1.0, -1.0).requires_grad_()
    down = torch.autograd.grad(losses.contrastive(both[0], both[1], numbers(0.5)[0], 0.5), both)[0]
    assert down[0] == down[1]
    assert down[0] < 0
    level = torch.autograd.grad(losses.contrastive(both[0], both[1], numbers(0.5)[0], 1.0), both)[0]
    assert level.abs().max() < 1e-15


def test_bias_is_one_number_per_member() -> None:
    first, second, label = (x[:6].reshape(2, 3) for x in (FIRST, SECOND, LABEL))
    found = losses.contrastive(first, second, label, numbers(0.5, 1.0)[:, None])
    for member, bias in enumerate((0.5, 1.0)):
        expected = losses.contrastive(first[member], second[member], label[member], bias)
        torch.testing.assert_close(found[member], expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("difference", "label", "expected"),
    [
        ([1.0, -1.0], [1.0, 0.0], 1.0),
        ([1.0, -1.0], [0.0, 1.0], 0.0),
        ([1.0, 1.0, 1.0, -1.0], [1.0, 1.0, 0.0, 0.0], 0.75),
        ([1.0, 1.0], [1.0, 0.5], 1.0),  # a tied label does not count
        ([1.0, 0.0], [1.0, 1.0], 0.75),  # a tied score counts half
        ([0.0, 0.0], [1.0, 0.0], 0.5),  # a constant score is no better than chance
        ([0.2, -0.2], [0.9, 0.4], 1.0),  # probabilities count as their likelier side
    ],
)
def test_accuracy_by_hand(difference: list[float], label: list[float], expected: float) -> None:
    assert losses.accuracy(numbers(*difference)[None], numbers(*label)[None]).tolist() == [expected]


def test_accuracy_without_a_decisive_pair_is_unknown() -> None:
    found = losses.accuracy(torch.ones(2, 3), torch.tensor([[0.5, 0.5, 0.5], [0.5, 0.5, 1.0]]))
    assert found[0].isnan()
    assert found[1] == 1.0
