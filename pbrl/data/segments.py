"""Segments: windows of fixed length that never cross an episode's end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .. import rng
from ..errors import InputError
from .checks import bounded, check_shape, flags, floats, integers
from .dataset import Dataset
from .tensors import map_tensors


@dataclass(frozen=True, eq=False)
class Segments:
    """M windows of T consecutive transitions.

    Attributes:
        obs: [M, T, O].
        act: [M, T, A].
        rew: [M, T] true rewards ([M, T, K] for K > 1); None where the file has none.
        last_obs: [M, O] the state after the last action; None where unknown.
        term: [M] bool, the last step truly ended the episode, so that the value of last_obs is 0; None where unknown.
        row: [M] int64 first row in the data set, -1 when unknown.
        source: name of the data set or file.
        fingerprint: of its contents.
    """

    obs: Tensor
    act: Tensor
    rew: Tensor | None
    last_obs: Tensor | None
    term: Tensor | None
    row: Tensor
    source: str
    fingerprint: str

    @classmethod
    def from_arrays(
        cls,
        obs: Any,
        act: Any,
        rew: Any = None,
        last_obs: Any = None,
        term: Any = None,
        row: Any = None,
        *,
        source: str = "unnamed",
        fingerprint: str = "",
    ) -> Segments:
        """Segments from arrays (copied), after every check; see the class. Actions up to 1e-4 outside are clipped.

        Raises:
            InputError: NaN or infinity, a wrong number of axes or length, no steps or columns, actions outside [-1, 1],
                flags that are not bool, or rows that are no integers of at least -1.
        """
        obs, act = floats(obs, "obs", (3,)), floats(act, "act", (3,))
        for field, tensor in (("obs", obs), ("act", act)):
            if not all(tensor.shape[1:]):
                raise InputError(f"{field} has shape {list(tensor.shape)}, expected at least one step and one column")
        (count, length), act_size = obs.shape[:2], act.shape[2]
        check_shape(act, "act", (count, length, act_size))
        if rew is not None:
            rew = floats(rew, "rew", (2, 3))
            check_shape(rew, "rew", (count, length, *rew.shape[2:]))
        if last_obs is not None:
            last_obs = floats(last_obs, "last_obs", (2,))
            check_shape(last_obs, "last_obs", (count, obs.shape[2]))
        row = torch.full((count,), -1) if row is None else integers(row, "row", count)
        if (row < -1).any():
            raise InputError(f"row is {int(row.min())} at segment {int(row.argmin())}, expected -1 (unknown) or above")
        return cls(
            obs=obs,
            act=bounded(act),
            rew=rew,
            last_obs=last_obs,
            term=None if term is None else flags(term, "term", count),
            row=row,
            source=source,
            fingerprint=fingerprint,
        )

    @classmethod
    def sample(cls, dataset: Dataset, count: int, length: int, key: Tensor) -> Segments:
        """``count`` windows drawn independently (so one may come twice), every valid window equally likely.

        Args:
            dataset: where they come from.
            count: M, how many.
            length: T, steps in each.
            key: one key (see ``pbrl.rng``).

        Raises:
            InputError: count or length below 1, or a length that no episode has.
        """
        check_count(count)
        total = int(windows(dataset, length).sum())
        return cls.at(dataset, window_rows(dataset, length, rng.indices(scalar(key), count, total)), length)

    @classmethod
    def at(cls, dataset: Dataset, row: Tensor, length: int) -> Segments:
        """The windows that begin at the rows ``row`` [M].

        Raises:
            InputError: a window that leaves its episode or the data set.
        """
        row = torch.as_tensor(row, dtype=torch.int64, device=dataset.start.device)
        windows(dataset, length)  # for its checks of the length
        inside = (row >= 0) & (row < len(dataset))
        episode = torch.searchsorted(dataset.start, row.contiguous(), right=True) - 1
        end = (dataset.start + dataset.lengths)[episode.clamp(min=0)]
        crossing = ~inside | (row + length > end)
        if crossing.any():
            first = int(row[crossing.nonzero()[0]])
            raise InputError(
                f"a segment of {length} steps from row {first} leaves its episode, expected it to stay inside"
            )
        steps = row.unsqueeze(1) + torch.arange(length, device=row.device)  # [M, T]
        last = row + length - 1
        return cls(
            obs=dataset.obs[steps],
            act=dataset.act[steps],
            rew=dataset.rew[steps],
            last_obs=dataset.next_obs[last],
            term=dataset.term[last],
            row=row,
            source=dataset.name,
            fingerprint=dataset.fingerprint,
        )

    def __len__(self) -> int:
        return len(self.obs)

    @property
    def length(self) -> int:
        """T, steps in each segment."""
        return self.obs.shape[1]

    def take(self, index: Tensor) -> Segments:
        """The segments ``index`` ([k] indices or an [M] bool mask)."""
        return map_tensors(self, lambda tensor: tensor[index])

    def to(self, device: torch.device | str) -> Segments:
        """The segments on a device."""
        return map_tensors(self, lambda tensor: tensor.to(device))


def windows(dataset: Dataset, length: int) -> Tensor:
    """[episodes] int64 how many windows of ``length`` steps each episode has.

    Raises:
        InputError: a length below 1, or longer than every episode.
    """
    if length < 1:
        raise InputError(f"segment length is {length}, expected at least 1")
    count = (dataset.lengths - length + 1).clamp(min=0)
    if not count.any():
        longest = int(dataset.lengths.max())
        raise InputError(
            f"segment length is {length}, expected at most {longest}, the longest episode of {dataset.name}"
        )
    return count


def window_rows(dataset: Dataset, length: int, index: Tensor) -> Tensor:
    """First rows of the windows numbered ``index``, when all valid windows are numbered in order of their rows."""
    last = windows(dataset, length).cumsum(0)
    index = index.to(last.device)
    episode = torch.searchsorted(last, index.contiguous(), right=True)
    first = torch.where(episode > 0, last[episode - 1], 0)
    return dataset.start[episode] + index - first


def check_count(count: int) -> None:
    """Raise InputError unless ``count`` is positive."""
    if count < 1:
        raise InputError(f"count is {count}, expected at least 1")


def scalar(key: Tensor) -> Tensor:
    """The one key in ``key``.

    Raises:
        InputError: more or fewer than one.
    """
    if key.numel() != 1:
        raise InputError(f"key has shape {list(key.shape)}, expected one key")
    return key.reshape(())
