"""Our own store: D4RL's keys, so that D4RL's readers open it, with metadata and the behaviour's critic beside them.

    observations actions rewards terminals timeouts next_observations     gzip
    metadata        attributes: format, json ({"name", "env", "info"})
    oracle/...      optional network weights (any tree of arrays), attributes such as gamma and kind

A cut last episode has neither flag, as in D4RL's own files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .dataset import Dataset
from .files import about, new_hdf5, open_hdf5, read

FORMAT = "pbrl dataset 1"
KEYS = {
    "obs": "observations",
    "act": "actions",
    "rew": "rewards",
    "term": "terminals",
    "trunc": "timeouts",
    "next_obs": "next_observations",
}


def save(
    dataset: Dataset,
    path: str | Path,
    oracle: Mapping[str, NDArray[Any]] | None = None,
    oracle_attrs: Mapping[str, Any] | None = None,
) -> None:
    """Write a data set; the file takes its name only once it is complete.

    Args:
        dataset: what to store.
        path: ends in .hdf5 or .h5.
        oracle: weights by name, "/" making groups (``critic/0/weight``).
        oracle_attrs: numbers and words about the oracle (``gamma``, ``kind``).

    Raises:
        InputError: wrong suffix, unwritable, or metadata that JSON cannot hold.
    """
    path = Path(path)
    try:
        metadata = json.dumps({"name": dataset.name, "env": dataset.env, "info": dict(dataset.info)}, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{path}: info of {dataset.name} cannot be stored ({error}), expected what JSON can hold"
        ) from None
    with new_hdf5(path) as file:
        for field, key in KEYS.items():
            array = getattr(dataset, field).cpu().numpy()
            file.create_dataset(key, data=array, compression="gzip", shuffle=True)
        file.create_group("metadata").attrs.update(format=FORMAT, json=metadata)
        if oracle:
            group = file.create_group("oracle")
            group.attrs.update(oracle_attrs or {})
            for name, value in oracle.items():
                array = np.asarray(value)
                group.create_dataset(name, data=array, compression="gzip" if array.ndim else None)


def is_own(path: str | Path) -> bool:
    """Whether an HDF5 file has our metadata (a file from elsewhere, D4RL's for one, has not).

    Raises:
        InputError: not a readable HDF5 file.
    """
    with open_hdf5(Path(path)) as file:
        return "metadata" in file and "json" in file["metadata"].attrs


def load(path: str | Path) -> Dataset:
    """Read what ``save`` wrote.

    Raises:
        InputError: not an intact HDF5 file, a missing key, no metadata, or contents that a Dataset does not admit.
    """
    path = Path(path)
    with open_hdf5(path) as file:
        arrays = {field: read(file, key, path) for field, key in KEYS.items()}
        if "metadata" not in file or "json" not in file["metadata"].attrs:
            raise InputError(f"{path}: no metadata of ours, expected a file written by this library (D4RL: load_d4rl)")
        text = file["metadata"].attrs["json"]
    try:
        metadata = json.loads(text)
        name, env, info = str(metadata["name"]), str(metadata["env"]), dict(metadata["info"])
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path}: metadata is damaged, expected JSON with name, env and info") from None
    with about(path):
        return Dataset.from_arrays(**arrays, name=name, env=env, info=info)


def load_oracle(path: str | Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """The oracle's weights by name, and its attributes.

    Raises:
        InputError: not an intact HDF5 file, or one without an oracle.
    """
    path = Path(path)
    with open_hdf5(path) as file:
        if "oracle" not in file:
            raise InputError(f"{path}: has no oracle, expected a data set made with its behaviour's critic")
        group = file["oracle"]
        weights: dict[str, NDArray[Any]] = {}

        def collect(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                weights[name] = np.asarray(item[()])

        group.visititems(collect)
        attrs = {key: value.item() if isinstance(value, np.generic) else value for key, value in group.attrs.items()}
    return weights, attrs
