"""Regularised preference games: the equilibrium, the gap in closed form, and the updates by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linprog, minimize
from scipy.special import log_softmax

from pbrl.errors import InputError
from pbrl.theory import regularised_games as games

BETA = 0.2


@pytest.mark.parametrize("beta", [0.02, 0.2, 5.0])
def test_the_equilibrium_solves_its_equation_and_has_no_gap(beta: float) -> None:
    matrix = games.random_games(20, 4, seed=[1], certain=beta < 0.1)
    reference = games.random_laws(20, 4, seed=[2])
    star = games.equilibrium(matrix, reference, beta)
    answered = log_softmax(reference + games.answer(matrix, np.exp(star)) / beta, axis=-1)
    np.testing.assert_allclose(star, answered, atol=1e-11)
    np.testing.assert_allclose(games.gap(matrix, star, reference, beta), 0.0, atol=1e-11)
    assert (games.gap(matrix, reference, reference, beta) > 0.0).all()


def test_the_gap_is_what_best_responses_gain() -> None:
    matrix, reference, policy = games.random_games(1, 3, seed=[3])[0], *games.random_laws(2, 3, seed=[4])
    rates = games.answer(matrix, np.exp(policy))

    def lost(logits: np.ndarray) -> float:  # of the best response to the policy
        other = np.asarray(log_softmax(logits))
        return -float(np.exp(other) @ rates - BETA * games.kl(other, reference) + BETA * games.kl(policy, reference))

    best = -float(minimize(lost, np.zeros(3), tol=1e-12).fun)
    assert float(games.gap(matrix, policy, reference, BETA)) == pytest.approx(2.0 * (best - 0.5), abs=1e-8)


def _winner(matrix: np.ndarray) -> np.ndarray:
    """The minimax winner by the linear program max v, (p P)_j >= v: it wins at least half of the time against all."""
    choices = len(matrix)
    rows = np.c_[-matrix.T, np.ones(choices)]
    whole = np.r_[np.ones(choices), 0.0][None]
    cost, bounds = np.r_[np.zeros(choices), -1.0], [(0.0, None)] * choices + [(None, None)]
    done = linprog(cost, A_ub=rows, b_ub=np.zeros(choices), A_eq=whole, b_eq=[1.0], bounds=bounds, method="highs")
    assert -done.fun == pytest.approx(0.5, abs=1e-9), "the value of a symmetric game is a half"
    return np.asarray(done.x[:-1])


def test_the_equilibrium_approaches_the_winner_of_the_linear_program() -> None:
    matrices = games.random_games(8, 5, seed=[11])
    reference = games.random_laws(8, 5, seed=[12])
    for matrix, law in zip(matrices, reference):
        exact = _winner(matrix)
        errors = [float(np.abs(np.exp(games.equilibrium(matrix, law, beta)) - exact).max()) for beta in (0.05, 0.002)]
        assert errors[1] < 0.05
        assert errors[1] < errors[0]
        won = float((np.exp(games.equilibrium(matrix, law, 0.002)) @ matrix).min())
        assert won == pytest.approx(0.5, abs=0.01), "hardly any choice beats it"


def test_updates_by_hand() -> None:
    matrix = np.array([[0.5, 1.0], [0.0, 0.5]])
    policy, reference = np.log([0.5, 0.5]), np.log([0.8, 0.2])
    # win rates against (1/2, 1/2) are 0.75 and 0.25
    odds = np.exp(0.1 * 0.5) * (0.8 / 0.2) ** (0.1 * BETA)
    moved = np.exp(games.mirror_step(matrix, policy, reference, 0.1, BETA))
    np.testing.assert_allclose(moved[0] / moved[1], odds)
    after, half = games.extragradient_step(matrix, policy, reference, 0.1, BETA)
    np.testing.assert_allclose(np.exp(half), moved)
    np.testing.assert_allclose(after, games.mirror_step(matrix, policy, reference, 0.1, BETA, np.log(moved)))
    mixed = 1.0 / (1.0 + (0.8 / 0.2) ** (-0.1 * BETA))
    nash = np.exp(games.nash_md_step(matrix, policy, reference, 0.1, BETA))
    rates = matrix @ np.array([mixed, 1.0 - mixed])
    np.testing.assert_allclose(nash[0] / nash[1], np.exp(0.1 * (rates[0] - rates[1])) * (0.8 / 0.2) ** (0.1 * BETA))


def test_random_games_are_preferences() -> None:
    for certain in (False, True):
        matrix = games.random_games(5, 4, seed=[5], certain=certain)
        np.testing.assert_allclose(matrix + np.swapaxes(matrix, -1, -2), 1.0)
        assert (np.isin(matrix, (0.0, 0.5, 1.0)).all()) == certain


def test_no_equilibrium_without_regularisation() -> None:
    with pytest.raises(InputError, match=r"beta is 0\.0, expected above 0"):
        games.equilibrium(games.random_games(1, 3, seed=[6]), np.log(np.full(3, 1 / 3)), 0.0)
