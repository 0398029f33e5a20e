"""Statistics against scipy, hand-computed values, and simulated coverage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pbrl.errors import InputError
from pbrl.statistics import (
    accuracy_by_gap,
    iqm,
    label_accuracy,
    stratified_bootstrap,
    wilson,
)

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(1,), (3,), (4,), (10,), (10, 6), (7, 3)])
def test_iqm_is_scipys_trimmed_mean(shape: tuple[int, ...]) -> None:
    scores = RANDOM.normal(size=shape)
    assert iqm(scores) == pytest.approx(stats.trim_mean(scores, 0.25, axis=None), abs=1e-15)
    np.testing.assert_allclose(iqm(scores, axis=0), stats.trim_mean(scores, 0.25, axis=0))


def test_iqm_by_hand() -> None:
    assert iqm([100.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -100.0]) == 3.5
    assert iqm(list(range(10))) == np.mean([2, 3, 4, 5, 6, 7])


def test_nan_is_not_trimmed_away() -> None:
    assert np.isnan(iqm([1.0, 2.0, 3.0, np.nan]))
    assert np.isnan(iqm([1.0] * 20 + [np.nan]))
    np.testing.assert_array_equal(iqm([[1.0, np.nan]] * 4, axis=0), [1.0, np.nan])
    assert np.isnan(stratified_bootstrap([1.0, 2.0, np.nan], seed=0)).all()


def test_bootstrap_honours_its_seed() -> None:
    scores = RANDOM.normal(size=10)
    interval = stratified_bootstrap(scores, seed=1)
    np.random.seed(5)  # noqa: NPY002 - rliable reads this generator, ours must not
    assert interval == stratified_bootstrap(scores, seed=1)
    assert interval != stratified_bootstrap(scores, seed=2)
    assert interval.low < interval.point < interval.high
    assert interval.point == iqm(scores)


def test_bootstrap_resamples_within_tasks() -> None:
    """Seeds agree within each task and tasks lie far apart: only a stratified interval has width zero."""
    scores = np.tile([0.0, 10.0, 20.0, 30.0], (10, 1))
    assert stratified_bootstrap(scores, np.mean, seed=0) == (15.0, 15.0, 15.0)
    assert stratified_bootstrap(scores.T.ravel(), np.mean, seed=0).high > 16.0


def test_bootstrap_of_the_mean_has_the_known_width() -> None:
    scores = RANDOM.normal(size=400)
    interval = stratified_bootstrap(scores, np.mean, seed=0, resamples=4000)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * scores.std() / 20, rel=0.06)
    narrow = stratified_bootstrap(scores, np.mean, seed=0, resamples=4000, level=0.5)
    assert narrow.high - narrow.low == pytest.approx(2 * 0.6745 * scores.std() / 20, rel=0.06)


@pytest.mark.parametrize(("shape", "measured"), [((10,), 0.936), ((10, 6), 0.926)])
def test_bootstrap_coverage(shape: tuple[int, ...], measured: float) -> None:
    """The documented coverage of a nominal 95 %, over 400 simulations (standard error .013)."""
    simulations = np.random.default_rng(7).normal(size=(400, *shape))
    intervals = [stratified_bootstrap(scores, seed=i, resamples=500) for i, scores in enumerate(simulations)]
    covered = np.mean([interval.low <= 0 <= interval.high for interval in intervals])
    assert abs(covered - measured) < 0.04


def test_one_seed_has_no_interval() -> None:
    point, low, high = stratified_bootstrap([3.0], seed=0)
    assert point == 3.0
    assert np.isnan([low, high]).all()


def test_wilson_equals_scipys() -> None:
    for successes, n in [(0, 5), (5, 5), (31, 72), (1, 1000)]:
        reference = stats.binomtest(successes, n).proportion_ci(0.95, method="wilson")
        assert wilson(successes, n) == pytest.approx((successes / n, reference.low, reference.high), abs=1e-12)
    assert wilson(31, 72)[1:] == pytest.approx((0.32, 0.55), abs=0.006)  # 31 right of 72 is not told from chance
    assert wilson(0, 0)[1:] == (0.0, 1.0)


def test_label_accuracy_by_hand() -> None:
    label = [1.0, 0.0, 0.5, 1.0, 0.8]
    assert label_accuracy([0.9, 0.2, 0.9, 0.4, 0.5], label) == (1 + 1 + 0 + 0.5) / 4
    assert label_accuracy([0.9, 0.2, 0.1, 0.4, 0.5], label) == 0.625, "the tie must not count"
    np.testing.assert_array_equal(label_accuracy([[1.0, 0.0, 0.5, 1.0, 1.0], [0.0, 1.0, 0.5, 0.0, 0.0]], label), [1, 0])
    assert np.isnan(label_accuracy([0.9, 0.1], [0.5, 0.5]))
    assert np.isnan(label_accuracy([np.nan, 0.1], [1.0, 0.0]))


def test_accuracy_by_gap_by_hand() -> None:
    truth = [0.0, -1.0, 2.0, -3.0, 4.0, 5.0]
    predicted = [1.0, 1.0, 9.0, 0.0, 1.0, 1.0]
    found = accuracy_by_gap([predicted, truth], truth, bins=2)
    np.testing.assert_array_equal(found.count, [3, 2])
    np.testing.assert_array_equal(found.low, [1.0, 4.0])
    np.testing.assert_array_equal(found.high, [3.0, 5.0])
    np.testing.assert_allclose(found.accuracy, [[0.5, 1.0], [1.0, 1.0]])
    assert accuracy_by_gap(predicted, truth, bins=50).accuracy.shape == (5,), "no bin is empty"


def test_accuracy_grows_with_the_gap() -> None:
    truth = RANDOM.normal(size=20_000)
    found = accuracy_by_gap(truth + RANDOM.normal(size=20_000), truth, bins=5)
    assert (np.diff(found.accuracy) > 0).all()
    assert found.accuracy[0] == pytest.approx(0.55, abs=0.02)
    np.testing.assert_array_equal(found.count, [4000] * 5)


def test_bad_input() -> None:
    with pytest.raises(InputError, match="at least one score"):
        iqm([])
    with pytest.raises(InputError, match=r"shape \[2, 2, 2\]"):
        stratified_bootstrap(np.zeros((2, 2, 2)), seed=0)
    with pytest.raises(InputError, match="resamples 0"):
        stratified_bootstrap([1.0, 2.0], seed=0, resamples=0)
    with pytest.raises(InputError, match=r"level 1\.0"):
        stratified_bootstrap([1.0, 2.0], seed=0, level=1.0)
    with pytest.raises(InputError, match="6 successes of 5"):
        wilson(6, 5)
    with pytest.raises(InputError, match=r"\[3\] predictions for labels \[2\]"):
        label_accuracy([0.1, 0.2, 0.3], [0.0, 1.0])
    with pytest.raises(InputError, match="no pair with a true difference"):
        accuracy_by_gap([1.0], [0.0])
    with pytest.raises(InputError, match="0 bins"):
        accuracy_by_gap([1.0], [1.0], bins=0)
