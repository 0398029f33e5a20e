"""``pbrl bench rewards`` measures what it says; no time is asserted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments.bench_rewards import RewardsOptions, rewards
from experiments.cli import main
from pbrl.nets import products


def test_each_agent_and_number_of_members_has_a_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = RewardsOptions(members=(1, 2), seconds=0.01, pairs=2, segment_length=3, json=tmp_path / "rows.json")
    rows = rewards(options)
    expected = [(name, members, 2) for name in ("reward_model", "cpl") for members in (1, 2)]
    assert [(row.agent, row.members, row.pairs) for row in rows] == expected
    for row in rows:
        assert row.loop_over_stack == pytest.approx(row.loop_ms / row.stack_ms, rel=0.05)
        assert row.loop_over_bf16 == pytest.approx(row.loop_ms / row.bf16_ms, rel=0.05)
    assert [row["agent"] for row in json.loads((tmp_path / "rows.json").read_text())] == [row.agent for row in rows]
    assert "loop / stack" in capsys.readouterr().out
    assert products.get_precision() == "float32", "the precision is put back"


def test_json_on_standard_output_is_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    words = "bench rewards --agents cpl --members 1 --seconds 0.01 --pairs 2 --segment-length 3 --json -"
    assert main(words.split()) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["agent"], row["compiled"]) == ("cpl", False)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--members 0", "--members"),
        ("--seconds 0", "--seconds"),
        ("--pairs 0", "--pairs"),
        ("--segment-length 0", "--segment-length"),
        ("--json /nowhere/rows.json", "/nowhere is not a folder"),
    ],
)
def test_bad_options_are_one_sentence(words: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "rewards", *words.split()]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
