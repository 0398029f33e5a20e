"""Local Minari data sets (https://minari.farama.org, 0.5), read without minari.

    <root>/<namespace>/<name>-v<k>/data/metadata.json     spaces, environment, reference scores
    <root>/<namespace>/<name>-v<k>/data/main_data.hdf5    episode_<i>/{observations (T + 1 rows), actions, rewards,
                                                          terminations, truncations}

The root is ``$MINARI_DATASETS_PATH``, or ``~/.minari/datasets``. Only the HDF5 format with flat (Box) observations and
actions is read.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .dataset import Dataset
from .files import about, open_hdf5, read

DATA = Path("data", "main_data.hdf5")
METADATA = Path("data", "metadata.json")
EPISODE = re.compile(r"episode_(\d+)")


def root() -> Path:
    """The folder of local Minari data sets."""
    return Path(os.environ.get("MINARI_DATASETS_PATH") or Path.home() / ".minari" / "datasets")


def load_minari(path_or_id: str | Path) -> Dataset:
    """Read a Minari data set; its actions are rescaled from the action space's bounds to [-1, 1].

    Where a step is both terminal and truncated, terminal counts. An episode without either flag was cut: it counts as
    truncated, except for the last one.

    Args:
        path_or_id: its folder (the one that holds ``data/``), or an id such as ``mujoco/hopper/medium-v0``.

    Raises:
        InputError: no such data set, another storage format, spaces that are not flat boxes, an episode whose arrays do
            not fit together, or contents that a Dataset does not admit.
    """
    folder = Path(path_or_id) if (Path(path_or_id) / DATA).exists() else root() / path_or_id
    metadata = _metadata(folder / METADATA)
    with about(folder / METADATA):
        env_spec = _json_object(metadata, "env_spec") if "env_spec" in metadata else {}
        obs_size = len(_bounds(metadata, "observation_space")[0])
        low, high = _bounds(metadata, "action_space")
        if not (np.isfinite(low) & np.isfinite(high) & (low < high)).all():
            raise InputError(f"action_space is bounded by {low.tolist()} and {high.tolist()}, expected finite bounds")
    arrays = _episodes(folder / DATA, obs_size, len(low))
    if not ((low == -1) & (high == 1)).all():
        arrays["act"] = 2 * (arrays["act"] - low) / (high - low) - 1
    info: dict[str, Any] = {"format": "minari"}
    for key in ("dataset_id", "minari_version", "algorithm_name", "author", "code_permalink"):
        if key in metadata:
            info[key] = metadata[key]
    if env_spec.get("max_episode_steps"):
        info["horizon"] = env_spec["max_episode_steps"]
    if {"ref_min_score", "ref_max_score"} <= metadata.keys():
        info["reference"] = [metadata["ref_min_score"], metadata["ref_max_score"]]
    with about(folder):
        name = str(metadata.get("dataset_id", folder.name))
        return Dataset.from_arrays(**arrays, name=name, env=str(env_spec.get("id", "")), info=info)


def _episodes(path: Path, obs_size: int, act_size: int) -> dict[str, NDArray[Any]]:
    """The arguments of ``Dataset.from_arrays``, from all episodes in the order of their numbers."""
    parts: dict[str, list[NDArray[Any]]] = {key: [] for key in ("obs", "act", "rew", "term", "trunc", "next_obs")}
    with open_hdf5(path) as file:
        numbers = sorted(int(match[1]) for match in map(EPISODE.fullmatch, file) if match)
        if not numbers:
            raise InputError(f"{path}: has no episode_<number>, expected at least one episode")
        for number in numbers:
            group = file[f"episode_{number}"]
            if not isinstance(group, h5py.Group):
                raise InputError(f"{path}: episode_{number} is an array, expected a group")
            keys = ("observations", "actions", "rewards", "terminations", "truncations")
            obs, act, rew, term, trunc = (read(group, key, path) for key in keys)
            steps = rew.size
            expected = ((steps + 1, obs_size), (steps, act_size), (steps,), (steps,), (steps,))
            for key, array, shape in zip(keys, (obs, act, rew, term, trunc), expected):
                if array.shape != shape:
                    found = f"episode_{number}/{key} has shape {list(array.shape)}"
                    raise InputError(f"{path}: {found}, expected {list(shape)} as its rewards number {steps}")
            if not steps:
                continue
            term, trunc = term.astype(np.bool_), trunc.astype(np.bool_)
            trunc &= ~term
            if number != numbers[-1]:
                trunc[-1] |= not term[-1]
            for key, array in zip(parts, (obs[:-1], act, rew, term, trunc, obs[1:])):
                parts[key].append(array)
    if not parts["obs"]:
        raise InputError(f"{path}: all {len(numbers)} episodes are empty, expected at least one step")
    return {key: np.concatenate(arrays) for key, arrays in parts.items()}


def _metadata(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected the metadata of a Minari data set")
    try:
        metadata = json.loads(path.read_text())
    except (OSError, ValueError):
        metadata = None
    if not isinstance(metadata, dict):
        raise InputError(f"{path}: not readable as a JSON object, expected Minari's metadata")
    if metadata.get("data_format", "hdf5") != "hdf5":
        raise InputError(f"{path}: data_format is {metadata['data_format']!r}, expected 'hdf5'")
    return metadata


def _json_object(metadata: dict[str, Any], key: str) -> dict[str, Any]:
    """The object that the metadata hold as a string of JSON, as Minari nests them."""
    try:
        value = json.loads(metadata.get(key, ""))
    except (TypeError, ValueError):
        value = None
    if not isinstance(value, dict):
        raise InputError(f"{key} is missing or damaged, expected a string of JSON")
    return value


def _bounds(metadata: dict[str, Any], key: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """([n], [n]) lower and upper bounds of a Box with one axis."""
    space = _json_object(metadata, key)
    if space.get("type") != "Box" or len(space.get("shape", ())) != 1:
        raise InputError(f"{key} is a {space.get('type')} of shape {space.get('shape')}, expected a Box with one axis")
    size = space["shape"][0]
    low, high = (np.asarray(space.get(bound, ()), np.float64) for bound in ("low", "high"))
    if low.shape != (size,) or high.shape != (size,):
        raise InputError(f"{key} has {low.size} lower and {high.size} upper bounds, expected {size} of each")
    return low, high
