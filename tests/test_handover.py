"""Offline score, dip, last, best and regret, by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pbrl.errors import InputError
from pbrl.handover import handover


def test_by_hand() -> None:
    found = handover([0, 10, 40], [[50.0, 30.0, 90.0], [50.0, 60.0, 55.0]])
    assert found.offline.tolist() == [50.0, 50.0]
    assert found.dip.tolist() == [20.0, 0.0]
    assert found.last.tolist() == [90.0, 55.0]
    assert found.best.tolist() == [90.0, 60.0]
    # Gaps 50, 70, 10 and 50, 40, 45: trapezoids of 10 and 30 steps.
    assert found.regret.tolist() == [(600 + 1200) / 40, (450 + 1275) / 40]
    assert handover([0, 10], [[1.0, 1.0]], goal=3.0).regret.tolist() == [2.0]


def test_a_member_that_diverged_has_no_numbers() -> None:
    found = handover([0, 10, 40], [[50.0, np.nan, np.nan], [50.0, 60.0, 55.0]])
    for column in (found.dip, found.last, found.best, found.regret):
        assert np.isnan(column[0])
        assert np.isfinite(column[1])


@pytest.mark.parametrize(
    ("steps", "scores", "message"),
    [
        ([0, 10], [[1.0, 2.0, 3.0]], r"shape \[1, 3\] at \[2\]"),
        ([0, 10], [1.0, 2.0], r"shape \[2\]"),
        ([5, 10], [[1.0, 2.0]], "at 5 10 environment steps"),
        ([0, 10, 10], [[1.0, 2.0, 3.0]], "expected rising counts"),
        ([0], [[1.0]], "at 0 environment steps"),
        ([], [[]], "at no environment steps"),
    ],
)
def test_what_does_not_fit(steps: list[float], scores: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        handover(steps, scores)
