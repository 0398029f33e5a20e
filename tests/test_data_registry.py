from pathlib import Path

import h5py
import pytest

from pbrl.data import destination, directory, hdf5, load, names, registry, resolve, save_minari
from pbrl.errors import InputError

from .data_cases import dataset


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PBRL_DATA_DIR", str(tmp_path / "kept"))
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setattr(registry, "SHIPPED", tmp_path / "shipped")
    return tmp_path


def test_directory(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert directory() == folders / "kept"
    monkeypatch.delenv("PBRL_DATA_DIR")
    monkeypatch.setenv("HOME", str(folders))
    assert directory() == folders / ".pbrl" / "datasets"


def test_by_name(folders: Path) -> None:
    assert names() == []
    name = "local/hopper/medium-replay-v1"
    assert destination(name) == folders / "kept/local/hopper/medium-replay-v1.hdf5"
    hdf5.save(dataset(name=name), destination(name))
    hdf5.save(dataset(seed=1), folders / "shipped/reacher-mixed-v1.hdf5")
    (folders / "kept/local/hopper/.medium-v1.hdf5.1234.partial").touch()
    assert names() == [name, "local/reacher/mixed-v1"]
    assert load(name).name == name
    assert load("local/reacher/mixed-v1").fingerprint == dataset(seed=1).fingerprint
    assert resolve("local/reacher/mixed-v1") == folders / "shipped/reacher-mixed-v1.hdf5"


def test_a_file_kept_here_goes_before_a_shipped_one(folders: Path) -> None:
    hdf5.save(dataset(seed=1), folders / "shipped/reacher-mixed-v1.hdf5")
    hdf5.save(dataset(seed=2), destination("local/reacher/mixed-v1"))
    assert names() == ["local/reacher/mixed-v1"]
    assert load("local/reacher/mixed-v1").fingerprint == dataset(seed=2).fingerprint


def test_by_path(folders: Path) -> None:
    hdf5.save(dataset(), folders / "own.hdf5")
    hdf5.save(dataset(), folders / "hopper_medium-v2.hdf5")
    with h5py.File(folders / "hopper_medium-v2.hdf5", "r+") as file:
        del file["metadata"]
    minari = save_minari(dataset(), "test-v0")
    expected = {
        folders / "own.hdf5": "unnamed",
        folders / "hopper_medium-v2.hdf5": "hopper-medium-v2",
        minari: "test-v0",
    }
    for path, name in expected.items():
        for given in (path, str(path)):
            data = load(given)
            assert (data.name, data.fingerprint) == (name, dataset().fingerprint)


@pytest.mark.parametrize("name", ["local/hopper/medium-v1", "local/reacher", "", "../kept/x", "~"])
def test_unknown_names_are_told_what_there_is(folders: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"unknown data set .*, available: none yet; make more with: pbrl data make"):
        load(name)
    hdf5.save(dataset(), destination("local/a/b-v1"))
    hdf5.save(dataset(), folders / "shipped/c-d-v1.hdf5")
    with pytest.raises(InputError, match=r"available: local/a/b-v1, local/c/d-v1; make more with: pbrl data make"):
        load(name)


def test_a_path_that_does_not_exist(folders: Path) -> None:
    with pytest.raises(InputError, match=r"x\.hdf5: no such file, expected a data set"):
        load(folders / "x.hdf5")


def test_a_file_that_is_something_else(folders: Path) -> None:
    (folders / "x.txt").write_text("x")
    with pytest.raises(InputError, match=r"the name ends in '\.txt'"):
        load(folders / "x.txt")


@pytest.mark.parametrize("name", ["../x", "/x", "a//b", "", "a b", "local/../../x"])
def test_destination_stays_in_the_folder(name: str) -> None:
    with pytest.raises(InputError, match=r"data set name .* is malformed"):
        destination(name)


def test_the_shipped_folder_is_in_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert Path(registry.__file__).parent / "shipped" == registry.SHIPPED
