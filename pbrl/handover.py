"""What becomes of an agent that was trained on data when it goes online, from its evaluations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import InputError

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Handover:
    """Numbers of P members, in units of the score; NaN for a member whose evaluations are not all there.

    Attributes:
        offline: [P] score before the first step online.
        dip: [P] how far the worst evaluation online lies below that; 0 where none does.
        last: [P] score at the end.
        best: [P] best evaluation, the offline one included (which flatters).
        regret: [P] what is missing to ``goal`` on average over the steps online, straight lines between evaluations.
            Times the number of steps it is the cumulative regret.
    """

    offline: Floats
    dip: Floats
    last: Floats
    best: Floats
    regret: Floats


def handover(env_steps: ArrayLike, scores: ArrayLike, goal: float = 100.0) -> Handover:
    """The numbers of evaluations at ``env_steps`` [N], from 0 on, with ``scores`` [P, N].

    Raises:
        InputError: shapes that do not fit, counts that do not rise from 0, or no evaluation online.
    """
    steps, values = np.asarray(env_steps, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if values.ndim != 2 or steps.shape != values.shape[1:]:
        raise InputError(
            f"scores have shape {list(values.shape)} at {list(steps.shape)} counts, expected [P, N] and [N]"
        )
    if len(steps) < 2 or steps[0] != 0 or (np.diff(steps) <= 0).any():
        found = " ".join(f"{step:g}" for step in steps[:4])
        raise InputError(f"evaluations are at {found or 'no'} environment steps, expected rising counts from 0 on")
    offline = values[:, 0]
    return Handover(
        offline=offline,
        dip=np.maximum(offline - values[:, 1:].min(axis=1), 0.0),
        last=values[:, -1],
        best=values.max(axis=1),
        regret=np.trapezoid(goal - values, steps, axis=1) / steps[-1],
    )
