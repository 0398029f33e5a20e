"""Statistics of a few seeds: the interquartile mean, seeded intervals, and agreement with labels.

Everything is a pure function of its arguments; what resamples takes a seed. NaN means a run that diverged: it is never
dropped in silence, the statistic of a set that holds one is NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from .errors import InputError

Floats = NDArray[np.float64]
Statistic = Callable[..., Any]
"""``statistic(values, axis=-1)``, as np.mean, np.median and ``iqm``."""


class Interval(NamedTuple):
    """A point estimate and the ends of its interval."""

    point: float
    low: float
    high: float


def iqm(scores: ArrayLike, axis: int | None = None) -> Any:
    """Interquartile mean: the 25 % trimmed mean of ``scores``, a float, or an array where ``axis`` is given.

    The definition of Agarwal et al. (2021), "Deep RL at the edge of the statistical precipice", and of their rliable:
    ``scipy.stats.trim_mean(scores, 0.25)`` over seeds and tasks together. Of n values, floor(n / 4) are dropped at each
    end and the others weigh the same (no fractional weights): 10 seeds keep 6, fewer than 4 keep all.

    Raises:
        InputError: no scores.
    """
    values = np.asarray(scores, dtype=np.float64)
    if not values.size:
        raise InputError("the interquartile mean needs at least one score, found none")
    trimmed = stats.trim_mean(values, 0.25, axis=axis)
    # Sorting puts NaN last, where trimming would hide it.
    result = np.where(np.isnan(values).any(axis=axis), np.nan, trimmed)
    return float(result) if result.ndim == 0 else result


def stratified_bootstrap(
    scores: ArrayLike,
    statistic: Statistic = iqm,
    *,
    seed: int,
    resamples: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Percentile bootstrap interval of a statistic of ``scores`` [S] or [S, tasks], seeds drawn anew within each task.

    The method of rliable, with two differences: the seed is honoured, and fewer than two seeds give NaN ends (an
    interval of width zero would be a lie). Percentile intervals are somewhat narrow for few seeds: the IQM's nominal
    95 % covered 90.1 % with 5 seeds of one task, 93.7 % with 8, 93.6 % with 10, 92.6 % with 10 seeds of 6 tasks (normal
    scores, 3000 trials, standard error 0.5).

    Args:
        statistic: called as ``statistic(values [resamples, S * tasks], axis=-1)``.
        seed: the same seed gives the same interval, on any machine.

    Raises:
        InputError: no scores, more than two axes, no resamples, or a level outside (0, 1).
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim not in (1, 2) or not values.size:
        raise InputError(
            f"bootstrap scores have shape {list(values.shape)}, expected [seeds] or [seeds, tasks], not empty"
        )
    if resamples < 1 or not 0 < level < 1:
        raise InputError(
            f"bootstrap has resamples {resamples} and level {level}, expected at least 1 and inside (0, 1)"
        )
    values = values.reshape(len(values), -1)
    point = float(statistic(values.reshape(-1), axis=-1))
    if len(values) < 2:
        return Interval(point, np.nan, np.nan)
    drawn = np.random.default_rng(seed).integers(len(values), size=(resamples, *values.shape))
    resampled = np.take_along_axis(values[None], drawn, axis=1).reshape(resamples, -1)
    low, high = np.quantile(statistic(resampled, axis=-1), [(1 - level) / 2, (1 + level) / 2])
    return Interval(point, float(low), float(high))


def wilson(successes: float, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion; with n = 0 nothing is known: (NaN, 0, 1).

    For shares of independent trials, where a bootstrap of zeros and ones fails near 0 and 1: how often an agent sides
    with human answers, of which there are few, or succeeds in a task.

    Raises:
        InputError: not 0 <= successes <= n.
    """
    if not 0 <= successes <= n:
        raise InputError(f"wilson has {successes} successes of {n}, expected between 0 and {n}")
    if n == 0:
        return Interval(np.nan, 0.0, 1.0)
    z = float(stats.norm.ppf((1 + level) / 2))
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * float(np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)))
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half))


def _agreement(predicted: Floats, truth: Floats) -> Floats:
    """1 where the signs agree, 0.5 where the prediction is undecided, 0 where they differ, NaN where it is NaN."""
    return np.where(predicted == 0, 0.5, np.where(np.isnan(predicted), np.nan, np.sign(predicted) == np.sign(truth)))


