"""Pairs of segments, and what somebody preferred of them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import rng
from ..errors import InputError
from .checks import check_probabilities, floats, integers
from .dataset import Dataset
from .files import about, new_hdf5, open_hdf5, read
from .leaks import split_groups, split_rows
from .segments import Segments, check_count, scalar, window_rows, windows

FORMAT = "pbrl preferences 1"


@dataclass(frozen=True, eq=False)
class Pairs:
    """N questions: is the second segment better than the first?

    Attributes:
        segments: M segments.
        first: [N] int64 index into segments.
        second: [N] int64 index into segments.
    """

    segments: Segments
    first: Tensor
    second: Tensor

    @classmethod
    def sample(cls, dataset: Dataset, count: int, length: int, key: Tensor) -> Pairs:
        """``count`` pairs of 2 * count segments, each used once; every pair of different windows is equally likely.

        Raises:
            InputError: count or length below 1, a length that no episode has, or only one window to choose from.
        """
        check_count(count)
        key = scalar(key)
        total = int(windows(dataset, length).sum())
        if total < 2:
            raise InputError(f"{dataset.name} has one window of {length} steps, expected at least two to compare")
        first = rng.indices(rng.fold(key, "first"), count, total)
        other = rng.indices(rng.fold(key, "second"), count, total - 1)
        chosen = torch.cat([first, (first + 1 + other) % total])
        segments = Segments.at(dataset, window_rows(dataset, length, chosen), length)
        order = torch.arange(2 * count, device=segments.row.device)
        return cls(segments, order[:count], order[count:])

    def __len__(self) -> int:
        return len(self.first)

    def take(self, index: Tensor) -> Pairs:
        """The pairs ``index`` ([k] indices or an [N] bool mask), with the segments that they use and no others."""
        first, second = self.first[index], self.second[index]
        used = torch.zeros(len(self.segments), dtype=torch.bool, device=first.device)
        used[first] = used[second] = True
        place = used.cumsum(0) - 1
        return Pairs(self.segments.take(used), place[first], place[second])

    def to(self, device: torch.device | str) -> Pairs:
        """The pairs on a device."""
        return Pairs(self.segments.to(device), self.first.to(device), self.second.to(device))


@dataclass(frozen=True)
class By:
    """Who said so.

    Attributes:
        who: a labeler with its settings, e.g. ``partial_return(sum, beta=inf)``, or an annotator.
        question: what was asked.
        when: ISO time, "" for synthetic labels.
        settings: whatever else tells where the labels come from; JSON must be able to hold it.
    """

    who: str
    question: str = ""
    when: str = ""
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Preferences:
    """Answered pairs.

    Attributes:
        pairs: the N questions.
        label: [N] float32 probability that the SECOND segment is preferred; 0.5 is a tie.
        by: who said so.
        user: [N] int64 which of several users answered each pair; None where it was one, or nobody knows.
    """

    pairs: Pairs
    label: Tensor
    by: By
    user: Tensor | None = None

    def __len__(self) -> int:
        return len(self.label)

    @property
    def decisive(self) -> Tensor:
        """[N] bool: not a tie."""
        return self.label != 0.5

    def check(self) -> None:
        """Raise InputError when one cannot learn from these: none, all ties, or a label that is no probability."""
        if not len(self):
            raise InputError(f"the preferences by {self.by.who} are empty, expected at least one pair")
        if self.label.shape != (len(self.pairs),):
            raise InputError(f"label has shape {list(self.label.shape)}, expected [{len(self.pairs)}], one per pair")
        check_probabilities(self.label)
        if self.user is not None:
            integers(self.user, "user", len(self))
        if not self.decisive.any():
            raise InputError(
                f"all {len(self)} preferences by {self.by.who} are ties, expected at least one that is not"
            )

    def take(self, index: Tensor) -> Preferences:
        """The answers ``index`` ([k] indices or an [N] bool mask), with the segments that they use and no others."""
        user = None if self.user is None else self.user[index]
        return Preferences(self.pairs.take(index), self.label[index], self.by, user)

    def to(self, device: torch.device | str) -> Preferences:
        """The preferences on a device."""
        user = None if self.user is None else self.user.to(device)
        return Preferences(self.pairs.to(device), self.label.to(device), self.by, user)

    def split(self, held_out: float, key: Tensor) -> tuple[Preferences, Preferences]:
        """Training and held-out preferences that share no row of the data set, hence no segment.

        Pairs are linked when their segments share a row. Whole groups of linked pairs are drawn at random into the
        held-out side (rule "groups": nothing is lost). Where the data are so densely covered that linked groups cannot
        make up half of what was asked for, blocks of rows are drawn instead, and pairs with one segment in a
        held-out block and one outside are dropped from both sides (rule "rows"). Both sides' ``by.settings["split"]``
        tell side, rule, share and how many pairs were dropped. Rows of unknown origin are told apart by contents.

        Args:
            held_out: share of the pairs to hold out, in (0, 1).
            key: one key.

        Raises:
            InputError: a share outside (0, 1), or a side that would be empty.
        """
        if not 0 < held_out < 1:
            raise InputError(f"held_out is {held_out:g}, expected a share above 0 and below 1")
        target = max(1, round(held_out * len(self)))
        key = scalar(key).cpu()
        held, rule = split_groups(self.pairs.to("cpu"), target, key), "groups"
        train = ~held
        if 2 * int(held.sum()) < target or not train.any():
            rule = "rows"
            train, held = split_rows(self.pairs.to("cpu"), target, key)
        for side, chosen in (("training", train), ("held-out", held)):
            if not chosen.any():
                expected = "expected more episodes or shorter segments"
                raise InputError(f"no {side} pair of {len(self)} is free of the other side's rows, {expected}")
        dropped = int((~train & ~held).sum())

        def part(chosen: Tensor, side: str) -> Preferences:
            how = {"side": side, "rule": rule, "held_out": held_out, "dropped": dropped}
            by = dataclasses.replace(self.by, settings={**self.by.settings, "split": how})
            return dataclasses.replace(self.take(chosen.to(self.label.device)), by=by)

        return part(train, "train"), part(held, "held_out")

    def save(self, path: str | Path) -> None:
        """Write an HDF5 file; it takes its name only once complete.

        Raises:
            InputError: wrong suffix, unwritable, or settings that JSON cannot hold.
        """
        path = Path(path)
        try:
            by = json.dumps(dataclasses.asdict(self.by))
        except TypeError as error:
            raise InputError(f"by.settings cannot be stored ({error}), expected what JSON can hold") from None
        with new_hdf5(path) as file:
            segments = self.pairs.segments
            file.attrs.update(format=FORMAT, by=by, source=segments.source, fingerprint=segments.fingerprint)
            arrays = {"label": self.label, "first": self.pairs.first, "second": self.pairs.second, "user": self.user}
            for field in ("obs", "act", "rew", "last_obs", "term", "row"):
                arrays[f"segments/{field}"] = getattr(segments, field)
            for key, tensor in arrays.items():
                if tensor is not None:
                    compression = "gzip" if tensor.numel() else None
                    file.create_dataset(key, data=tensor.cpu().numpy(), compression=compression)

    @classmethod
    def load(cls, path: str | Path) -> Preferences:
        """Read what ``save`` wrote.

        Raises:
            InputError: not such a file, damaged, a missing key, or arrays that no segments and answers can have.
        """
        path = Path(path)
        with open_hdf5(path) as file:
            if file.attrs.get("format") != FORMAT:
                raise InputError(f"{path}: not a file of preferences, expected the attribute format = {FORMAT!r}")
            stored = {key: read(file, key, path) for key in ("label", "first", "second")}
            stored |= {key: read(file, key, path) for key in ("user",) if key in file}
            group = file.get("segments", {})
            parts: dict[str, Any] = {field: read(file, f"segments/{field}", path) for field in ("obs", "act", "row")}
            parts |= {f: read(file, f"segments/{f}", path) for f in ("rew", "last_obs", "term") if f in group}
            origin = {name: str(file.attrs[name]) for name in ("source", "fingerprint")}
            try:
                by = By(**json.loads(file.attrs["by"]))
            except (ValueError, TypeError):
                raise InputError(
                    f"{path}: the attribute 'by' is damaged, expected JSON of who, question, when"
                ) from None
        with about(f"{path}: segments"):
            segments = Segments.from_arrays(**parts, **origin)
        with about(path):
            label = floats(stored["label"], "label", (1,))
            check_probabilities(label)
            first, second = (integers(stored[field], field, len(label)) for field in ("first", "second"))
            for field, index in (("first", first), ("second", second)):
                if len(index) and (index.min() < 0 or index.max() >= len(segments)):
                    raise InputError(f"{field} points outside the {len(segments)} segments, expected 0 and above")
            user = integers(stored["user"], "user", len(label)) if "user" in stored else None
        return cls(Pairs(segments, first, second), label, by, user)
