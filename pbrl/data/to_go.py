"""Returns to go: what an episode pays from each of its steps on, discounted.

    G_t = r_t + gamma G_{t+1},   after a true end 0, after a cut  mean(r) / (1 - gamma)

An episode that was cut is taken to go on paying what it paid on average. Where it has been failing all along (the same
reward at every step), that is the value of failing for ever.
"""

from __future__ import annotations

import torch
from torch import Tensor

_LEAST = 1e-4  # of 1 - gamma, where episodes that were cut go on


def after_cut(total: Tensor, steps: Tensor, gamma: Tensor) -> Tensor:
    """What comes after a cut: rewards [P, ...] summed over so many steps (alike), discounts [P, ...]."""
    return total / steps.clamp_min(1) / (1.0 - gamma).clamp_min(_LEAST)


def returns_to_go(rew: Tensor, lengths: Tensor, term: Tensor, gamma: Tensor) -> Tensor:
    """[P, N] G of every step of episodes that follow one another.

    Args:
        rew: [N] or [P, N].
        lengths: [episodes] int64 steps of each.
        term: [N] bool, true ends.
        gamma: [P] discounts.
    """
    rew = rew.expand(len(gamma), -1)
    lengths = lengths.to(rew.device)
    last = lengths.cumsum(0) - 1
    episode = torch.repeat_interleave(torch.arange(len(lengths), device=rew.device), lengths)
    total = rew.new_zeros(len(gamma), len(lengths)).index_add_(1, episode, rew)
    rate = gamma.unsqueeze(1)
    ahead = torch.where(term.to(rew.device)[last], 0.0, after_cut(total, lengths, rate))
    found = torch.empty_like(rew, memory_format=torch.contiguous_format)
    for back in range(int(lengths.max())):
        long = (lengths > back).nonzero().squeeze(1)
        row = last[long] - back
        ahead[:, long] = rew[:, row] + rate * ahead[:, long]
        found[:, row] = ahead[:, long]
    return found
