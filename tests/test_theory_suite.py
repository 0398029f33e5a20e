"""Every small check holds and every control fails, at its smallest size; the larger ones at least run (slow)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from experiments import checks
from experiments.checks import human_models
from experiments.checks.reward_from_preferences import advantage_gradient
from pbrl.errors import InputError
from pbrl.theory.check import Trial, execute
from pbrl.theory.discounted import policy_iteration
from pbrl.theory.instances import dirichlet_discounted


@pytest.mark.parametrize("id", [check.id for check in checks.every().values() if check.size == "smoke"])
def test_a_small_check_holds_and_its_control_fails(id: str, tmp_path: Path) -> None:
    result = execute(checks.find(id), Trial(), tmp_path)
    assert (result.verdict, result.control) == ("PASS", "FAIL"), json.dumps(result.row())
    if result.figure is not None:
        assert result.figure.stat().st_size > 5_000
        assert result.caption


def test_the_suite_is_of_many_papers() -> None:
    found = checks.every().values()
    assert len(found) >= 60
    assert len({check.paper for check in found}) >= 15
    assert sum(check.figure is not None for check in found) >= 5


@pytest.mark.slow
@pytest.mark.parametrize("id", [check.id for check in checks.every().values() if check.size == "standard"])
def test_a_larger_check_holds_and_its_control_fails(id: str) -> None:
    result = execute(checks.find(id), Trial("standard"))
    assert (result.verdict, result.control) == ("PASS", "FAIL"), json.dumps(result.row())


def test_people_s_answers_are_read_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(human_models.FOLDER, str(tmp_path))
    missing = execute(checks.find("K6"), Trial())
    assert (missing.verdict, "expected the published array" in missing.note) == ("FAIL", True)
    draw = np.random.default_rng(0)
    gaps = draw.standard_normal((800, 3)) * 4.0
    regret = gaps[:, 0] - gaps[:, 1] + gaps[:, 2]
    label = (draw.random(800) < 1.0 / (1.0 + np.exp(-regret))).astype(np.float64)
    np.save(tmp_path / "Trained-Control_full_filtered_X.npy", gaps)
    np.save(tmp_path / "Trained-Control_full_filtered_Y.npy", label)
    found = execute(checks.find("K6"), Trial())
    assert found.verdict == "PASS"
    assert "800 pairs" in found.note
    np.save(tmp_path / "Trained-Control_full_filtered_X.npy", gaps[:, :2])
    with pytest.raises(InputError, match=r"expected \[N, 3\] and \[N\]"):
        human_models.human(tmp_path)


def test_the_gradient_of_optimal_advantages_is_exact() -> None:
    mdp = dirichlet_discounted(5, 3, 0.9, seed=4)
    draw = np.random.default_rng(0)
    weight, direction = draw.standard_normal((2, 5, 3))
    gradient = advantage_gradient(mdp, mdp.reward, weight)
    ends = [
        float((weight * policy_iteration(replace(mdp, reward=mdp.reward + step * direction)).advantage).sum())
        for step in (1e-5, -1e-5)
    ]
    assert float((gradient * direction).sum()) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-7)
