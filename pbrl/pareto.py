"""Sets of return vectors: what dominates what, and how good a set is. Every objective is maximised.

Hypervolume, expected utility and sparsity (C-MORL: Liu et al., ICLR 2025, appendix E). None of them means anything
without its reference point, the discount of the returns and the scale of the objectives, so ``measure`` takes these as
one ``Convention`` and gives them back beside the numbers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import moocore
import numpy as np
import scipy.optimize
from numpy.typing import ArrayLike, NDArray

from .errors import InputError

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


def as_points(points: ArrayLike) -> Floats:
    """[N, K] return vectors as float64.

    Raises:
        InputError: another shape, fewer than two objectives, or numbers that are not finite.
    """
    array = np.asarray(points, dtype=np.float64)
    if array.ndim != 2:
        raise InputError(f"the points have shape {list(array.shape)}, expected [points, objectives]")
    if array.shape[1] < 2:
        raise InputError(f"the points have {array.shape[1]} objective, expected at least 2")
    if not np.isfinite(array).all():
        raise InputError(f"{(~np.isfinite(array)).any(1).sum()} points are not finite, expected finite returns")
    return array


def non_dominated(points: ArrayLike) -> Flags:
    """[N, K] -> [N] bool: no other point is at least as good in all objectives and better in one.

    Of equal points the first one stays.
    """
    array = as_points(points)
    at_least = (array[:, None] >= array[None]).all(-1)  # [N, N] row i reaches column j
    equal = at_least & at_least.T
    earlier = np.tri(len(array), k=-1, dtype=bool).T  # row i stands before column j
    return np.asarray(~((at_least & ~equal) | (equal & earlier)).any(0), dtype=np.bool_)


def convex_coverage(points: ArrayLike) -> Flags:
    """[N, K] -> [N] bool: some preference weights make the point better than all others (of equal points: the first).

    By a linear program per point: the largest d with w (p - q) >= d for all other q, w on the simplex, is above 0. That
    is right on concave fronts, where the convex hull of a set has corners that no weights make best.
    """
    array = as_points(points)
    span = np.ptp(array, axis=0)
    array = array / np.where(span > 0, span, 1.0)  # signs of d do not change, and its tolerance gets a meaning
    objectives = array.shape[1]
    best = non_dominated(array)
    candidates = np.flatnonzero(best)
    for i in candidates:
        gap = array[i] - array[[j for j in candidates if j != i]]
        if len(gap) == 0:
            continue
        solved = scipy.optimize.linprog(
            np.append(np.zeros(objectives), -1.0),
            A_ub=np.hstack([-gap, np.ones((len(gap), 1))]),
            b_ub=np.zeros(len(gap)),
            A_eq=np.append(np.ones(objectives), 0.0)[None],
            b_eq=np.ones(1),
            bounds=[(0.0, None)] * objectives + [(None, None)],
            method="highs",
        )
        best[i] = -solved.fun > 1e-9
    return best


def crowding(points: ArrayLike) -> Floats:
    """[N, K] -> [N] crowding distance (Deb et al. 2002): the best and worst of an objective have infinity.

    An objective in which all points are equal adds nothing.
    """
    array = as_points(points)
    distance = np.zeros(len(array))
    for values in array.T:
        order = np.argsort(values, kind="stable")
        span = values[order[-1]] - values[order[0]] if len(order) else 0.0
        if span <= 0.0:
            continue
        distance[order[[0, -1]]] = math.inf
        distance[order[1:-1]] += (values[order[2:]] - values[order[:-2]]) / span
    return distance


def hypervolume(points: ArrayLike, reference: ArrayLike) -> float:
    """The volume of what lies between the reference point [K] and at least one of the points [N, K].

    Points that do not dominate the reference count nothing. Exact, by moocore; 200 points take milliseconds up to six
    objectives, and seconds or more beyond eight.

    Raises:
        InputError: shapes that do not fit, or numbers that are not finite.
    """
    array, corner = as_points(points), np.asarray(reference, dtype=np.float64)
    if corner.shape != array.shape[1:]:
        found = f"{list(corner.shape)}, the points {list(array.shape)}"
        raise InputError(f"the reference point has shape {found}: expected one number per objective")
    if not np.isfinite(corner).all():
        raise InputError(f"the reference point is {corner.tolist()}, expected finite numbers")
    above = array[(array > corner).all(1)]
    return float(moocore.hypervolume(above, ref=corner, maximise=True)) if len(above) else 0.0


def simplex_grid(objectives: int, steps: int) -> Floats:
    """[W, K] all weights that are multiples of 1 / steps, counted in whole numbers so that none is lost to rounding.

    Raises:
        InputError: no objectives or no steps.
    """
    if objectives < 1 or steps < 1:
        raise InputError(f"a grid of weights has {objectives} objectives and {steps} steps, expected at least 1 each")
    bars = itertools.combinations(range(steps + objectives - 1), objectives - 1)
    rows = [np.diff([-1, *places, steps + objectives - 1]) - 1 for places in bars]
    return np.asarray(rows, dtype=np.float64)[::-1] / steps


def spread_weights(objectives: int, count: int) -> Floats:
    """[count, K] weights far from each other: the corners of the simplex first, then what is farthest from all chosen.

    Two objectives get an even grid.

    Raises:
        InputError: fewer weights than one.
    """
    if count < 1:
        raise InputError(f"{count} preference weights, expected at least 1")
    if objectives == 2 and count > 1:
        return simplex_grid(2, count - 1)
    steps = 1
    while math.comb(steps + objectives - 1, objectives - 1) < count:
        steps += 1
    grid = simplex_grid(objectives, steps)
    if count == 1:
        return np.full((1, objectives), 1.0 / objectives)
    chosen = list(np.flatnonzero(grid.max(1) == 1.0)[:count])
    while len(chosen) < count:
        gap = np.linalg.norm(grid[:, None] - grid[chosen][None], axis=-1).min(1)
        chosen.append(int(gap.argmax()))
    return grid[chosen]


def check_weights(weights: ArrayLike, objectives: int) -> Floats:
    """[..., K] preference weights as float64.

    Raises:
        InputError: another number of objectives, a negative weight, or a sum that is not 1.
    """
    array = np.asarray(weights, dtype=np.float64)
    if array.ndim == 0 or array.shape[-1] != objectives:
        raise InputError(f"the preference weights have shape {list(array.shape)}, expected {objectives} in a row")
    rows = array.reshape(-1, objectives)
    wrong = (rows < 0.0).any(1) | ~(np.abs(rows.sum(1) - 1.0) <= 1e-6)
    if wrong.any():
        found = " ".join(f"{x:g}" for x in rows[wrong][0])
        raise InputError(f"the preference weights are {found}, expected none below 0 and a sum of 1")
    return array


def assign(points: ArrayLike, weights: ArrayLike) -> NDArray[np.int64]:
    """Which of the points [N, K] is best for each of the preference weights [..., K]: [...] indices.

    Raises:
        InputError: no points, or weights off the simplex.
    """
    array = as_points(points)
    if len(array) == 0:
        raise InputError("there are no points to choose from, expected at least one")
    return np.asarray((check_weights(weights, array.shape[1]) @ array.T).argmax(-1))


def expected_utility(points: ArrayLike, weights: ArrayLike) -> float:
    """The mean over weights [W, K] of the best weighed return that the points [N, K] offer.

    Raises:
        InputError: no points, or weights off the simplex.
    """
    array, rows = as_points(points), np.asarray(weights, dtype=np.float64)
    return float((rows * array[assign(array, rows)]).sum(-1).mean())


def sparsity(points: ArrayLike) -> float:
    """Squared gaps between neighbours in each objective, summed, over N - 1; 0 for fewer than two points.

    It falls when points are merely added and is best for a single point: never read it without N.
    """
    array = np.sort(as_points(points), axis=0)
    return float(np.square(np.diff(array, axis=0)).sum() / (len(array) - 1)) if len(array) > 1 else 0.0


@dataclass(frozen=True)
class Convention:
    """What the quality of a set is measured by.

    Attributes:
        reference: [K] the corner of the hypervolume, in raw returns.
        gamma: the discount of the returns.
        weight_steps: expected utility is over all weights that are multiples of 1 / weight_steps.
        low: [K] and
        high: [K] if given, objectives (and the reference) are rescaled so that these become 0 and 1.

    Raises:
        InputError: bounds of another length or that do not rise, or a discount outside [0, 1].
    """

    reference: tuple[float, ...]
    gamma: float
    weight_steps: int = 100
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.gamma <= 1.0:
            raise InputError(f"the discount is {self.gamma}, expected at least 0 and at most 1")
        if (self.low is None) != (self.high is None):
            raise InputError("the bounds of the objectives go together: only one of low and high was given")
        if self.low is not None and self.high is not None:
            rising = all(a < b for a, b in zip(self.low, self.high))
            if not len(self.low) == len(self.high) == len(self.reference) or not rising:
                found = f"{list(self.low)} and {list(self.high)}"
                raise InputError(f"the bounds are {found}, expected one rising pair for each of the objectives")

    def scaled(self, points: ArrayLike) -> Floats:
        """Points [..., K] on the scale that is measured in."""
        array = np.asarray(points, dtype=np.float64)
        if self.low is None or self.high is None:
            return array
        low, high = np.asarray(self.low), np.asarray(self.high)
        result: Floats = (array - low) / (high - low)
        return result


@dataclass(frozen=True)
class Quality:
    """What the non-dominated part of a set is worth, by a convention.

    Attributes:
        points: how many of the set are not dominated.
        convention: what it was measured by.
    """

    hypervolume: float
    expected_utility: float
    sparsity: float
    points: int
    convention: Convention


def measure(points: ArrayLike, convention: Convention) -> Quality:
    """The quality of the non-dominated ones among the points [N, K].

    Raises:
        InputError: no points, or a reference point that none of them dominates.
    """
    array = as_points(points)
    reference = np.asarray(convention.reference)
    if reference.shape != array.shape[1:]:
        found = f"{len(reference)} numbers for {array.shape[1]} objectives"
        raise InputError(f"the reference point has {found}, expected one each")
    if not (array > reference).all(1).any():
        best = " ".join(f"{x:g}" for x in array.max(0)) if len(array) else "none"
        corner = " ".join(f"{x:g}" for x in reference)
        found = f"the reference point {corner} (the best of each objective: {best})"
        raise InputError(f"no point dominates {found}, expected a lower one")
    front = convention.scaled(array[non_dominated(array)])
    return Quality(
        hypervolume=hypervolume(front, convention.scaled(reference)),
        expected_utility=expected_utility(front, simplex_grid(array.shape[1], convention.weight_steps)),
        sparsity=sparsity(front),
        points=len(front),
        convention=convention,
    )


def format_reference(reference: Sequence[float]) -> str:
    """A reference point as one word of a table: ``0|-25``."""
    return "|".join(f"{x:g}" for x in reference)
