"""Write a Dataset where Minari finds it, in the layout that ``pbrl.data.minari`` describes, without minari."""

from __future__ import annotations

import io
import json
import math
import os
import re
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import h5py
import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .dataset import Dataset
from .files import unwritable
from .minari import DATA, METADATA, root

VERSION = "0.5.3"  # of the layout; later releases of Minari read it
IDENTIFIER = re.compile(r"(?:[-\w]+/)*[-\w]+-v\d+")


def save_minari(
    dataset: Dataset,
    dataset_id: str,
    *,
    act_low: float | Sequence[float] = -1.0,
    act_high: float | Sequence[float] = 1.0,
) -> Path:
    """Write a data set, and return its folder, which appears only once it is complete.

    Args:
        dataset: one reward per step, and each row's successor the next row of its episode.
        dataset_id: ``(namespace/)name-v<k>``.
        act_low: [A] or one number, lower action bounds of the environment, to which actions are rescaled.
        act_high: upper bounds.

    Raises:
        InputError: a malformed id, one that exists, a data set that the layout cannot hold, or an unwritable folder.
    """
    if not IDENTIFIER.fullmatch(dataset_id):
        raise InputError(f"Minari id {dataset_id!r} is malformed, expected (namespace/)name-v<number>")
    folder = root() / dataset_id
    if folder.exists():
        raise InputError(f"{folder}: exists already, expected a new id")
    low, high = _bounds(act_low, act_high, dataset.act.shape[1])
    episodes = _episodes(dataset, low, high)
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        with unwritable(folder):
            image = io.BytesIO()  # as in files.new_hdf5
            with h5py.File(image, "w", track_order=True) as file:
                for number, arrays in enumerate(episodes):
                    group = file.create_group(f"episode_{number}")
                    group.attrs.update(id=number, total_steps=len(arrays["rewards"]))
                    for key, array in arrays.items():
                        group.create_dataset(key, data=array)
            (temporary / DATA).parent.mkdir(parents=True)
            (temporary / DATA).write_bytes(image.getbuffer())
            metadata = _metadata(dataset, dataset_id, low, high)
            metadata["dataset_size"] = round((temporary / DATA).stat().st_size / 1e6, 1)
            (temporary / METADATA).write_text(json.dumps(metadata, indent=1))
            os.rename(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _bounds(low: Any, high: Any, size: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """([A], [A]) float64 bounds."""
    bounds = []
    for name, given in (("act_low", low), ("act_high", high)):
        bound = np.asarray(given, np.float64)
        if bound.shape not in ((), (size,)) or not np.isfinite(bound).all():
            raise InputError(f"{name} is {given}, expected one finite number or {size}")
        bounds.append(np.broadcast_to(bound, (size,)))
    if not (bounds[0] < bounds[1]).all():
        raise InputError(f"act_low is {low} and act_high is {high}, expected low below high")
    return bounds[0], bounds[1]


def _episodes(dataset: Dataset, low: NDArray[Any], high: NDArray[Any]) -> list[dict[str, NDArray[Any]]]:
    """The arrays of each episode under Minari's keys."""
    obs, next_obs, rew, term, trunc = (
        getattr(dataset, field).cpu().numpy() for field in ("obs", "next_obs", "rew", "term", "trunc")
    )
    act = dataset.act.cpu().numpy()
    if not ((low == -1) & (high == 1)).all():
        act = (low + (act.astype(np.float64) + 1) * (high - low) / 2).astype(np.float32)
    if rew.ndim > 1:
        raise InputError(f"{dataset.name} has {rew.shape[1]} rewards per step, expected one for Minari")
    start = dataset.start.cpu().numpy()
    inner = np.setdiff1d(np.arange(len(dataset) - 1), start - 1)  # rows with a next row in their episode
    broken = inner[(next_obs[inner] != obs[inner + 1]).any(1)]
    if len(broken):
        raise InputError(
            f"next_obs at row {broken[0]} of {dataset.name} is not obs of row {broken[0] + 1}, expected for Minari"
        )
    return [
        {
            "observations": np.concatenate([obs[rows], next_obs[rows[-1:]]]),
            "actions": act[rows],
            "rewards": rew[rows],
            "terminations": term[rows],
            "truncations": trunc[rows],
        }
        for rows in np.split(np.arange(len(dataset)), start[1:])
    ]


def _metadata(dataset: Dataset, dataset_id: str, low: NDArray[Any], high: NDArray[Any]) -> dict[str, Any]:
    size = dataset.obs.shape[1]
    metadata: dict[str, Any] = {
        "dataset_id": dataset_id,
        "minari_version": VERSION,
        "data_format": "hdf5",
        "jpeg_encoding": False,
        "total_episodes": len(dataset.start),
        "total_steps": len(dataset),
        "observation_space": _space([-math.inf] * size, [math.inf] * size),
        "action_space": _space(low.tolist(), high.tolist()),
    }
    spec = gymnasium.registry.get(dataset.env)
    if spec is not None and isinstance(spec.entry_point, str):
        metadata["env_spec"] = spec.to_json()
    if "reference" in dataset.info:
        metadata["ref_min_score"], metadata["ref_max_score"] = map(float, dataset.info["reference"])
    return metadata


def _space(low: list[float], high: list[float]) -> str:
    """A float32 Box in Minari's JSON."""
    return json.dumps({"type": "Box", "dtype": "float32", "shape": [len(low)], "low": low, "high": high})
