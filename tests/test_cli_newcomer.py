"""What newcomers have stumbled over stays mended: silent starts, tables that mix, names, examples, empty lists."""

from __future__ import annotations

from pathlib import Path

import pytest

import agents
from experiments import cli
from experiments.command_line.arguments import parse
from experiments.command_line.commands import BENCHES
from experiments.command_line.options import LabelOptions, TrainOptions
from experiments.command_line.population import Population
from pbrl.errors import InputError
from pbrl.members import sweep
from tests.cli_cases import point_mass
from tests.test_report import make_run, outline


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert cli.main([*words]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_foresight_beyond_the_longest_episode(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "train",
        "oppo",
        "--dataset",
        str(point_mass(tmp_path)),
        "--updates",
        "2",
        "--context",
        "3",
        "--width",
        "4",
    ]
    words += ["--layers", "1", "--out", str(tmp_path), "--episodes", "0", "--batch-size", "4", "--threads", "1"]
    found = said(capsys, *words, "--foresight", "11")
    assert "foresight is 11, expected at most 10: the steps of the data's longest episode" in found
    assert cli.main([*words, "--foresight", "10"]) == 0


@pytest.mark.parametrize(
    ("users", "share", "who"), [(3, 0.1, "none"), (3, 0.9, "all"), (4, 0.1, "none"), (10, 0.05, "none")]
)
def test_a_share_of_users_that_is_nobody(users: int, share: float, who: str) -> None:
    with pytest.raises(InputError, match=f"label_opposed is {share:g} of {users} users, which makes {who} of them"):
        TrainOptions(label=LabelOptions(label_users=users, label_opposed=share))


@pytest.mark.parametrize(("users", "share"), [(3, 1 / 3), (3, 0.0), (3, 1.0), (4, 0.2), (1, 0.1)])
def test_a_share_of_users_that_is_somebody(users: int, share: float) -> None:
    kept = TrainOptions(label=LabelOptions(label_users=users, label_opposed=share)).label
    assert (kept.label_users, kept.label_opposed) == (users, share)


def test_more_steps_than_asked_for_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "ppo", "--env", "PointMass-v0", "--hidden", "4", "--epochs", "1", "--episodes", "0"]
    words += ["--environments", "2", "--steps", "20", "--threads", "1", "--out", str(tmp_path)]
    assert cli.main([*words, "--env-steps", "50"]) == 0
    note = "80 environment steps are taken for --env-steps 50: a rollout has 40"
    assert note in " ".join(capsys.readouterr().err.split())
    assert cli.main([*words, "--env-steps", "80"]) == 0
    assert "environment steps are taken" not in capsys.readouterr().err


def test_the_report_keeps_returns_of_different_simulators_apart(tmp_path: Path) -> None:
    import json

    runs = [make_run(tmp_path, name, "return") for name in ("one", "two", "three")]
    for run, env in zip(runs, ("Hopper-v5", "Reacher-v5", "Hopper-v5")):
        config = json.loads((run / "config.json").read_text())
        config["identity"]["simulator"] = {"env": env, "reference": None}
        (run / "config.json").write_text(json.dumps(config))
    assert cli.main(["report", *map(str, runs), "--out", str(tmp_path / "page.html")]) == 0
    text = (tmp_path / "page.md").read_text()
    comparison = text.split("All runs", 1)[1].split("## ", 1)[0]
    tables = [part for part in comparison.split("Interquartile mean over seeds") if "| run |" in part]
    assert len(tables) == 2
    assert ("| one |" in tables[0], "| three |" in tables[0], "| two |" in tables[0]) == (True, True, False)
    assert "| two |" in tables[1]
    assert "in Hopper-v5" in text
    assert "in Reacher-v5" in text
    outline((tmp_path / "page.html").read_text())


def test_label_files_are_called_by_their_names() -> None:
    def groups(*labels: str) -> list[str]:
        config = agents.find("bc").config()
        rows = tuple({"member": i, "seed": 0, "labels": label} for i, label in enumerate(labels))
        return Population(sweep(config, range(len(labels))), labels, rows).groups

    assert groups("/far/away/anna.hdf5", "/far/away/bert.npz") == ["anna.hdf5", "bert.npz"]
    assert groups("/far/anna.hdf5", "/near/anna.hdf5") == ["/far/anna.hdf5", "/near/anna.hdf5"]
    assert groups("/far/anna.hdf5", "partial_return") == ["anna.hdf5", "partial_return"]
    assert groups("/far/anna.hdf5") == ["anna.hdf5"]


@pytest.mark.parametrize("name", agents.names())
def test_the_example_of_an_agents_help_is_one_that_it_can_learn_by(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its options parse, and name a simulator for those who learn from what they do there."""
    assert cli.main(["train", name, "--help"]) == 0
    paragraph = capsys.readouterr().out.split(f"Example: pbrl train {name} ", 1)[1].split("\n\n", 1)[0]
    options = parse(agents.find(name), paragraph.split()).options
    plays = {"c_morl", "mdpo", "mdpo_off_policy", "pebble", "ppo", "sac", "spo", "td3"}
    if agents.find(name).family != "multi_objective":
        assert (options.data.dataset is None) == (name in plays)
    assert bool(options.online.env_steps) == (options.data.dataset is None)


def test_help_names_every_bench(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert all(name in text.split("bench", 1)[1] for name in BENCHES)


@pytest.mark.parametrize(
    "words",
    [
        "bench speed --agents",
        "bench preferences --tasks",
        "bench preferences --agents --quick",
        "bench human-labels --agents",
    ],
)
def test_a_list_without_values_is_not_all(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The word before is the option; without it everything would begin."""
    option = next(word for word in words.split() if word in ("--agents", "--tasks"))
    assert f"{option} is given without values" in said(capsys, *words.split())


def test_no_hidden_layer_is_a_value(tmp_path: Path) -> None:
    """An empty list means something where the default is not empty."""
    words = ["train", "bc", "--dataset", str(point_mass(tmp_path)), "--updates", "2", "--episodes", "0", "--hidden"]
    assert cli.main([*words, "--out", str(tmp_path), "--threads", "1"]) == 0
