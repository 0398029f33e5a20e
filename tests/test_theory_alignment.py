"""The exact parts of checks about alignment: derivatives, embeddings, expectation-maximisation, suprema."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from experiments.checks import bilevel, diverse_users, general_preferences, inverse_gap, over_optimisation
from pbrl.theory.check import Trial


def test_the_whole_derivative_of_the_bilevel_loss() -> None:
    problem, nu = bilevel.Bilevel.random(3), np.array([0.5, -1.0, 0.3])
    steps = 1e-5 * np.eye(3)
    numeric = np.array([(problem.loss(nu + step) - problem.loss(nu - step)) / 2e-5 for step in steps])
    np.testing.assert_allclose(problem.gradient(nu), numeric, rtol=1e-6, atol=1e-9)
    assert np.abs(problem.gradient(nu, implicit=False) - numeric).max() > 1e-3


def test_embeddings_have_their_scores() -> None:
    square = np.random.default_rng(1).standard_normal((5, 5))
    scores = general_preferences.scores(torch.from_numpy(general_preferences.embedding(square - square.T, 2)))
    np.testing.assert_allclose(scores.numpy(), square - square.T, atol=1e-12)
    np.testing.assert_allclose(scores.numpy().diagonal(), 0.0, atol=1e-14)


def test_expectation_maximisation_never_loses_likelihood() -> None:
    feature, label, kind = diverse_users.answers(2, 20)
    found, path = diverse_users.assigned(feature, label, 0)
    assert (np.diff(path) > -1e-6 * abs(path[0])).all()
    assert path[-1] > path[0]
    same = (found == kind).mean()
    assert max(same, 1.0 - same) > 0.95


def test_the_fair_policy_is_the_best_for_the_worst_off() -> None:
    def worst(logits: np.ndarray) -> float:
        weights = np.exp(logits - logits.max())
        return -diverse_users.worst_off(weights / weights.sum())

    searched = min(
        (minimize(worst, start, method="Nelder-Mead", options={"maxiter": 4000}) for start in np.eye(3)),
        key=lambda done: float(done.fun),
    )
    least = min(diverse_users.dual(weight) for weight in np.linspace(0.0, 1.0, 2001))
    assert -float(searched.fun) == pytest.approx(least, abs=1e-5)
    assert least == pytest.approx(0.251, abs=1e-3)


def test_the_worst_truth_of_inverse_gap_weighting_is_found_by_search_too() -> None:
    predicted, rate = np.array([0.2, 0.7, 0.4]), 10.0
    policy = inverse_gap.inverse_gap(predicted, rate)
    assert policy.sum() == pytest.approx(1.0)
    assert policy[0] == pytest.approx(1.0 / (3.0 + 5.0))

    def lost(truth: np.ndarray, arm: int) -> float:
        regret = policy @ (truth[arm] - truth) - 0.25 * rate * (policy @ (predicted - truth) ** 2)
        return -float(regret)

    searched = max(-float(minimize(lost, predicted, args=(arm,), tol=1e-12).fun) for arm in range(3))
    assert float(inverse_gap.exceeding(predicted, policy, rate)) == pytest.approx(searched, abs=1e-8)


def test_the_best_of_gaussian_draws_is_known() -> None:
    distance, worth = over_optimisation.best_of(False, 3)
    # the mean of the largest of 1, 2, 4 and 8 standard normals, times the correlation sqrt(1/2)
    largest = np.array([0.0, 0.5641896, 1.0293754, 1.4236004])
    np.testing.assert_allclose(worth, largest * np.sqrt(2.0) * 0.5, atol=1e-4)
    np.testing.assert_allclose(distance**2, [0.0, np.log(2) - 0.5, np.log(4) - 0.75, np.log(8) - 0.875])
    assert over_optimisation.best_of(True, 3)[1][1] < worth[1]


def test_tilts_are_of_both_kinds_of_noise() -> None:
    light, heavy = (over_optimisation.tilted(Trial(), noise) for noise in (False, True))
    assert light[1].max() > 2.0 > heavy[1].max()
