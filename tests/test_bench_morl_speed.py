"""``pbrl bench morl-speed`` measures what it says; no time is asserted."""

from __future__ import annotations

import json

import pytest

from experiments.bench_morl_speed import SpeedOptions, speed
from experiments.cli import main


def test_both_play_and_learn(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")  # a narrow table breaks its titles
    row = speed(SpeedOptions(seconds=0.01, policies=2, seeds=2, environments=2, steps=8, batch_size=8, epochs=1))
    assert row.ratio == pytest.approx(row.stack_per_s / row.loop_per_s, rel=0.05)
    assert row.cpu_ratio == pytest.approx(row.loop_cpu_us / row.stack_cpu_us, rel=0.05)
    assert (row.env, row.policies, row.blocks) == ("mo-hopper-2obj-v5", 2, 1)
    assert "loop of PPO" in capsys.readouterr().out


def test_json_on_standard_output_is_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    words = (
        "bench morl-speed --env deep-sea-treasure-v0 --policies 1 --seeds 1 --environments 1 --steps 4 --batch-size 4"
    )
    assert main([*words.split(), "--epochs", "1", "--seconds", "0.01", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["env"] == "deep-sea-treasure-v0"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--policies 0", "--policies is 0"),
        ("--seeds 0", "--seeds is 0"),
        ("--seconds 0", "--seconds"),
        ("--env Hopper-v5", "expected a task of mo-gymnasium"),
        ("--batch-size 5000", "expected at most the 1024 steps of a rollout"),
        ("--json /nowhere/rows.json", "/nowhere is not a folder"),
    ],
)
def test_bad_options_are_one_sentence(words: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "morl-speed", *words.split()]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
