"""Others' human labels as ``Preferences``: index files of Preference Transformer, DPPO and Uni-RLHF, and npz pairs.

Index files are three pickles: labels (0: the first is better, 1: the second, -1: equal), and for each the row at which
the first and the second segment begin. Rows count those of ``d4rl.qlearning_dataset``, which drops the rows at time
limits; a D4RL file is read in the same way here. Label i belongs to index i: Preference Transformer's files have more
indices than labels, and its loader (JaxPref/reward_transform.py at f71647b) takes both by the same number.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pbrl import data
from pbrl.data import By, Dataset, Pairs, Preferences, hdf5
from pbrl.data.files import SUFFIXES
from pbrl.data.segments import Segments
from pbrl.errors import InputError

from .safe_pickle import load_integers

_LENGTH = re.compile(r"(?:_q|_len_)(\d+)")


@dataclass(frozen=True)
class IndexFiles:
    """The three files."""

    labels: Path
    first: Path
    second: Path

    @property
    def segment_length(self) -> int | None:
        """Steps in a segment, where a name tells (..._q100, ..._len_200)."""
        found = {int(match[1]) for path in (self.first, self.second) if (match := _LENGTH.search(path.stem))}
        return found.pop() if len(found) == 1 else None


def find_files(places: Sequence[Path]) -> IndexFiles:
    """The three files among those that are named, or in the folder that is.

    Raises:
        InputError: not one of each.
    """
    for place in places:
        if not place.exists():
            raise InputError(
                f"{place}: no such file or folder, expected the index files of others' labels, or an .npz file"
            )
    folder = places[0] if len(places) == 1 and places[0].is_dir() else None
    paths = sorted(path for path in folder.iterdir() if path.is_file()) if folder is not None else list(places)
    kinds: dict[str, list[Path]] = {"labels": [], "first": [], "second": []}
    for path in paths:
        name = path.name.lower()
        if name.startswith("indices_2"):
            kinds["second"].append(path)
        elif name.startswith("indices"):
            kinds["first"].append(path)
        elif "label" in name and path.suffix in ("", ".pkl", ".pickle"):
            kinds["labels"].append(path)
    for kind, found in kinds.items():
        if len(found) != 1:
            wanted = {"labels": "label_human", "first": "indices_num100", "second": "indices_2_num100"}[kind]
            where = folder if folder is not None else ", ".join(map(str, places))
            told = " and ".join(path.name for path in found) or "none"
            raise InputError(f"{where}: the file of {kind} is {told}, expected exactly one such as {wanted}")
    return IndexFiles(kinds["labels"][0], kinds["first"][0], kinds["second"][0])


def load_rows(name: str) -> Dataset:
    """A data set whose rows are those that index files count: a D4RL file as d4rl itself reads it, or one of our own.

    Raises:
        InputError: unknown, damaged, or a D4RL file that was imported with other rows.
    """
    path = data.resolve(name)
    if path.suffix in SUFFIXES and not hdf5.is_own(path):
        return data.load_d4rl(path, compat=True)
    dataset = data.load(name)
    if dataset.info.get("format") == "d4rl" and not dataset.info.get("compat"):
        raise InputError(
            f"{name} was imported and keeps rows that d4rl drops, expected the D4RL file that was imported"
        )
    return dataset


def load_indices(
    files: IndexFiles, dataset: Dataset, length: int, *, who: str, question: str
) -> tuple[Preferences, int]:
    """The answers, and how many were left out as one of their segments leaves its episode.

    Raises:
        InputError: labels other than 0, 1 and -1, fewer indices than labels, rows that are not there, no pair that
            stays in its episodes, or ties alone.
    """
    labels, first, second = (load_integers(path) for path in (files.labels, files.first, files.second))
    wrong = np.flatnonzero(~np.isin(labels, (-1, 0, 1)))
    if len(wrong):
        place = int(wrong[0])
        raise InputError(f"{files.labels}: label {labels[place]} at {place}, expected 0 (first), 1 (second) or -1")
    for path, index in ((files.first, first), (files.second, second)):
        if len(index) < len(labels):
            raise InputError(f"{path}: {len(index)} rows for {len(labels)} labels, expected at least as many")
        index = index[: len(labels)]
        if len(index) and (index.min() < 0 or index.max() + length > len(dataset)):
            asked = f"rows {index.min()} to {index.max()}"
            raise InputError(
                f"{path}: {asked} of segments of {length} steps, expected those of {dataset.name}, 0 to {len(dataset)}"
            )
    rows = torch.from_numpy(np.stack([first[: len(labels)], second[: len(labels)]], axis=1))  # [N, 2]
    whole = _stays(dataset, rows, length).all(1)
    if not bool(whole.any()):
        raise InputError(
            f"{files.labels}: no pair of {len(labels)} stays inside episodes of {dataset.name}, expected some"
        )
    kept = rows[whole]
    segments = Segments.at(dataset, kept.flatten(), length)
    order = torch.arange(2 * len(kept))
    label = torch.where(torch.from_numpy(labels) < 0, 0.5, torch.from_numpy(labels).float())[whole].float()
    settings = {"files": [path.name for path in (files.labels, files.first, files.second)]}
    found = Preferences(Pairs(segments, order[::2], order[1::2]), label, By(who, question, "", settings))
    found.check()
    return found, int((~whole).sum())


def _stays(dataset: Dataset, rows: torch.Tensor, length: int) -> torch.Tensor:
    """Bool like ``rows``: the window of ``length`` steps from there ends in the episode in which it begins."""
    episode = torch.searchsorted(dataset.start, rows.contiguous(), right=True) - 1
    return rows + length <= (dataset.start + dataset.lengths)[episode]
