"""Help texts show no inner workings: no empty defaults, no unions of types."""

from __future__ import annotations

import pytest

from experiments import cli

COMMANDS = (
    "report",
    "bench speed",
    "bench preferences",
    "bench human-labels",
    "demo",
    "data make",
    "data import",
    "data list",
    "data describe",
    "train cpl",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_in_words(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*command.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert f"usage: pbrl {command}" in text
    for inner in ("(default: )", "(default: None)", "{None}", "Form"):
        assert inner not in " ".join(text.replace("│", " ").split())
