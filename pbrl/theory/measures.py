"""Numbers with their intervals, as checks want them: exact numbers, shares of events, means and bootstraps."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from ..errors import InputError
from ..statistics import clopper_pearson
from .check import Measured

CONFIDENCE = 0.95
RESAMPLES = 10_000


def exactly(value: float, note: str = "") -> Measured:
    """A number without chance in it, such as the largest error of an identity."""
    return Measured(float(value), float(value), float(value), note=note)


def share(events: int, trials: int, note: str = "") -> Measured:
    """The probability of an event seen ``events`` times in ``trials``, with Clopper and Pearson's exact interval."""
    point, low, high = clopper_pearson(events, trials, 2 * CONFIDENCE - 1)
    said = "; ".join(filter(None, [f"{events} of {trials}", note]))

    def breaks(bound: float, at_least: bool) -> float:
        return float(stats.binom.cdf(events, trials, bound) if at_least else stats.binom.sf(events - 1, trials, bound))

    return Measured(point, low, high, breaks, said)


def mean(values: ArrayLike, note: str = "") -> Measured:
    """The mean of independent values, with Student's interval.

    Raises:
        InputError: fewer than two values.
    """
    sample = np.asarray(values, dtype=np.float64).ravel()
    if sample.size < 2:
        raise InputError(f"a mean with an interval needs at least 2 values, found {sample.size}")
    point, error = float(sample.mean()), float(sample.std(ddof=1)) / np.sqrt(sample.size)
    half = float(stats.t.ppf(CONFIDENCE, sample.size - 1)) * error

    def breaks(bound: float, at_least: bool) -> float:
        beyond = bound - point if at_least else point - bound
        return float(stats.t.sf(beyond / error, sample.size - 1)) if error > 0 else float(beyond <= 0)

    return Measured(point, point - half, point + half, breaks, note)


def resampled(point: float, draws: ArrayLike, note: str = "") -> Measured:
    """An estimate with its percentile interval from bootstrap draws."""
    drawn = np.asarray(draws, dtype=np.float64).ravel()
    low, high = np.quantile(drawn, [1 - CONFIDENCE, CONFIDENCE])

    def breaks(bound: float, at_least: bool) -> float:
        within = drawn >= bound if at_least else drawn <= bound
        return float((1 + within.sum()) / (1 + drawn.size))

    return Measured(float(point), float(low), float(high), breaks, note)
