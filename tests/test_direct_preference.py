"""Direct preference objectives by hand, and the exact bandits that they are studied in."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pbrl.errors import InputError
from pbrl.parts import direct_preference as direct
from pbrl.theory.alignment_bandit import AlignmentBandit, divergent_optimum, minimise

DOUBLE = torch.float64


def number(value: float) -> Tensor:
    return torch.tensor([value], dtype=DOUBLE)


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


FIRST, SECOND = number(-0.4), number(-0.1)
GAP = 0.3


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (lambda y: direct.dpo(FIRST, SECOND, y, 2.0), softplus(-2.0 * GAP)),
        (lambda y: direct.rdpo(FIRST, SECOND, y, 2.0, 0.2), (0.8 * softplus(-0.6) - 0.2 * softplus(0.6)) / 0.6),
        (lambda y: direct.ipo(FIRST, SECOND, y, 0.25), (GAP - 2.0) ** 2),
        (lambda y: direct.slic(FIRST, SECOND, y, 1.0), 1.0 - GAP),
        (lambda y: direct.f_dpo(FIRST, SECOND, y, 2.0, "reverse_kl"), softplus(-2.0 * GAP)),
        (
            lambda y: direct.f_dpo(FIRST, SECOND, y, 2.0, "forward_kl"),
            softplus(-2.0 * (math.exp(0.4) - math.exp(0.1))),
        ),
        (
            lambda y: direct.f_dpo(FIRST, SECOND, y, 2.0, "chi_squared_kl"),
            softplus(-2.0 * (GAP + math.exp(-0.1) - math.exp(-0.4))),
        ),
        (
            lambda y: direct.f_dpo(FIRST, SECOND, y, 2.0, "jensen_shannon"),
            softplus(-2.0 * (GAP + math.log1p(math.exp(-0.4)) - math.log1p(math.exp(-0.1)))),
        ),
        (
            lambda y: direct.f_dpo(FIRST, SECOND, y, 2.0, "alpha_half"),
            softplus(-4.0 * (math.exp(0.2) - math.exp(0.05))),
        ),
        (lambda y: direct.simpo(FIRST, SECOND, y, 2.0, 0.5), softplus(0.5 - 2.0 * GAP)),
        (lambda y: direct.rpo(FIRST, SECOND, y, 2.0, number(-1.5), 0.1), softplus(-0.6) + 0.3),
        (lambda y: direct.xpo(FIRST, SECOND, y, 2.0, number(-1.5), 0.1), softplus(-0.6) - 0.15),
        (lambda y: direct.vpo(FIRST, SECOND, y, 2.0, number(-1.5), -0.1), softplus(-0.6) + 0.3),
        (lambda y: direct.inpo(FIRST, SECOND, y, 0.5), (GAP - 0.25) ** 2),
    ],
)
def test_losses_by_hand(loss: Callable[[Tensor], Tensor], expected: float) -> None:
    assert float(loss(number(1.0))) == pytest.approx(expected, rel=1e-12)
    mixed = 0.3 * loss(number(1.0)) + 0.7 * loss(number(0.0))
    assert float(loss(number(0.3))) == pytest.approx(float(mixed), rel=1e-12)


def test_odds_ratio_by_hand() -> None:
    odds = [math.exp(m) / (1.0 - math.exp(m)) for m in (-0.4, -0.1)]
    expected = 0.1 + 0.5 * softplus(-math.log(odds[1] / odds[0]))
    assert float(direct.odds_ratio(FIRST, SECOND, number(1.0), 0.5)) == pytest.approx(expected, rel=1e-12)


def test_losses_of_win_rates_by_hand() -> None:
    assert float(direct.sppo(SECOND, number(0.8), 2.0)) == pytest.approx((-0.1 - 0.6) ** 2)
    assert float(direct.rebel(FIRST, SECOND, number(0.5), 0.1)) == pytest.approx((3.0 - 0.5) ** 2)
    share = 1.0 / (1.0 + math.exp(-0.5))
    expected = share * softplus(-3.0) + (1.0 - share) * softplus(3.0)
    assert float(direct.dno(FIRST, SECOND, number(0.5), 0.1)) == pytest.approx(expected, rel=1e-12)
    assert float(direct.towards(number(-1.0), number(-2.0), number(-3.0), 0.5, 0.4)) == pytest.approx(-1 + 1.6 + 0.6)


def test_every_loss_treats_the_two_segments_alike() -> None:
    for name, loss in inspect.getmembers(direct, inspect.isfunction):
        takes = inspect.signature(loss).parameters
        if loss.__module__ != direct.__name__ or "label" not in takes:
            continue
        others: dict[str, Any] = {key: number(0.3) for key in list(takes)[3:]}
        if "divergence" in others:
            others["divergence"] = "jensen_shannon"
        forth, back = loss(FIRST, SECOND, number(0.8), **others), loss(SECOND, FIRST, number(0.2), **others)
        assert float(forth) == pytest.approx(float(back), rel=1e-12), name


def test_an_unknown_divergence_is_refused() -> None:
    with pytest.raises(InputError, match="unknown divergence 'kl', expected one of reverse_kl"):
        direct.f_dpo(FIRST, SECOND, number(1.0), 1.0, "kl")


def test_reverse_kl_has_the_value_and_the_gradient_of_kl() -> None:
    logits = torch.tensor([0.3, -0.2, 0.9], dtype=DOUBLE, requires_grad=True)
    reference = torch.tensor([0.5, 0.2, 0.3], dtype=DOUBLE)
    ratio = logits.log_softmax(-1) - reference.log()
    sampled = (logits.softmax(-1).detach() * direct.reverse_kl(ratio)).sum()
    exact = (logits.softmax(-1) * ratio).sum()
    assert float(sampled.detach()) == pytest.approx(float(exact.detach()), rel=1e-12)
    slopes = [torch.autograd.grad(value, logits, retain_graph=True)[0] for value in (sampled, exact)]
    torch.testing.assert_close(*slopes, rtol=1e-12, atol=1e-14)


def test_the_optimum_is_worth_most_and_by_hand() -> None:
    bandit = AlignmentBandit(np.array([0.5, 0.5]), np.array([1.0, 0.0]), 1.0)
    share = math.e / (1.0 + math.e)
    np.testing.assert_allclose(bandit.optimum, [share, 1.0 - share])
    assert bandit.value(bandit.optimum) == pytest.approx(math.log(0.5 * math.e + 0.5))
    assert bandit.kl(bandit.reference) == 0.0
    assert bandit.lost(np.array([1.0, 0.0])) > 0.0
    np.testing.assert_allclose(bandit.preference[0], [0.5, share])


@pytest.mark.parametrize("name", list(direct.LINKS))
def test_no_policy_is_worth_more_than_the_divergence_s_optimum(name: str) -> None:
    bandit = AlignmentBandit.random(4, 0.5, seed=[3])
    best = divergent_optimum(bandit, name)
    assert best.sum() == pytest.approx(1.0)
    link = direct.LINKS[name](torch.from_numpy(np.log(best / bandit.reference))).numpy()
    spread = bandit.reward - bandit.beta * link  # first-order condition: the same for all responses
    assert float(np.ptp(spread)) < 1e-9
    if name == "reverse_kl":
        np.testing.assert_allclose(best, bandit.optimum, atol=1e-12)


def test_newton_finds_a_minimum_and_leaves_flat_directions() -> None:
    found = minimise(lambda x: (x[0] - 2.0) ** 4 + (x[0] - 2.0) ** 2, torch.tensor([5.0, 7.0], dtype=DOUBLE))
    assert found.tolist() == pytest.approx([2.0, 7.0])
    with pytest.raises(InputError, match="left a gradient"):
        minimise(lambda x: torch.exp(-x).sum(), torch.zeros(1, dtype=DOUBLE), steps=2)


@pytest.mark.parametrize("change", [{"beta": 0.0}, {"reference": np.array([1.0, 0.0])}, {"reward": np.zeros(3)}])
def test_a_bandit_that_is_none_is_told(change: dict[str, object]) -> None:
    given: dict[str, Any] = {"reference": np.array([0.5, 0.5]), "reward": np.zeros(2), "beta": 1.0, **change}
    with pytest.raises(InputError, match="expected positive probabilities"):
        AlignmentBandit(**given)
