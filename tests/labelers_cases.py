"""Small segments and pairs with known rewards, for the tests of labelers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pbrl import rng
from pbrl.data import Pairs, Segments

KEY = rng.keys([0])[0]


def segments_of(rew: Any, **fields: Any) -> Segments:
    """Segments with these rewards [M, T]; observations are the row numbers, so that all segments differ."""
    reward = torch.as_tensor(rew)
    count, length = reward.shape[:2]
    number = torch.arange(count * length, dtype=torch.float32).reshape(count, length, 1)
    given: dict[str, Any] = {
        "obs": number,
        "act": torch.zeros(count, length, 1),
        "rew": reward,
        "last_obs": number[:, -1] + 1,
        "term": torch.zeros(count, dtype=torch.bool),
        "row": torch.arange(count) * length,
        "source": "a test",
        "fingerprint": "0" * 16,
    }
    return Segments(**(given | fields))


def pairs_of(rew: Any, **fields: Any) -> Pairs:
    """Pairs (0, 1), (2, 3), ... of the segments with these rewards [2 N, T]."""
    segments = segments_of(rew, **fields)
    order = torch.arange(len(segments))
    return Pairs(segments, order[0::2], order[1::2])


def normal_pairs(count: int, length: int = 1) -> Pairs:
    """Pairs whose rewards have a standard deviation of sqrt(1/2), so that one-step differences are standard normal."""
    return pairs_of(normal(2 * count, length) * 0.5**0.5)


def normal(*shape: int) -> Tensor:
    """Standard normal numbers, always the same."""
    return rng.normal(rng.fold(KEY, "test"), *shape, dtype=torch.float64)
