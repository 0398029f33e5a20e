"""Maximum likelihood of a linear reward from preferences between trajectories, with a ridge, by Newton's method."""

from __future__ import annotations

import numpy as np

from .mdps import Floats

STEPS, HALVINGS, TOLERANCE = 100, 40, 1e-8


def fit_logistic(inputs: Floats, label: Floats, ridge: float, start: Floats) -> Floats:
    """[D], the minimiser of sum_n log(1 + exp(-(2 label_n - 1) <x_n, theta>)) + ridge |theta|^2 / 2.

    The objective is strongly convex, and Newton's steps are halved until they descend, so that it ends at the one
    minimum from any ``start``.

    Args:
        inputs: [N, D] differences of features, second minus first.
        label: [N] 1 where the second was preferred, else 0.
        ridge: positive.
        start: [D].
    """
    signed = inputs * (2.0 * label - 1.0)[:, None]

    def objective(theta: Floats) -> float:
        return float(np.logaddexp(0.0, -(signed @ theta)).sum() + 0.5 * ridge * (theta @ theta))

    theta = start.copy()
    value = objective(theta)
    for _ in range(STEPS):
        wrong = 0.5 * (1.0 - np.tanh(0.5 * (signed @ theta)))  # probability of the other answer
        gradient = ridge * theta - wrong @ signed
        if np.abs(gradient).max() < TOLERANCE:
            break
        curvature = (signed * (wrong * (1.0 - wrong))[:, None]).T @ signed + ridge * np.eye(len(theta))
        step = np.linalg.solve(curvature, gradient)
        for halvings in range(HALVINGS):
            tried = theta - 0.5**halvings * step
            if (new := objective(tried)) <= value:
                break
        else:  # no descent left within rounding
            break
        theta, value = tried, new
    return theta
