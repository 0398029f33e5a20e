"""Windows of the complete episodes that a buffer holds: where they are, and which of them are asked about."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .. import rng


@dataclass(frozen=True, eq=False)
class CollectedWindows:
    """M windows of T steps of each member, none of which crosses the end of an episode.

    Attributes:
        obs: [P, M, T, O].
        act: [P, M, T, A].
        rew: [P, M, T] what the environment paid.
        last_obs: [P, M, O] the state after the last action.
        term: [P, M] 0 or 1, the last step truly ended the episode.
        row: [P, M] int64 number of the window's first step among all steps that the member has taken.
    """

    obs: Tensor
    act: Tensor
    rew: Tensor
    last_obs: Tensor
    term: Tensor
    row: Tensor


def starts(end: Tensor, step: Tensor, length: int, recent: int | None) -> Tensor:
    """[P, T, N] bool: here begins a window of ``length`` steps of a complete (recent) episode.

    Args:
        end: [P, T, N] bool, the last step of an episode; T steps of N streams, oldest first.
        step: [P, T, N] int64, the number of a step in its episode.
        length: steps of a window.
        recent: only the last so many complete episodes of each member; None: all.
    """
    steps, streams = end.shape[1:]
    time = torch.arange(steps, device=end.device)[:, None].expand(steps, streams)
    never = torch.full_like(end, steps, dtype=torch.int64)
    # The time at which the episode of a step ends: the first end from there on.
    last = torch.where(end, time, never).flip(1).cummin(1).values.flip(1)
    whole = (last < steps) & (time - step >= 0)
    if recent is not None:
        rank = last * streams + torch.arange(streams, device=end.device)  # episodes in the order of their ends
        ends = torch.where(end & whole, rank, -1).flatten(1)
        kept = min(recent, ends.shape[1])
        whole &= rank >= ends.topk(kept, dim=1).values[:, -1:, None]
    return whole & (last - time >= length - 1)


def choose(valid: Tensor, keys: Tensor, count: int, *, apart: bool) -> Tensor:
    """[P, count] int64 places where ``valid`` [P, n] is set, each with the same probability, decided by keys [P].

    With ``apart``, places 2 i and 2 i + 1 differ wherever a member has two.
    """
    number = valid.sum(1)
    table = torch.argsort(valid.logical_not().to(torch.int8), dim=1, stable=True)  # the valid ones first
    if apart:
        chosen = rng.indices(keys, count // 2, number)
        other = rng.indices(rng.fold(keys, "other"), count // 2, (number - 1).clamp_min(0))
        chosen = torch.stack([chosen, (chosen + 1 + other) % number.clamp_min(1)[:, None]], dim=-1).flatten(1)
    else:
        chosen = rng.indices(keys, count, number)
    return table.gather(1, chosen)
