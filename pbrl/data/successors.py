"""The steps of labelled pairs together with their successors, for learners of values."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import rng
from .source import LabelledPairs


def successors(pairs: LabelledPairs, size: int, key: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """At most ``size`` steps of each pair that have a successor, from a random offset, the same for both segments.

    Returns:
        obs [P, B, 2, S, O], act [P, B, 2, S, A], next_obs [P, B, 2, S, O], term [P, B, 2, S].
    """
    states = pairs.obs if pairs.last_obs is None else torch.cat([pairs.obs, pairs.last_obs.unsqueeze(3)], dim=3)
    length = states.shape[3] - 1
    size = min(size, length)
    offset = rng.indices(key, states.shape[1], length - size + 1)  # [P, B]
    index = (
        offset[:, :, None, None, None] + torch.arange(size + 1, device=offset.device)[:, None]
    )  # [P, B, 1, S + 1, 1]
    taken = states.gather(3, index.expand(-1, -1, 2, -1, states.shape[-1]))
    act = pairs.act.gather(3, index[:, :, :, :-1].expand(-1, -1, 2, -1, pairs.act.shape[-1]))
    term = torch.zeros_like(act[..., 0])
    if pairs.term is not None:
        term[..., -1] = pairs.term * (offset + size == length).unsqueeze(-1)
    return taken[..., :-1, :], act, taken[..., 1:, :], term
