"""``pbrl bench speed`` measures what it says; no time is asserted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import agents
from experiments.bench_speed import SpeedOptions, flops_of_update, last_stage, learn_from_data, random_data, speed
from experiments.cli import main
from pbrl.nets import products

SMALL = {"seconds": 0.01, "obs": 3, "act": 2, "transitions": 400, "segment_length": 4, "compile": "off"}


@pytest.mark.parametrize(
    "names",
    [("bc", "cpl", "iql"), pytest.param((), marks=pytest.mark.slow)],  # (): all agents, of the papers' sizes
    ids=["three", "all"],
)
def test_every_agent_has_a_row_for_each_number_of_members(
    names: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = SpeedOptions(**SMALL, agents=names, members=(1, 2), json=tmp_path / "rows.json")  # type: ignore[arg-type]
    rows = speed(options)
    expected = names or learn_from_data()
    assert [(row.agent, row.members) for row in rows] == [(name, p) for name in expected for p in (1, 2)]
    assert all(row.member_updates_per_s > 0 and row.floor_per_s > 0 and not row.compiled for row in rows)
    written = json.loads((tmp_path / "rows.json").read_text())
    assert [(row["agent"], row["members"], row["member_updates_per_s"]) for row in written] == [
        (row.agent, row.members, row.member_updates_per_s) for row in rows
    ]
    assert "bc: P = " in capsys.readouterr().out, "a number of members is recommended"


def test_json_on_standard_output_is_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    words = "bench speed --agents bc --members 1 --seconds 0.01 --transitions 400 --segment-length 4 --compile off"
    assert main([*words.split(), "--precision", "bf16", "--json", "-"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["agent"], row["members"], row["precision"]) == ("bc", 1, "bf16")
    assert products.get_precision() == "float32", "the precision is put back"


def test_counted_operations_of_cloning() -> None:
    """Forward, weight gradients, and gradients of the activations of all layers but the first."""
    dataset, preferences = random_data(SpeedOptions(**SMALL))  # type: ignore[arg-type]
    algorithm = agents.find("bc")
    first, others = 3 * 256, 256 * 256 + 256 * 2
    expected = 2 * 256 * (first + others + first + others + others)
    assert flops_of_update(algorithm, last_stage(algorithm), dataset, preferences) == expected


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--members 0", "--members"),
        ("--seconds 0", "--seconds"),
        ("--obs 0", "--obs"),
        ("--threads 0", "--threads"),
        ("--transitions 3", "--transitions"),
        ("--agents cpll", "did you mean cpl"),
        ("--json /nowhere/rows.json", "/nowhere is not a folder"),
    ],
)
def test_bad_options_are_one_sentence(words: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "speed", *words.split()]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert len(error.splitlines()) == 1
