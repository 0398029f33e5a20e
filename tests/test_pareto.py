"""Quality of Pareto fronts: numbers known in closed form, an own exact recursion, and sets that lie in wait."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pbrl import pareto
from pbrl.errors import InputError
from pbrl.pareto import Convention

Points = NDArray[np.float64]

STEPS = np.array([1, 3, 5, 7, 8, 9, 13, 14, 17, 19], dtype=float)
CONVEX = np.stack([[0.7, 8.2, 11.5, 14.0, 15.1, 16.1, 19.6, 20.3, 22.4, 23.7], -STEPS], axis=1)
CONCAVE = np.stack([[1, 2, 3, 5, 8, 16, 24, 50, 74, 124], -STEPS], axis=1)


def discounted(front: Points, gamma: float) -> Points:
    """Deep sea treasure's front at a discount: the treasure comes with the last step."""
    return np.stack([front[:, 0] * gamma ** (STEPS - 1), -(1 - gamma**STEPS) / (1 - gamma)], axis=1)


def recursive(points: Points, reference: Points) -> float:
    """The hypervolume by slices along the last objective: exact, slow and ours."""
    above = points[(points > reference).all(1)]
    if len(above) == 0:
        return 0.0
    if points.shape[1] == 1:
        return float(above.max() - reference[0])
    levels = np.unique(np.append(above[:, -1], reference[-1]))
    slices = itertools.pairwise(levels)
    return sum(
        float(high - low) * recursive(above[above[:, -1] >= high][:, :-1], reference[:-1]) for low, high in slices
    )


@pytest.mark.parametrize(
    ("front", "reference", "volume"),
    [
        (CONVEX, [0, -25], 401.8),
        (CONVEX, [0, -50], 994.3),
        (CONCAVE, [0, -25], 1155.0),
        (CONCAVE, [0, -50], 4255.0),
        (discounted(CONVEX, 0.99), [0, -25], 360.400946),
        (discounted(CONVEX, 0.98), [0, -25], 319.746220),
        (discounted(CONVEX, 0.95), [0, -25], 230.02543),
        (discounted(CONCAVE, 0.99), [0, -25], 1101.38443),
    ],
)
def test_hypervolumes_of_deep_sea_treasure(front: Points, reference: list[float], volume: float) -> None:
    assert pareto.hypervolume(front, reference) == pytest.approx(volume, rel=1e-7)
    assert recursive(front, np.asarray(reference, float)) == pytest.approx(volume, rel=1e-7)


def test_convex_coverage_sets_of_deep_sea_treasure() -> None:
    convex, concave = pareto.convex_coverage(CONVEX), pareto.convex_coverage(CONCAVE)
    assert convex.sum() == 9
    assert not convex[7], "20.3 in 14 steps lies below the line between its neighbours"
    assert pareto.hypervolume(CONVEX[convex], [0, -25]) == pytest.approx(399.7)
    assert np.flatnonzero(concave).tolist() == [0, 9], "on a concave front only the ends are best for some weights"
    assert pareto.hypervolume(CONCAVE[concave], [0, -25]) == pytest.approx(762.0)
    assert pareto.convex_coverage(discounted(CONVEX, 0.99)).sum() == 10
    assert pareto.non_dominated(discounted(CONVEX, 0.95)).sum() == 6
    assert pareto.non_dominated(discounted(CONVEX, 0.9)).sum() == 3


def test_sparsity_and_expected_utility_of_deep_sea_treasure() -> None:
    weights = pareto.simplex_grid(2, 100)
    assert len(weights) == 101
    assert pareto.sparsity(CONVEX) == pytest.approx(15.3822, abs=5e-5)
    assert pareto.sparsity(CONCAVE) == pytest.approx(437.6667, abs=5e-5)
    assert pareto.expected_utility(CONVEX, weights) == pytest.approx(6.765792, abs=5e-7)
    assert pareto.expected_utility(CONCAVE, weights) == pytest.approx(53.727921, abs=5e-7)


def test_the_bandit_fills_up_to_its_exact_hypervolume() -> None:
    def of(count: int) -> Points:
        act = np.linspace(-1, 1, count)
        return np.stack([-((1 - act) ** 2), -((1 + act) ** 2)], axis=1)

    for count, volume in ((5, 11.625), (9, 12.578125), (17, 12.978516), (101, 13.279464)):
        assert pareto.hypervolume(of(count), [-4, -4]) == pytest.approx(volume, abs=5e-7)
    assert pareto.hypervolume(of(100_001), [-4, -4]) == pytest.approx(40 / 3, abs=1e-4)
    assert pareto.expected_utility(of(201), pareto.simplex_grid(2, 100)) == pytest.approx(-0.66, abs=1e-9)
    weights = np.array([0.8, 0.2])  # the best action is 2 w - 1
    assert np.linspace(-1, 1, 201)[pareto.assign(of(201), weights)] == pytest.approx(0.6)


