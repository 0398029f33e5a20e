"""Stored answers, such as a human's, as a labeler: it knows what it was told and skips the rest."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from statistics import fmean

import torch
from torch import Tensor

from ..data.preferences import Pairs, Preferences

Content = tuple[bytes, bytes]


def contents(pairs: Pairs) -> list[Content]:
    """For each pair, what tells it from others wherever it is stored: hashes of its first and its second segment.

    A hash is that of what an annotator saw, the observations and actions, as float32.
    """
    segments = pairs.segments
    seen = torch.cat([segments.obs, segments.act], dim=-1).to("cpu", torch.float32).contiguous().numpy()
    names = [blake2b(segment.tobytes(), digest_size=16).digest() for segment in seen]
    return [(names[first], names[second]) for first, second in zip(pairs.first.tolist(), pairs.second.tolist())]


@dataclass(frozen=True)
class Stored:
    """The answers of a preference file, found again by the contents of the two segments, in either order.

    A pair that was answered several times gets the mean of its answers; a pair without an answer is skipped.
    """

    preferences: Preferences

    @cached_property
    def _answers(self) -> dict[Content, float]:
        told: dict[Content, list[float]] = {}
        for (first, second), label in zip(contents(self.preferences.pairs), self.preferences.label.tolist()):
            told.setdefault((first, second), []).append(label)
            told.setdefault((second, first), []).append(1 - label)
        return {pair: fmean(labels) for pair, labels in told.items()}

    def __call__(self, pairs: Pairs, key: Tensor) -> Preferences:  # noqa: ARG002 - nothing is left to chance
        """The stored answers to ``pairs``; ``by`` is that of the file, with what was asked and skipped now."""
        found = [self._answers.get(pair) for pair in contents(pairs)]
        kept = torch.tensor([label is not None for label in found], dtype=torch.bool, device=pairs.first.device)
        label = torch.tensor([p2 for p2 in found if p2 is not None], dtype=torch.float32, device=pairs.first.device)
        counts = {"asked": len(found), "skipped": found.count(None)}
        return Preferences(
            pairs=pairs if bool(kept.all()) else pairs.take(kept),
            label=label,
            by=dataclasses.replace(self.preferences.by, settings={**self.preferences.by.settings, **counts}),
        )
