"""Agents that learn from data go on in the simulator as the same object, from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments import cli
from pbrl.records.run import Run

from .cli_cases import point_mass
from .test_resume import only_run

AGENTS = ["td3_bc", "awac", "sac_n", "edac", "cql", "cal_ql", "a2pr"]
TINY = ["--hidden", "8", "--batch-size", "8", "--episodes", "1", "--threads", "1"]


@pytest.mark.parametrize("agent", AGENTS)
def test_it_goes_from_data_into_the_simulator(agent: str, tmp_path: Path) -> None:
    data = point_mass(tmp_path)
    words = [agent, "--dataset", str(data), "--updates", "6", "--env-steps", "120", "--updates-per-step", "0.05", *TINY]
    assert cli.main(["train", *words, "--out", str(tmp_path)]) == 0
    run = Run.open(only_run(tmp_path))
    saved = run.saved()
    assert saved is not None
    assert (saved.updates, saved.env_steps) == (12, 120)
    phases = {row["env_steps"] == "0" for row in run.metrics() if row["name"] == "loss_q"}
    assert phases == {True, False}
