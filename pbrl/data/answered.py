"""All answers of a set of preferences as one batch."""

from __future__ import annotations

import torch
from torch import Tensor

from .preferences import Preferences
from .source import LabelledPairs


def answered(preferences: Preferences, members: int, dtype: torch.dtype, device: str | torch.device) -> LabelledPairs:
    """Every pair once, in order, the same for all ``members``: obs [P, N, 2, T, O] and so on."""
    pairs = preferences.pairs

    def both(x: Tensor) -> Tensor:
        chosen = torch.stack([x[pairs.first], x[pairs.second]], dim=1).to(device, dtype)
        return chosen.expand(members, *chosen.shape)

    label = preferences.label.to(device, dtype).expand(members, -1)
    last, term = pairs.segments.last_obs, pairs.segments.term
    known = last is not None and term is not None
    return LabelledPairs(
        both(pairs.segments.obs),
        both(pairs.segments.act),
        label,
        both(last) if known and last is not None else None,
        both(term) if known and term is not None else None,
    )