def label_accuracy(predicted_p2: ArrayLike, label: ArrayLike) -> Any:
    """Share of decisive labels that the predictions side with: a float, or [...] for predictions [..., N].

    Pairs labelled 0.5 (ties) are left out: no prediction could be right about them. An undecided prediction (exactly
    0.5) counts half. NaN where no label is decisive.

    Args:
        predicted_p2: [..., N] predicted probability that the second segment is preferred.
        label: [N] probability that the second is preferred.

    Raises:
        InputError: as many predictions as labels are missing.
    """
    predicted, truth = np.asarray(predicted_p2, dtype=np.float64) - 0.5, np.asarray(label, dtype=np.float64) - 0.5
    if truth.ndim != 1 or predicted.shape[-1:] != truth.shape:
        raise InputError(
            f"{list(predicted.shape)} predictions for labels {list(truth.shape)}, expected [..., N] for [N]"
        )
    decisive = truth != 0
    if not decisive.any():
        share = np.full(predicted.shape[:-1], np.nan)
    else:
        share = _agreement(predicted[..., decisive], truth[decisive]).mean(axis=-1)
    return float(share) if np.ndim(share) == 0 else share


@dataclass(frozen=True, eq=False)
class GapAccuracy:
    """Accuracy of predictions by how far apart the two segments truly are, from the closest pairs to the clearest.

    Attributes:
        low: [bins] smallest true gap in the bin, in units of the true score.
        high: [bins] largest.
        count: [bins] number of pairs.
        accuracy: [..., bins] share of the pairs predicted rightly.
    """

    low: Floats
    high: Floats
    count: NDArray[np.int64]
    accuracy: Floats


def accuracy_by_gap(predicted_delta: ArrayLike, true_delta: ArrayLike, bins: int = 5) -> GapAccuracy:
    """Accuracy of the sign of ``predicted_delta`` [..., N] in quantile bins of ``abs(true_delta)`` [N].

    A delta is score(second) - score(first). Pairs without a true difference are left out; the bins hold equally many
    of the others (to one). A prediction of exactly 0 counts half.

    Raises:
        InputError: shapes that do not fit, fewer than 1 bin, or no pair with a true difference.
    """
    predicted, truth = np.asarray(predicted_delta, dtype=np.float64), np.asarray(true_delta, dtype=np.float64)
    if truth.ndim != 1 or predicted.shape[-1:] != truth.shape or bins < 1:
        found = f"{list(predicted.shape)} predictions, {list(truth.shape)} true deltas and {bins} bins"
        raise InputError(f"accuracy by gap has {found}, expected [..., N], [N] and at least 1")
    order = np.argsort(np.abs(truth), kind="stable")
    order = order[truth[order] != 0]
    if not order.size:
        raise InputError("accuracy by gap has no pair with a true difference, expected at least one")
    chunks = [chunk for chunk in np.array_split(order, bins) if chunk.size]
    gap = np.abs(truth)
    return GapAccuracy(
        low=np.array([gap[chunk[0]] for chunk in chunks]),
        high=np.array([gap[chunk[-1]] for chunk in chunks]),
        count=np.array([chunk.size for chunk in chunks]),
        accuracy=np.stack([_agreement(predicted[..., c], truth[c]).mean(axis=-1) for c in chunks], axis=-1),
    )


def clopper_pearson(successes: int, n: int, level: float = 0.95) -> Interval:
    """Clopper and Pearson's exact interval of a proportion: it never covers less often than ``level``.

    For rare events in checks of a claim. None in 300 has the upper end 0.00994 at level 0.9, which is a one-sided 95 %.

    Raises:
        InputError: not 0 <= successes <= n with n at least 1, or a level outside (0, 1).
    """
    if n < 1 or not 0 <= successes <= n or not 0 < level < 1:
        raise InputError(f"clopper_pearson has {successes} successes of {n} at level {level}, expected 0 to n, n >= 1")
    tail = (1 - level) / 2
    low = float(stats.beta.ppf(tail, successes, n - successes + 1)) if successes > 0 else 0.0
    high = float(stats.beta.ppf(1 - tail, successes + 1, n - successes)) if successes < n else 1.0
    return Interval(successes / n, low, high)


def holm(p_values: ArrayLike, level: float = 0.05) -> list[bool]:
    """Which hypotheses Holm's step-down procedure rejects: at most ``level`` chance of any false rejection.

    Raises:
        InputError: a p-value outside [0, 1].
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.size and not ((p >= 0) & (p <= 1)).all():
        raise InputError("holm has p-values outside [0, 1]")
    order = np.argsort(p, kind="stable")
    keeps = p[order] <= level / (p.size - np.arange(p.size))
    rejected = np.zeros(p.size, dtype=bool)
    rejected[order] = np.cumprod(keeps, dtype=np.int64).astype(bool)
    return [bool(one) for one in rejected]
