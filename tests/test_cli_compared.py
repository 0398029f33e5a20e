"""``pbrl train spo``: labels for trajectories that are compared while it learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from experiments import cli
from pbrl.records.run import Run
from tests.test_cli_online import refused, state, train

SPO = ["spo", "--env", "PointMass1D-v0", "--env-steps", "400", "--steps", "20", "--environments", "4", "--queue", "4"]
TINY = ["--hidden", "8", "--batch-size", "20", "--epochs", "2", "--episodes", "2", "--threads", "1"]


def test_each_labels_members_are_compared_by_its_teacher(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("partial_return", "partial_return:discounted")
    words = [*SPO, *TINY, "--label-beta", "0.5", "--label-gamma", "0.9", "--seed", "0", "1"]
    run = Run.open(train(tmp_path, *words, "--labels", *names))
    assert [(row["labels"], row["seed"]) for row in run.members()] == [(n, s) for n in names for s in ("0", "1")]
    assert "last (at 400 environment steps)" in capsys.readouterr().out
    # Four trajectories meet each other once in each of five updates; and the budget is told.
    _, comparisons = run.series("comparisons")
    assert comparisons == [[6.0, 12.0, 18.0, 24.0, 30.0]] * 4
    # The same seeds, told different things, learn different things.
    _, losses = run.series("loss_pi")
    assert losses[0] != losses[2]
    told = run.config["identity"]["compared"]
    assert [each["by"] for each in told] == [
        "partial_return(sum) by a teacher with beta=0.5",
        "partial_return(discounted, gamma=0.9) by a teacher with beta=0.5",
    ]


def test_a_stopped_run_goes_on_with_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(tmp_path / "whole", *SPO, *TINY, "--opponents", "2")
    saves = []
    save = Run.save

    def stop(self: Run, *arguments: Any, **named: Any) -> None:
        save(self, *arguments, **named)
        saves.append(self.folder)
        if len(saves) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "save", stop)
    assert cli.main(["train", *SPO, *TINY, "--opponents", "2", "--out", str(tmp_path / "cut")]) != 0
    monkeypatch.undo()
    assert cli.main(["train", "--resume", str(saves[0])]) == 0
    ours, theirs = state(saves[0]), state(whole)
    assert ours.keys() == theirs.keys()
    assert all(ours[name].equal(theirs[name]) for name in ours)
    assert (saves[0] / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--labels", "regret"], "labels 'regret' cannot answer in the loop"),
        (["--labels", "none"], "spo needs labels"),
        (["--pairs", "30"], "--pairs has no effect on spo: what is compared are its own new trajectories"),
        (["--label-users", "3"], "--label-users has no effect on spo"),
        (["--label-gamma", "0.9"], "--label-gamma has no effect on labels partial_return"),
        (["--queue", "3"], "queue is 3 and environments 4"),
    ],
)
def test_misuse_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], part: str
) -> None:
    kept = SPO[:-2] if "--queue" in words else SPO
    assert part in refused(capsys, tmp_path, *kept, *words)
