"""What a newcomer meets: quick studies work without data, whole ones say how to get theirs and in what time."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from experiments import side_by_side
from experiments.cli import main
from experiments.datasets import needed
from experiments.datasets.needed import find_data
from experiments.offline_study.settings import TASKS
from pbrl import data
from pbrl.errors import InputError


class Reached(Exception):
    """Training would begin."""


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with nothing in it."""
    folder = tmp_path / "data"
    monkeypatch.setenv("PBRL_DATA_DIR", str(folder))
    return folder


@pytest.mark.parametrize(
    ("study", "pieces"), [("offline", 8), ("offline-to-online", 6), ("preferences", 20), ("morl", 3)]
)
def test_quick_studies_reach_their_training_without_any_data(
    study: str, pieces: int, empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, runs = side_by_side.run, []

    def run(function: Callable[..., Any], names: Sequence[str], *rest: Any, **named: Any) -> Any:
        if function.__name__ == "score":  # of the preference study's segments: part of the way
            return real(function, names, *rest, **named)
        runs.append(list(names))
        raise Reached

    monkeypatch.setattr(side_by_side, "run", run)
    with pytest.raises(Reached):
        main(["bench", study, "--quick", "--out", str(tmp_path / "out"), "--processes", "1"])
    assert [len(names) for names in runs] == [pieces]
    assert not (empty / "behaviour").exists(), "a behaviour run takes hours"


@pytest.mark.slow
def test_the_quick_offline_study_from_nothing(empty: Path, tmp_path: Path) -> None:
    assert main(["bench", "offline", "--quick", "--out", str(tmp_path / "out")]) == 0
    with (tmp_path / "out" / "offline.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["dataset"] for row in rows} == {"local/reacher/mixed-v1"}
    assert len({row["agent"] for row in rows}) == 8
    assert not empty.exists()


@pytest.mark.parametrize("study", ["offline", "offline-to-online", "preferences"])
def test_whole_studies_say_how_to_get_their_data(
    study: str, empty: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["bench", study, "--out", str(out)]) == 2
    told = capsys.readouterr().err
    for env in ("Hopper-v5", "HalfCheetah-v5"):
        assert told.count(f"pbrl data make {env} --tier medium") == 1
    assert told.count("(about 2 hours on two cores)") == 2
    assert "--behaviour with a folder of finished runs (minutes)" in told
    assert not out.exists()
    assert not empty.exists(), "what is missing is told before anything is made"


def test_a_finished_behaviour_run_is_enough(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other tiers of a simulator are made on the way, from the run that one tier has left."""
    made: list[tuple[Any, ...]] = []
    monkeypatch.setattr(needed, "make_data", lambda *words, **_: made.append(words[:3]))
    tasks = [task for task in TASKS.values() if task.env == "Hopper-v5"]
    kept = empty / "behaviour" / "Hopper-v5" / "seed0"
    kept.mkdir(parents=True)
    (kept / "state-990000.zip").touch()
    with pytest.raises(InputError, match="are missing, expected a behaviour run in Hopper-v5 before"):
        find_data(tasks, None)
    assert not made
    (kept / "state-1000000.zip").touch()
    find_data(tasks, None)
    assert made == [("Hopper-v5", task.tier, 100_000) for task in tasks]
    assert "local/reacher/mixed-v1" in data.names(), "it ships with the package"
