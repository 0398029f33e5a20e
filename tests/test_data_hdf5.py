import json
import os
import resource
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from pbrl.data import Dataset, hdf5, load_d4rl
from pbrl.errors import InputError

from .data_cases import arrays, dataset

FIELDS = ("obs", "act", "rew", "next_obs", "term", "trunc", "start")


def same(one: Dataset, two: Dataset) -> bool:
    return all(torch.equal(getattr(one, field), getattr(two, field)) for field in FIELDS)


@pytest.mark.parametrize("ends", ["tx.", "ttt", "xxx"])
def test_save_and_load(tmp_path: Path, ends: str) -> None:
    data = dataset(
        ends=ends, name="local/x/y-v1", env="X-v5", info={"horizon": 9, "reference": [0.0, 1.0], "seeds": [1]}
    )
    hdf5.save(data, tmp_path / "new" / "x.hdf5")
    loaded = hdf5.load(tmp_path / "new" / "x.hdf5")
    assert same(data, loaded)
    assert (loaded.name, loaded.env, loaded.info) == (data.name, data.env, data.info)
    assert loaded.fingerprint == data.fingerprint
    assert hdf5.is_own(tmp_path / "new" / "x.hdf5")
    assert os.listdir(tmp_path / "new") == ["x.hdf5"]


def test_several_objectives(tmp_path: Path) -> None:
    given = arrays()
    given["rew"] = np.stack([given["rew"]] * 2, 1)
    hdf5.save(Dataset.from_arrays(**given), tmp_path / "x.h5")
    assert hdf5.load(tmp_path / "x.h5").rew.shape == (12, 2)


def test_the_layout_is_that_of_d4rl(tmp_path: Path) -> None:
    path = tmp_path / "x.hdf5"
    hdf5.save(dataset(), path)
    with h5py.File(path) as file:
        keys = {"observations", "actions", "rewards", "terminals", "timeouts", "next_observations"}
        assert set(file) == keys | {"metadata"}
        assert {file[key].compression for key in keys} == {"gzip"}
        assert file["terminals"].dtype == bool
    assert same(load_d4rl(path), dataset())


def test_oracle(tmp_path: Path) -> None:
    path = tmp_path / "x.hdf5"
    weights = {"critic/0/weight": np.ones((2, 3, 4), np.float32), "log_alpha": np.array(0.5, np.float32)}
    hdf5.save(dataset(), path, weights, {"gamma": 0.99, "kind": "sac", "layers": 2})
    loaded, attrs = hdf5.load_oracle(path)
    assert loaded.keys() == weights.keys()
    for name, value in weights.items():
        np.testing.assert_array_equal(loaded[name], value)
        assert loaded[name].dtype == np.float32
    assert attrs == {"gamma": 0.99, "kind": "sac", "layers": 2}
    assert type(attrs["gamma"]) is float
    assert same(hdf5.load(path), dataset())


def test_no_oracle(tmp_path: Path) -> None:
    hdf5.save(dataset(), tmp_path / "x.hdf5")
    with pytest.raises(InputError, match="has no oracle"):
        hdf5.load_oracle(tmp_path / "x.hdf5")


def remove(key: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            del file[key]

    return change


def put(key: str, value: Any) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        remove(key)(path)
        with h5py.File(path, "r+") as file:
            file[key] = value

    return change


def metadata(text: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            file["metadata"].attrs["json"] = text

    return change


def group(key: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        remove(key)(path)
        with h5py.File(path, "r+") as file:
            file.create_group(key)

    return change


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:3000])


BROKEN: list[tuple[str, Callable[[Path], Any], str]] = [
    ("text", lambda path: path.write_text("hello"), "not an HDF5 file, whatever its name says"),
    ("empty file", lambda path: path.write_bytes(b""), "not an HDF5 file"),
    ("no file", Path.unlink, "no such file, expected an HDF5 file"),
    ("half", truncate, "unreadable HDF5 file"),
    ("no actions", remove("actions"), "key 'actions' is missing, found metadata, next_observations"),
    ("no successors", remove("next_observations"), "key 'next_observations' is missing"),
    ("group", group("rewards"), "key 'rewards' is a group, expected an array"),
    ("no metadata", remove("metadata"), "no metadata of ours"),
    ("damaged metadata", metadata("{"), "metadata is damaged"),
    ("poor metadata", metadata(json.dumps({"name": "x"})), "metadata is damaged"),
    ("nan", put("rewards", np.full(12, np.nan)), "rew is nan at row 0"),
    ("float flags", put("terminals", np.zeros(12)), "term has dtype float64, expected bool"),
]


@pytest.mark.parametrize(("change", "message"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_broken_files_are_told_in_one_sentence(tmp_path: Path, change: Callable[[Path], None], message: str) -> None:
    path = tmp_path / "x.hdf5"
    hdf5.save(dataset(), path)
    change(path)
    with pytest.raises(InputError, match=message) as caught:
        hdf5.load(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["x.npz", "x"])
def test_suffix(tmp_path: Path, name: str) -> None:
    for act in (lambda path: hdf5.save(dataset(), path), hdf5.load, hdf5.is_own, hdf5.load_oracle):
        with pytest.raises(InputError, match=r"the name ends in .*, expected \.hdf5 or \.h5"):
            act(tmp_path / name)


def test_what_json_cannot_hold(tmp_path: Path) -> None:
    for info in ({"a": object()}, {"a": float("nan")}):
        with pytest.raises(InputError, match="info of n cannot be stored"):
            hdf5.save(dataset(name="n", info=info), tmp_path / "x.hdf5")
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "x.hdf5"
    hdf5.save(dataset(), path)
    before = path.read_bytes()
    with pytest.raises((ValueError, TypeError)):
        hdf5.save(dataset(seed=1), path, {"a": np.ones(2), "a/b": np.ones(2)})  # an array cannot hold another
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["x.hdf5"]


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    """With a limit on the size of files in place of a full disk; on both, HDF5's own writer crashes the process."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(InputError, match=r"x\.hdf5: cannot be written \(File too large\), expected a writable"):
            hdf5.save(dataset((500,), "t"), tmp_path / "x.hdf5")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(InputError, match="Permission denied"):
        hdf5.save(dataset(), tmp_path / "x.hdf5")


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        hdf5.save(dataset(), tmp_path / "file" / "x.hdf5")
