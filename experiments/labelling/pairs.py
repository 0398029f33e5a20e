"""Which pairs of a data set are shown: from ``Pairs`` to what the store keeps, repeated and mirrored ones included."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pbrl import data, rng
from pbrl.data import Dataset, Pairs, Preferences
from pbrl.data.segments import Segments
from pbrl.errors import InputError

from .store import Pair, Segment, Store, pair_id, segment_id

GAP = 10
"""A pair comes again after so many others."""


def stored(segments: Segments, env: str) -> list[Segment]:
    """Segments as the store keeps them."""
    parts = {name: _bytes(getattr(segments, name)) for name in ("obs", "act", "rew", "last_obs")}
    term = None if segments.term is None else segments.term.tolist()
    found = []
    for i, row in enumerate(segments.row.tolist()):
        obs, act, rew, last_obs = (None if part is None else part[i] for part in parts.values())
        assert obs is not None
        assert act is not None
        name = segment_id(env, segments.length, obs, act)
        origin = (name, env, segments.source, segments.fingerprint, row, segments.length)
        found.append(Segment(*origin, obs, act, rew, last_obs, None if term is None else bool(term[i])))
    return found


def _bytes(tensor: Tensor | None) -> list[bytes] | None:
    if tensor is None:
        return None
    return [np.ascontiguousarray(part).tobytes() for part in tensor.to("cpu", torch.float32).numpy()]


def put(
    store: Store,
    pairs: Pairs,
    env: str,
    question: str,
    *,
    overlap: float = 0.0,
    repeat: float = 0.0,
    skip: int = 0,
    total: int | None = None,
) -> int:
    """Put pairs into the store, after ``skip`` others and as some of ``total``; how many are new.

    Args:
        overlap: share of the pairs that every annotator is asked; any other is for one annotator.
        repeat: share that an annotator is asked a second time, every other of them mirrored. They are spread evenly
            over the pairs, and come again ``GAP`` pairs later.

    Raises:
        InputError: segments of another length or size than those in the store.
    """
    segments = stored(pairs.segments, env)
    check_fits(store, pairs.segments)
    total = skip + len(pairs) if total is None else total
    questions = []
    for i, (first, second) in enumerate(zip(pairs.first.tolist(), pairs.second.tolist())):
        place, left, right = skip + i, segments[first].id, segments[second].id
        original = pair_id(left, right, question)
        questions.append(Pair(original, left, right, question, float(place), _falls(place, overlap)))
        if _falls(place, repeat) and place + GAP < total:
            mirrored = int((place + 1) * repeat) % 2 == 0
            shown = (right, left) if mirrored else (left, right)
            again = pair_id(*shown, question, turn=1)
            questions.append(Pair(again, *shown, question, place + GAP + 0.5, original=original, mirrored=mirrored))
    return store.add(segments, questions)


def check_fits(store: Store, segments: Segments) -> None:
    """Raise InputError where the store has segments of another length or size: a file of preferences has one."""
    known = store.any_segment()
    if known is None:
        return
    sizes = (segments.length, segments.obs.shape[-1], segments.act.shape[-1])
    kept = sizes_of(known)
    if sizes != kept:
        found = "{} steps with {} observations and {} actions"
        raise InputError(
            f"segments have {found.format(*sizes)}, expected {found.format(*kept)} as those in {store.path}"
        )


def sizes_of(segment: Segment) -> tuple[int, int, int]:
    """Steps, observations and actions of a segment of the store."""
    return segment.length, len(segment.obs) // 4 // segment.length, len(segment.act) // 4 // segment.length


def _falls(place: int, share: float) -> bool:
    """Whether this place is one of an even spread of this share of all."""
    return int((place + 1) * share + 1e-9) > int(place * share + 1e-9)


def uniform(dataset: Dataset, count: int, length: int, seed: int) -> Pairs:
    """``count`` pairs at random; more of them begin with the same ones."""
    return Pairs.sample(dataset, count, length, rng.fold(rng.keys([seed])[0], "label"))


def from_file(path: Path, dataset: Dataset, length: int | None, count: int | None) -> Pairs:
    """The pairs of a file: of preferences (.hdf5, .npz), whose answers are left out, or of rows (.csv).

    A .csv file has two whole numbers a line: the rows of the data set at which the two segments begin.

    Raises:
        InputError: not such a file, another kind of segments than the data set's, or a length that cannot be.
    """
    if path.suffix == ".csv":
        pairs = _of_rows(path, dataset, length)
    elif path.suffix in (".hdf5", ".h5", ".npz"):
        told = data.load_human(path) if path.suffix == ".npz" else Preferences.load(path)
        pairs = told.pairs
        if length is not None and length != pairs.segments.length:
            found = f"{path} has segments of {pairs.segments.length} steps"
            raise InputError(f"{found}, expected --segment-length {length} to be left out")
    else:
        raise InputError(f"{path}: the name ends in {path.suffix or 'nothing'!r}, expected .hdf5, .npz or .csv")
    sizes = (pairs.segments.obs.shape[-1], pairs.segments.act.shape[-1])
    expected = (dataset.obs.shape[1], dataset.act.shape[1])
    if sizes != expected:
        raise InputError(
            f"{path}: {sizes[0]} observations and {sizes[1]} actions, expected {expected} as {dataset.name}"
        )
    return pairs if count is None else pairs.take(torch.arange(min(count, len(pairs))))


def _of_rows(path: Path, dataset: Dataset, length: int | None) -> Pairs:
    if length is None:
        raise InputError(f"{path} has rows alone, expected --segment-length with it")
    try:
        lines = [line for line in csv.reader(path.read_text().splitlines()) if line]
        rows = torch.tensor([[int(cell) for cell in line] for line in lines], dtype=torch.int64)
    except (OSError, ValueError, RuntimeError, OverflowError):
        raise InputError(f"{path}: cannot be read, expected two whole numbers on each line, such as 0,250") from None
    if rows.dim() != 2 or rows.shape[1:] != (2,):
        raise InputError(f"{path}: no pairs, expected two whole numbers on each line, such as 0,250")
    segments = Segments.at(dataset, rows.flatten(), length)
    order = torch.arange(2 * len(rows))
    return Pairs(segments, order[::2], order[1::2])


def restored(segments: Sequence[Segment]) -> Segments:
    """Segments of the store as the library has them; what any of them lacks, all lack.

    Raises:
        InputError: segments of several lengths or sizes.
    """
    length = segments[0].length
    if any(
        (s.length, len(s.obs), len(s.act)) != (length, len(segments[0].obs), len(segments[0].act)) for s in segments
    ):
        raise InputError("segments have several lengths or sizes, expected one")

    def whole(name: str, *shape: int) -> Any:
        parts = [getattr(segment, name) for segment in segments]
        if any(part is None or len(part) != len(parts[0]) for part in parts):
            return None
        return np.stack([np.frombuffer(part, dtype=np.float32).reshape(*shape) for part in parts])

    rew = whole("rew", length, -1)
    terms = [segment.term for segment in segments]
    sources, prints = ({getattr(s, name) for s in segments} for name in ("source", "fingerprint"))
    return Segments.from_arrays(
        whole("obs", length, -1),
        whole("act", length, -1),
        rew[..., 0] if rew is not None and rew.shape[-1] == 1 else rew,
        whole("last_obs", -1),
        None if None in terms else np.array(terms, dtype=bool),
        np.array([segment.row for segment in segments]),
        source=sources.pop() if len(sources) == 1 else "several",
        fingerprint=prints.pop() if len(prints) == 1 else "",
    )
