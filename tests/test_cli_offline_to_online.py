"""``pbrl train`` of agents that go from data into the simulator: the same object, also when stopped and resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from experiments import cli
from pbrl.records.run import Run

from .cli_cases import point_mass
from .test_cli_online import TINY, check, state, train
from .test_resume import only_run

REPLAY = ["--updates-per-step", "0.1"]
UNI_O4 = [
    *("--v-hidden", "8", "--q-hidden", "8", "--model-hidden", "8", "--models", "2", "--elites", "2"),
    *("--fitting-updates", "8", "--select-every", "3", "--model-steps", "4", "--steps", "10", "--epochs", "1"),
]
AGENTS = {
    "fam_o2o": (TINY, REPLAY),
    "ro2o": ([*TINY, "--critics", "2", "--perturbations", "2"], [*REPLAY, "--replay", "empty"]),
    "uni_o4": ([*TINY, *UNI_O4], []),
}
"""Settings of each, on data and what it takes beside them in the simulator."""
UPDATES, ENV_STEPS = 20, 200


@pytest.mark.parametrize("name", AGENTS)
def test_the_same_object_goes_online_and_is_resumed_to_the_bit(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, online = AGENTS[name]
    data = str(point_mass(tmp_path))
    words = [name, "--dataset", data, "--updates", str(UPDATES), "--seed", "0", "1", *settings]
    phases = [*words, "--env-steps", str(ENV_STEPS), *online]
    threads = torch.get_num_threads()
    offline = Run.open(train(tmp_path / "offline", *words))
    whole = train(tmp_path / "whole", *phases)
    assert [row for row in Run.open(whole).metrics() if row["env_steps"] == "0"] == offline.metrics()
    steps, scores = Run.open(whole).series("score")
    assert (steps[0], steps[-1] >= ENV_STEPS) == (0, True)
    assert [row[0] for row in scores] == [row[-1] for row in offline.series("score")[1]]

    save = Run.save

    def stops(self: Run, *given: Any, **more: Any) -> None:
        save(self, *given, **more)
        if more.get("env_steps", 0) >= ENV_STEPS // 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Run, "save", stops)
        assert cli.main(["train", *phases, "--out", str(tmp_path / "stopped")]) != 0
    stopped = only_run(tmp_path / "stopped")
    saved = Run.open(stopped).saved()
    assert saved is not None
    assert 0 < saved.env_steps < steps[-1]
    assert cli.main(["train", "--resume", str(stopped)]) == 0
    torch.set_num_threads(threads)
    ours, theirs = state(stopped), state(whole)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert (stopped / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()


def test_who_begins_with_data_and_keeps_no_replay_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["uni_o4", "--env-steps", "100", *TINY, *UNI_O4]
    check(capsys, tmp_path, [*words, "--env", "PointMass-v0"], "uni_o4 begins with data", "expected --dataset")
    data = ["--dataset", str(point_mass(tmp_path)), "--updates", "20"]
    check(capsys, tmp_path, [*words, *data, "--replay", "empty"], "--replay has no effect", "uni_o4 keeps no replay")
