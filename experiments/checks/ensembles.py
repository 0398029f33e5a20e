"""E1, E2: is an ensemble's disagreement the elliptical width of linear regression, and do more data only shrink it?"""

from __future__ import annotations

import numpy as np

from pbrl.theory.check import Check, Control, Measured, Trial
from pbrl.theory.mdps import Floats
from pbrl.theory.measures import exactly, resampled

PAPER = "RO2O (Wen et al., 2024)"
FEATURES, ROWS, RIDGE = 5, 60, 1.0


def _design(*seed: int) -> tuple[Floats, Floats]:
    """Features of recorded rows [N, d] and of new points [50, d]."""
    draw = np.random.default_rng(seed)
    return draw.standard_normal((ROWS, FEATURES)), draw.standard_normal((50, FEATURES))


def width(rows: Floats, points: Floats) -> Floats:
    """[M] elliptical widths sqrt(phi' Lambda^-1 phi) of points [M, d], Lambda = ridge + sum of rows' outer products."""
    matrix = RIDGE * np.eye(FEATURES) + rows.T @ rows
    squared: Floats = (points * np.linalg.solve(matrix, points.T).T).sum(-1)
    return np.sqrt(squared)


def disagreement(rows: Floats, points: Floats, members: int, prior: bool, *seed: int) -> Floats:
    """[M] standard deviation of an ensemble, each member fitted to noise of its own, from a prior of its own."""
    draw = np.random.default_rng([*seed, members])
    noise = draw.standard_normal((members, ROWS))
    start = draw.standard_normal((members, FEATURES)) if prior else np.zeros((members, FEATURES))
    matrix = RIDGE * np.eye(FEATURES) + rows.T @ rows
    fitted = np.linalg.solve(matrix, rows.T @ noise.T + RIDGE * start.T)  # [d, members]
    spread: Floats = (points @ fitted).std(-1, ddof=1)
    return spread


def _rate(trial: Trial, prior: bool) -> Measured:
    """Slope of the log error of the disagreement, relative to the width, over the number of members."""
    sizes = np.array(trial.pick([10, 100, 1000], [10, 100, 1000, 10_000], [10, 100, 1000, 10_000, 100_000]))
    errors = np.zeros((trial.pick(30, 60, 100), len(sizes)))
    for i in range(len(errors)):
        rows, points = _design(trial.seed, i)
        rows[:, 0] *= 0.02  # one direction is hardly recorded: there the prior is what counts
        exact = width(rows, points)
        for j, size in enumerate(sizes):
            found = disagreement(rows, points, int(size), prior, trial.seed, i)
            errors[i, j] = np.abs(found / exact - 1.0).mean()
    x = np.log(sizes) - np.log(sizes).mean()
    logs = np.log(errors)
    draw = np.random.default_rng([trial.seed, 3])
    chosen = draw.integers(len(logs), size=(4000, len(logs)))
    shown = " ".join(f"{e:.3g}" for e in np.exp(logs.mean(0)))
    return resampled(float(logs.mean(0) @ x / (x @ x)), logs[chosen].mean(1) @ x / (x @ x), f"relative errors {shown}")


E1 = Check(
    id="E1",
    paper=PAPER,
    claim="The disagreement of a linear ensemble is the elliptical width, up to one over the root of its members.",
    setting="ridge regression with 5 features, 60 rows of which one direction is hardly covered; 10 to 10,000 members",
    assumptions=("linear features", "each member has noise and a prior of its own"),
    bound=-0.4,
    bound_says="the rate -1/2 of a standard deviation's error, with a margin of 0.1",
    provenance="practical",
    statistic=lambda trial: _rate(trial, True),
    control=Control("members without a prior: too sure where little is recorded", lambda trial: _rate(trial, False)),
)


def _shrinks(trial: Trial, forget: bool) -> Measured:
    """Largest growth of a width when rows are added (broken: when they replace old ones)."""
    growth = -np.inf
    for i in range(trial.pick(50, 300, 1000)):
        rows, points = _design(trial.seed, i, 1)
        extra = np.random.default_rng([trial.seed, i, 2]).standard_normal((10, FEATURES))
        more = np.concatenate([rows[10:] if forget else rows, extra])
        growth = max(growth, float((width(more, points) - width(rows, points)).max()))
    return exactly(growth)


E2 = Check(
    id="E2",
    paper=PAPER,
    claim="More data, also out of distribution, can only shrink every width of the pessimism.",
    setting="ridge regression with 5 features; 10 rows are added to 60; widths at 50 points",
    assumptions=("rows are added and none is dropped",),
    bound=1e-12,
    bound_says="rounding: Lambda grows in the positive semi-definite order",
    provenance="derived",
    statistic=lambda trial: _shrinks(trial, False),
    control=Control("new rows replace old ones", lambda trial: _shrinks(trial, True)),
)
