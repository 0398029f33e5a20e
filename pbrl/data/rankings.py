"""Rankings: lists of K segments in an order of preference, the best first."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import rng
from ..errors import InputError
from .checks import check_finite
from .dataset import Dataset
from .preferences import By, Pairs, Preferences
from .segments import Segments, check_count, scalar, window_rows, windows


@dataclass(frozen=True, eq=False)
class Rankings:
    """N lists of K segments.

    Attributes:
        segments: M segments.
        lists: [N, K] int64 indices into segments, the best of each list first.
        by: who said so.
    """

    segments: Segments
    lists: Tensor
    by: By

    @classmethod
    def by_score(cls, segments: Segments, lists: Tensor, score: Tensor, by: By) -> Rankings:
        """Lists [N, K] of segments put in order of their scores [M], higher being better; equal ones as they come.

        Raises:
            InputError: scores that are not finite, or not one per segment.
        """
        if score.shape != (len(segments),):
            raise InputError(f"score has shape {list(score.shape)}, expected [{len(segments)}], one per segment")
        check_finite(score, "score")
        order = score[lists].argsort(dim=-1, descending=True, stable=True)
        return cls(segments, lists.gather(-1, order), by)

    @classmethod
    def sample(cls, dataset: Dataset, count: int, size: int, length: int, key: Tensor) -> tuple[Segments, Tensor]:
        """Questions: ``count`` lists of ``size`` different windows of ``length`` steps, every such list equally likely.

        Returns:
            count * size segments, and the lists [count, size] of them.

        Raises:
            InputError: count or length below 1, a size below 2, or fewer windows than a list has.
        """
        check_count(count)
        if size < 2:
            raise InputError(f"lists have {size} segments, expected at least two")
        total = int(windows(dataset, length).sum())
        if total < size:
            raise InputError(f"{dataset.name} has {total} windows of {length} steps, expected at least {size} to rank")
        key, chosen = scalar(key), torch.zeros(count, 0, dtype=torch.int64, device=dataset.start.device)
        for place in range(size):
            drawn = rng.indices(rng.fold(key, "place", place), count, total - place).to(chosen.device)
            for earlier in chosen.sort(dim=1).values.unbind(1):
                drawn = drawn + (drawn >= earlier)  # the number among those that are left
            chosen = torch.cat([chosen, drawn[:, None]], dim=1)
        segments = Segments.at(dataset, window_rows(dataset, length, chosen.flatten()), length)
        return segments, torch.arange(count * size, device=chosen.device).reshape(count, size)

    def __len__(self) -> int:
        return len(self.lists)

    def check(self) -> None:
        """Raise InputError when one cannot learn from these: none, a list of one, or one with a segment twice."""
        if self.lists.dim() != 2 or not len(self) or self.lists.shape[1] < 2:
            found = f"lists have shape {list(self.lists.shape)}"
            raise InputError(f"{found}, expected [N, K]: at least one list of at least two segments")
        if self.lists.min() < 0 or self.lists.max() >= len(self.segments):
            raise InputError(f"lists point outside the {len(self.segments)} segments, expected 0 and above")
        sorted_lists = self.lists.sort(dim=-1).values
        twice = (sorted_lists[:, 1:] == sorted_lists[:, :-1]).any(-1)
        if twice.any():
            raise InputError(f"list {int(twice.nonzero()[0])} has a segment twice, expected different ones")

    def to(self, device: torch.device | str) -> Rankings:
        """The rankings on a device."""
        return Rankings(self.segments.to(device), self.lists.to(device), self.by)

    def to_preferences(self) -> Preferences:
        """All K (K - 1) / 2 pairs of every list as answered pairs, for learners that know pairs alone.

        The better segment comes first and second in turns.
        """
        pairs = torch.tensor(list(itertools.combinations(range(self.lists.shape[1]), 2)), device=self.lists.device)
        better_worse = self.lists[:, pairs].flatten(0, 1)  # [N K (K - 1) / 2, 2]
        turned = torch.arange(len(better_worse), device=self.lists.device) % 2 == 1
        first, second = torch.where(turned[:, None], better_worse.flip(1), better_worse).unbind(1)
        by = dataclasses.replace(self.by, settings={**self.by.settings, "list_size": self.lists.shape[1]})
        return Preferences(Pairs(self.segments, first, second), turned.float(), by)