@pytest.mark.parametrize("objectives", [2, 3, 4, 5])
def test_hypervolume_equals_the_recursion(objectives: int) -> None:
    points = np.random.default_rng(objectives).uniform(-1, 1, (12, objectives))
    reference = np.full(objectives, -0.8)  # some points fall below it
    assert pareto.hypervolume(points, reference) == pytest.approx(recursive(points, reference), rel=1e-12)


def test_points_that_do_not_dominate_the_reference_count_nothing() -> None:
    assert pareto.hypervolume([[1, 2], [3, -1], [0, 5]], [0, 0]) == 2.0
    assert pareto.hypervolume([[-1, 4], [0, 0]], [0, 0]) == 0.0


def test_filters_keep_one_of_equal_points() -> None:
    points = [[1, 1], [2, 0], [1, 1], [0, 0], [2, 0]]
    assert pareto.non_dominated(points).tolist() == [True, True, False, False, False]
    assert pareto.convex_coverage(points).tolist() == [True, True, False, False, False]


def test_non_dominated_against_its_definition() -> None:
    points = np.random.default_rng(0).integers(0, 5, (60, 3)).astype(float)
    kept = pareto.non_dominated(points)
    for i, p in enumerate(points):
        better = any((q >= p).all() and (q > p).any() for q in points)
        repeated = any((q == p).all() for q in points[:i])
        assert kept[i] == (not better and not repeated)


def test_convex_coverage_against_a_fine_grid() -> None:
    points = np.random.default_rng(1).standard_normal((30, 3))
    assert set(pareto.assign(points, pareto.simplex_grid(3, 60)).ravel()) <= set(
        np.flatnonzero(pareto.convex_coverage(points))
    )


def test_crowding() -> None:
    distance = pareto.crowding([[0, 4], [1, 2], [2, 1], [4, 0]])
    assert distance.tolist() == [np.inf, 1.25, 1.25, np.inf]
    assert pareto.crowding([[1, 1], [1, 1]]).tolist() == [0, 0]
    assert pareto.crowding([[0, 7], [1, 7], [3, 7]]).tolist() == [np.inf, 1.0, np.inf]


def test_grids_lose_no_weight() -> None:
    for objectives, steps, count in ((3, 10, 66), (6, 2, 21), (6, 5, 252)):
        grid = pareto.simplex_grid(objectives, steps)
        assert len(np.unique(grid, axis=0)) == count
        pareto.check_weights(grid, objectives)
    assert pareto.simplex_grid(2, 2).tolist() == [[1, 0], [0.5, 0.5], [0, 1]]


def test_spread_weights_take_corners_first() -> None:
    assert pareto.spread_weights(2, 3).tolist() == [[1, 0], [0.5, 0.5], [0, 1]]
    assert {tuple(w) for w in pareto.spread_weights(6, 6)} == set(itertools.permutations([1.0, 0, 0, 0, 0, 0], 6))
    six = pareto.spread_weights(3, 6)
    assert len(np.unique(six, axis=0)) == 6
    assert (six.max(1) == 1).sum() == 3
    assert pareto.spread_weights(4, 1).tolist() == [[0.25] * 4]


def test_a_measurement_names_its_convention() -> None:
    found = pareto.measure(np.vstack([CONVEX, [0.1, -20]]), Convention((0, -25), 1.0))
    assert (found.points, found.convention.reference, found.convention.gamma) == (10, (0, -25), 1.0)
    assert found.hypervolume == pytest.approx(401.8)
    scaled = pareto.measure(CONVEX, Convention((0, -25), 1.0, low=(0, -25), high=(23.7, 0)))
    assert scaled.hypervolume == pytest.approx(401.8 / 23.7 / 25)
    assert pareto.format_reference(found.convention.reference) == "0|-25"


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: pareto.measure(CONVEX, Convention((100, 0), 1.0)), "no point dominates the reference point 100 0"),
        (lambda: pareto.measure(CONVEX, Convention((0, -25, 0), 1.0)), "3 numbers for 2 objectives"),
        (lambda: pareto.assign(CONVEX, [0.7, 0.7]), "0.7 0.7, expected none below 0 and a sum of 1"),
        (lambda: pareto.assign(CONVEX, [1.5, -0.5]), "1.5 -0.5"),
        (lambda: pareto.assign(CONVEX, [1.0]), "expected 2 in a row"),
        (lambda: pareto.hypervolume([[1.0], [2.0]], [0.0]), "1 objective, expected at least 2"),
        (lambda: pareto.hypervolume([1.0, 2.0], [0.0, 0.0]), "shape"),
        (lambda: pareto.hypervolume([[1.0, np.nan]], [0.0, 0.0]), "not finite"),
        (lambda: pareto.hypervolume([[1.0, 2.0]], [0.0]), "one number per objective"),
        (lambda: Convention((0, 0), 1.5), "discount is 1.5"),
        (lambda: Convention((0, 0), 1.0, low=(0, 0)), "go together"),
        (lambda: Convention((0, 0), 1.0, low=(0, 0), high=(1, 0)), "rising pair"),
        (lambda: pareto.simplex_grid(0, 3), "at least 1 each"),
        (lambda: pareto.spread_weights(2, 0), "expected at least 1"),
    ],
)
def test_bad_input(call: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        call()
