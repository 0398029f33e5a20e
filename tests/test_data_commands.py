"""``pbrl data``: what ships is not shadowed unawares, the list tells what can be used, errors and Ctrl-C what to do."""

from __future__ import annotations

from pathlib import Path

import h5py
import pytest

from experiments import cli
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
