"""Exact solvers against linear programs, brute force and each other; instances against hand-computed numbers."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import linprog

from pbrl.errors import InputError
from pbrl.theory import average, delivery, discounted, episodic, hardness, instances, robust
from pbrl.theory.mdps import AverageMDP, DiscountedMDP, EpisodicMDP


@pytest.mark.parametrize("seed", range(5))
def test_discounted_optimum_equals_the_linear_program(seed: int) -> None:
    mdp = instances.dirichlet_discounted(7, 3, 0.95, seed=seed)
    solution = discounted.policy_iteration(mdp)
    value, visits = discounted.occupancy_lp(mdp)
    assert value == pytest.approx(float(solution.value @ mdp.first), abs=1e-9)
    assert solution.residual < 1e-12
    ours = discounted.occupancy(mdp, solution.policy)
    assert ours.sum() == pytest.approx(20.0)
    np.testing.assert_allclose(ours, visits, atol=1e-8)
    assert float((ours * mdp.reward).sum()) == pytest.approx(value)


def test_discounted_solvers_take_populations() -> None:
    alone = [instances.dirichlet_discounted(5, 2, 0.9, seed=seed) for seed in range(3)]
    stack = DiscountedMDP(np.stack([m.transition for m in alone]), np.stack([m.reward for m in alone]), 0.9)
    hard, soft = discounted.policy_iteration(stack), discounted.soft_value_iteration(stack, 0.3)
    for p, mdp in enumerate(alone):
        np.testing.assert_allclose(hard.value[p], discounted.policy_iteration(mdp).value, rtol=1e-12)
        np.testing.assert_allclose(soft.policy[p], discounted.soft_value_iteration(mdp, 0.3).policy, rtol=1e-10)


def test_soft_values_solve_their_equation_and_approach_the_hard_ones() -> None:
    mdp = instances.dirichlet_discounted(6, 3, 0.9, seed=0)
    reference = np.random.default_rng(1).dirichlet(np.ones(3), size=6)
    soft = discounted.soft_value_iteration(mdp, 0.5, reference)
    assert soft.residual < 1e-13
    np.testing.assert_allclose(soft.policy.sum(-1), 1.0, rtol=1e-12)
    divergence = (soft.policy * np.log(soft.policy / reference)).sum(-1)
    penalised = replace(mdp, reward=mdp.reward - 0.5 * divergence[:, None])
    np.testing.assert_allclose(discounted.policy_value(penalised, soft.policy), soft.value, atol=1e-12)
    cold = discounted.soft_value_iteration(mdp, 1e-4)
    np.testing.assert_allclose(cold.value, discounted.policy_iteration(mdp).value, atol=3e-3)
    with pytest.raises(InputError, match="temperature is 0"):
        discounted.soft_value_iteration(mdp, 0.0)


def test_a_policy_that_never_ends_is_told() -> None:
    stays = DiscountedMDP(np.eye(2)[:, None].repeat(2, 1), np.array([[-1.0, -1.0], [0.0, 0.0]]), 1.0)
    with pytest.raises(InputError, match="never ends"):
        discounted.policy_value(stays, np.full((2, 2), 0.5))


@pytest.mark.parametrize("seed", range(3))
def test_episodic_optimum_equals_the_linear_program_and_brute_force(seed: int) -> None:
    mdp = instances.dirichlet_episodic(4, 2, 3, seed=seed)
    solution = episodic.backward_induction(mdp)
    assert solution.residual < 1e-14
    best = float(episodic.from_start(mdp, solution.value))
    assert best == pytest.approx(episodic.occupancy_lp(mdp)[0], abs=1e-9)
    visits = episodic.occupancy(mdp, solution.policy)
    np.testing.assert_allclose(visits.sum((-1, -2)), 1.0, rtol=1e-12)
    assert float((visits * mdp.reward).sum()) == pytest.approx(best, abs=1e-12)
    small = instances.dirichlet_episodic(2, 2, 2, seed=seed)
    values = [
        float(episodic.from_start(small, episodic.policy_value(small, np.eye(2)[np.reshape(choice, (2, 2))])))
        for choice in itertools.product(range(2), repeat=4)
    ]
    found = episodic.from_start(small, episodic.backward_induction(small).value)
    assert max(values) == pytest.approx(float(found), abs=1e-14)


def test_the_worst_mean_of_the_l1_ball_equals_its_linear_program() -> None:
    draw = np.random.default_rng(0)
    for _ in range(20):
        law, value = draw.dirichlet(np.full(5, 0.5)), draw.standard_normal(5)
        radius = float(draw.uniform(0, 2.2))
        # min q.v over q in the simplex with sum |q - law| <= radius; |.| by two more non-negative parts
        cost = np.r_[value, np.zeros(5)]
        bounds = np.block([[np.eye(5), -np.eye(5)], [-np.eye(5), -np.eye(5)]])
        limits = np.r_[law, -law]
        size = np.r_[np.zeros(5), np.ones(5)]
        done = linprog(
            cost,
            A_ub=np.vstack([bounds, size]),
            b_ub=np.r_[limits, radius],
            A_eq=np.r_[np.ones(5), np.zeros(5)][None],
            b_eq=[1.0],
            method="highs",
        )
        ours = robust.worst_mean(law[None, None], value, np.array([[radius]]))[0, 0]
        assert ours == pytest.approx(done.fun, abs=1e-9)
        best = robust.best_mean(law[None, None], value, np.array([[radius]]))[0, 0]
        assert ours - 1e-12 <= law @ value <= best + 1e-12


def test_robust_values_are_lower_and_tight_without_a_radius() -> None:
    mdp = instances.dirichlet_episodic(4, 3, 4, seed=3)
    policy = np.random.default_rng(0).dirichlet(np.ones(3), size=(4, 4))
    exact = episodic.policy_value(mdp, policy)
    none, some = (
        robust.worst_policy_value(mdp.transition, mdp.reward, policy, np.full(mdp.shape, radius)) for radius in (0, 0.3)
    )
    np.testing.assert_allclose(none, exact, atol=1e-13)
    assert (some <= exact + 1e-13).all()
    assert some[0, 0] < exact[0, 0] - 0.1


@pytest.mark.parametrize("seed", range(4))
def test_average_optimum_equals_the_linear_program(seed: int) -> None:
    drawn = instances.dirichlet_discounted(6, 3, 0.9, seed=seed)
    mdp = AverageMDP(drawn.transition, drawn.reward) if seed else instances.river_swim(6)
    found = average.average_optimum(mdp)
    value, visits = average.gain_lp(mdp)
    assert found.gain == pytest.approx(value, abs=1e-10)
    assert found.residual < 1e-10
    assert visits.sum() == pytest.approx(1.0)


def test_river_swim_is_what_the_literature_has() -> None:
    mdp = instances.river_swim(6)
    found = average.average_optimum(mdp)
    assert found.policy.argmax(-1).tolist() == [1] * 6
    assert found.gain == pytest.approx(0.4286, abs=1e-4)
    assert hardness.diameter(mdp) == pytest.approx(14.72, abs=0.01)
    assert found.span <= hardness.diameter(mdp)


def test_a_gain_that_depends_on_the_start_is_told() -> None:
    apart = AverageMDP(np.eye(2)[:, None], np.array([[0.0], [1.0]]))
    with pytest.raises(InputError, match=r"communicating|recurrent"):
        average.average_optimum(apart)


def test_deep_sea_lock_and_hard_family() -> None:
    sea = instances.deep_sea(5)
    solution = episodic.backward_induction(sea)
    assert float(episodic.from_start(sea, solution.value)) == pytest.approx(1.0)
    assert (solution.policy[np.arange(5), np.arange(5), 1] == 1.0).all()
    lock = instances.combination_lock(4, 3, seed=1, consolation=0.25)
    assert float(episodic.from_start(lock, episodic.backward_induction(lock).value)) == 1.0
    uniform = episodic.policy_value(lock, np.full(lock.shape, 1 / 3))
    assert uniform[0, 0] == pytest.approx(3.0**-4 + 0.25 * (1 - 3.0**-3))
    hard = instances.hard_family(1600, factor=2.0)
    assert hardness.hardness(hard).minimal_gap == pytest.approx(0.1)
    assert float(episodic.from_start(hard, episodic.backward_induction(hard).value)) == pytest.approx(0.6)


def test_the_delivery_grid_keeps_the_rules(tmp_path: Path) -> None:
    cells = delivery.board()
    kinds = np.bincount((cells % delivery.MUD).ravel(), minlength=6)
    assert kinds.tolist() == [81, 1, 3, 4, 6, 5]  # as many of each as on the authors' board
    assert int((cells >= delivery.MUD).sum()) == 16
    mdp = delivery.delivery_grid()
    assert len(mdp.reward) == 92 + 1
    assert discounted.policy_iteration(mdp).residual < 1e-12
    path = tmp_path / "board.json"
    path.write_text(json.dumps([[0.0, 4.0, 1.0], [6.0, 2.0, 3.0]]))
    tiny = delivery.delivery_grid(delivery.board(path))
    road, coin, mud = [-1.0, -2.0, -1.0, 0.0], [-1.0, -1.0, -1.0, 50.0], [-1.0, -2.0, -2.0, -2.0]
    assert tiny.reward[:-1].tolist() == [road, coin, mud]
    path.write_text("[[0, 99]]")
    with pytest.raises(InputError, match="expected rows of codes from 0 to 11"):
        delivery.board(path)
    with pytest.raises(InputError, match="no board can be read"):
        delivery.board(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("transition", "reward", "complaint"),
    [
        (np.full((2, 1, 2), 0.6), np.zeros((2, 1)), "miss a sum of 1 by 0.2"),
        (np.array([[[1.5, -0.5]], [[0.0, 1.0]]]), np.zeros((2, 1)), "negative or not finite"),
        (np.full((2, 1, 2), 0.5), np.zeros((1, 2)), r"reward is \[1, 2\], expected \[2, 1\]"),
        (np.full((2, 1, 2), 0.5), np.array([[np.nan], [0.0]]), "reward has entries that are not finite"),
        (np.full((3, 1, 2), 0.5), np.zeros((3, 1)), r"expected \[P\?, S, A, S\]"),
    ],
)
def test_a_model_that_is_none_is_told(transition: np.ndarray, reward: np.ndarray, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        DiscountedMDP(transition, reward, 0.9)


def test_stages_must_fit() -> None:
    with pytest.raises(InputError, match=r"expected \[P\?, H, S, A, S\]"):
        EpisodicMDP(np.full((2, 1, 2), 0.5), np.zeros((2, 1)))
