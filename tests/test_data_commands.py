"""``pbrl data``: what ships is not shadowed unawares, the list tells what can be used, errors and Ctrl-C what to do."""

from __future__ import annotations

from pathlib import Path

import h5py
import pytest

from experiments import cli
from experiments.datasets import make
from pbrl.data import directory, registry
from tests.cli_cases import point_mass

MIXED = "local/reacher/mixed-v1"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PBRL_DATA_DIR", str(tmp_path / "kept"))
    return tmp_path


def foreign(folder: Path) -> Path:
    """The small data set as D4RL would have it."""
    file = point_mass(folder)
    with h5py.File(file, "r+") as stored:
        del stored["metadata"]
    return file


@pytest.mark.parametrize("words", ["data make Reacher-v5 --tier mixed", f"data import FILE --name {MIXED}"])
def test_what_ships_is_not_shadowed_unawares(words: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words.replace("FILE", str(foreign(folder))).split()) == 2
    error = capsys.readouterr().err
    assert f"{MIXED} ships with the package, expected another --" in error
    assert "--overwrite to put yours before it" in error
    assert not directory().exists()


def test_what_ships_can_be_shadowed_on_purpose(folder: Path) -> None:
    assert cli.main(["data", "import", str(foreign(folder)), "--name", MIXED, "--overwrite"]) == 0
    assert registry.load(MIXED).info["imported_from"] == "small.hdf5"


def test_the_list_says_what_can_be_used_for_what(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "data make PointMass-v0 --tier random --steps 500 --behaviour-steps 2000"
    assert cli.main(words.split()) == 0
    assert cli.main(["data", "import", str(foreign(folder))]) == 0
    (directory() / "text.hdf5").write_text("no data")
    with h5py.File(directory() / "keyless.hdf5", "w") as file:
        file["observations"] = [[0.0]]
    (directory() / "hopper-medium-v2.hdf5").write_bytes((folder / "small.hdf5").read_bytes())
    capsys.readouterr()
    assert cli.main(["data", "list"]) == 0
    found = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()}
    kept = str(directory())
    assert found.pop("name") == ["environment", "transitions", "oracle", "kept", "in"]
    assert found == {
        MIXED: ["Reacher-v5", "20,000", "yes", "shipped"],
        "local/pointmass/random-v1": ["PointMass-v0", "500", "yes", f"{kept}/local/pointmass/random-v1.hdf5"],
        "imported/small": ["unknown", "120", "no", f"{kept}/imported/small.hdf5"],
        "hopper-medium-v2": ["Hopper-v4", "120", "no", f"{kept}/hopper-medium-v2.hdf5"],
        "text": ["cannot", "be", "read", "-", "-", f"{kept}/text.hdf5"],
        "keyless": ["cannot", "be", "read", "-", "-", f"{kept}/keyless.hdf5"],
    }


def test_a_step_limit_can_be_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = foreign(folder)
    with h5py.File(file, "r+") as stored:
        del stored["timeouts"], stored["next_observations"]
    assert cli.main(["data", "import", str(file)]) == 2
    assert "(pbrl data import FILE --horizon STEPS)" in capsys.readouterr().err
    assert cli.main(["data", "import", str(file), "--horizon", "1"]) == 2
    assert "horizon is 1, expected at least 2" in capsys.readouterr().err
    assert cli.main(["data", "import", str(file), "--horizon", "30"]) == 0
    data = registry.load("imported/small")
    assert (len(data.start), data.info["horizon"]) == (4, 30)
    (folder / "minari").mkdir()
    assert cli.main(["data", "import", str(folder / "minari"), "--horizon", "30"]) == 2
    assert "--horizon has no effect" in capsys.readouterr().err


def test_rows_with_both_flags_are_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = foreign(folder)
    assert cli.main(["data", "import", str(file)]) == 0
    assert "both flags" not in capsys.readouterr().out
    with h5py.File(file, "r+") as stored:
        stored["terminals"][[9, 19]] = True
    assert cli.main(["data", "import", str(file), "--overwrite"]) == 0
    assert capsys.readouterr().out.count("2 rows had both flags, taken as terminals") == 1
    data = registry.load("imported/small")
    assert data.term.nonzero().flatten().tolist() == [9, 19]
    assert not data.trunc[[9, 19]].any()


def test_a_behaviour_that_has_not_learned_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "data make PointMass-v0 --tier random --steps 500 --behaviour-steps 2000"
    assert cli.main(words.split()) == 0
    assert "warning" not in capsys.readouterr().err
    monkeypatch.setattr(make, "_standard_error", lambda values: 1e6)
    assert cli.main([*words.split(), "--overwrite"]) == 0
    (warning,) = capsys.readouterr().err.splitlines()
    assert "a score of 100 means little" in warning
