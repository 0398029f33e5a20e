"""Rewards of a data set's steps that depend on the steps before them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from .dataset import Dataset

_STEPS = 1 << 16
"""Steps that are given to the reward at a time."""

HistoryReward = Callable[[Tensor, Tensor], Tensor]
"""obs [P, M, T, O], act [P, M, T, A] -> [P, M, T], each step's reward being a function of the steps up to it."""


@dataclass(frozen=True, eq=False)
class Cover:
    """Windows in which every row of a data set is read once.

    Attributes:
        rows: [W, T] int64 rows of each window; where it is longer than its episode, the last row again and again.
        window: [N] int64 the window that each row is read in, in ascending order.
        place: [N] int64 and at which of its steps.
    """

    rows: Tensor
    window: Tensor
    place: Tensor

    @classmethod
    def of(cls, dataset: Dataset, length: int, stride: int) -> Cover:
        """Windows of ``length`` steps; the first of an episode begins with it, each next one ``stride`` steps later.

        A row is read in the first window that has it, so that it is at place t of its episode's first window, or among
        the last ``stride`` steps of another one.

        Raises:
            InputError: a length below 1, or a stride that is not from 1 to length.
        """
        if length < 1:
            raise InputError(f"histories have {length} steps, expected at least 1")
        if not 1 <= stride <= length:
            raise InputError(f"stride is {stride}, expected 1 to {length}, the steps of a history")
        start, lengths = dataset.start, dataset.lengths
        beyond = (lengths - length).clamp(min=0)  # last first row of a window, counted from the episode's start
        count = 1 + (beyond + stride - 1) // stride
        episode = torch.repeat_interleave(count)
        first_window = count.cumsum(0) - count
        begin = ((torch.arange(len(episode), device=start.device) - first_window[episode]) * stride).minimum(
            beyond[episode]
        )
        last = (start + lengths - 1)[episode]
        steps = torch.arange(length, device=start.device)
        rows = ((start[episode] + begin).unsqueeze(1) + steps).minimum(last.unsqueeze(1))
        of_row = torch.repeat_interleave(lengths)
        offset = torch.arange(len(dataset), device=start.device) - start[of_row]
        window = first_window[of_row] + ((offset - length + stride) // stride).clamp(min=0)
        return cls(rows, window, offset - begin[window])


def relabel(
    reward: HistoryReward,
    dataset: Dataset,
    keys: Tensor,
    *,
    window: int,
    stride: int = 1,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Rewards of all rows of a data set by their histories: [P, N].

    A history never crosses an episode's start. It has the last ``window`` steps of its episode, or all of them where
    there are fewer; with a ``stride`` above 1 up to ``stride`` - 1 steps less, at that much less cost. Early steps are
    read at their places in one window from the episode's start, so that nothing needs padding at the left.

    Args:
        reward: looks back only: what lies after a step (or after an episode's end) must not change its reward.
        dataset: whose steps to reward.
        keys: [P] of the members, on their device.
        window: steps in a history.
        stride: steps between windows.
        dtype: of what the reward is given.

    Raises:
        InputError: a window below 1, or a stride that is not from 1 to window.
    """
    cover = Cover.of(dataset, window, stride)
    parts = []
    for first in range(0, len(cover.rows), max(1, _STEPS // window)):
        rows = cover.rows[first : first + max(1, _STEPS // window)]
        given = (x[rows].to(keys.device, dtype).expand(len(keys), -1, -1, -1) for x in (dataset.obs, dataset.act))
        found = reward(*given)  # [P, M, T]
        ends = torch.tensor([first, first + len(rows)], device=cover.window.device)
        low, high = torch.searchsorted(cover.window, ends).tolist()
        parts.append(found[:, cover.window[low:high] - first, cover.place[low:high]])
    return torch.cat(parts, dim=1)
