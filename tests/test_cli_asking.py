"""``pbrl train pebble --env-steps``: it asks, is interrupted and resumed, and says what it cannot do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from experiments import cli
from pbrl.records.run import Run

from .test_cli_online import refused, state, train
from .test_resume import only_run

SMALL = ["--hidden", "8", "--batch-size", "8", "--reward-hidden", "8", "--reward-batch-size", "4", "--threads", "1"]
LOOP = ["--updates-per-step", "0.1", "--fit-updates", "10", "--reset-updates", "5", "--episodes", "1", "--lr", "0.001"]
WHERE = ["pebble", "--env", "PointMass-v0", "--env-steps", "600", "--seed", "0", "1"]
PEBBLE = [*WHERE, "--queries", "20", "--label-mistake", "0.1", *SMALL, *LOOP]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    threads = torch.get_num_threads()
    folder = train(tmp_path_factory.mktemp("whole"), *PEBBLE)
    torch.set_num_threads(threads)
    return folder


def test_it_asks_in_sessions_and_records_them(whole: Path) -> None:
    run = Run.open(whole)
    steps, answered = run.series("answered")
    assert steps[-1] == 600
    assert answered[0][-1] == answered[1][-1] == 20
    assert sorted({count for count in answered[0] if count}) == list(range(2, 21, 2))  # ten sessions of two
    assert run.series("return")[0] == list(range(60, 601, 60))
    asking = run.config["identity"]["asking"]
    assert asking["by"] == ["partial_return(sum) by a teacher with mistake=0.1"]
    assert (asking["max_queries"], asking["session_queries"], asking["segment_length"]) == (20, 2, 25)
    assert (asking["random_steps"], asking["unsupervised_steps"], asking["query_every"]) == (30, 70, 27)


def test_an_interrupted_run_ends_as_one_that_never_was(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted in the midst of its sessions: all that was asked is in its checkpoint."""
    saves = Run.save

    def stop(self: Run, *parts: Any, **more: Any) -> None:
        saves(self, *parts, **more)
        if more["env_steps"] == 240:
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "save", stop)
    assert cli.main(["train", *PEBBLE, "--out", str(tmp_path)]) == 130
    monkeypatch.undo()
    folder = only_run(tmp_path)
    assert 0 < int(state(folder)["1 interview.questions.asked"].min()) < 20
    assert cli.main(["train", "--resume", str(folder)]) == 0
    ours, theirs = state(folder), state(whole)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert (folder / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--labels", "regret"], "labels 'regret' cannot answer in the loop, expected one of partial_return"),
        (["--labels", "partial_return:mean", "--label-skip", "0.1"], "--label-margin is missing"),
        (["--pairs", "5"], "--pairs has no effect: the agent asks its own questions"),
        (["--reward-updates", "5"], "--reward-updates has no effect: sessions fit the reward"),
        (["--query", "uniform", "--query-candidates", "5"], "--query-candidates has no effect"),
        (["--segment-length", "101"], "segment_length is 101, expected at most the 100 steps of an episode"),
        (["--unsupervised-steps", "600"], "the first questions come after 630 of 600 steps"),
        (["--queries", "0"], "queries is 0, expected at least 1"),
    ],
)
def test_what_cannot_work(words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, tmp_path, *WHERE, *SMALL, *words)
    assert message in line


def test_others_do_not_ask(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sac", "--env", "PointMass-v0", "--env-steps", "400", "--queries", "5"]
    assert "--queries has no effect: only an agent that asks" in refused(capsys, tmp_path, *words)
