"""Windows: the last steps of a history, as an agent that remembers sees them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Windows:
    """A batch of windows of T steps that may end at any step of an episode; before its first step they are padded.

    Attributes:
        obs: [P, B, T, O], zeros where padded.
        act: [P, B, T, A], zeros where padded.
        present: [P, B, T] bool, False where padded, which is at the left. The last step is always there.
        rew: [P, B, T], zeros where padded; None for windows of labelled segments, which may have no rewards.
    """

    obs: Tensor
    act: Tensor
    present: Tensor
    rew: Tensor | None


@dataclass(frozen=True, eq=False)
class Histories:
    """What windows are cut from.

    Attributes:
        length: T, steps in a window.
        obs_size: O.
        act_size: A.
        steps: [N, at least O + A] rows of obs, act and whatever else.
        first: [N] int64 first row of each row's history: an episode, or a labelled segment.
    """

    length: int
    obs_size: int
    act_size: int
    steps: Tensor
    first: Tensor

    def cut(self, last: Tensor, rew: Tensor | None) -> Windows:
        """The windows that end at the rows ``last`` [P, B]; rew is [N], [P, N] with each member's own, or None."""
        row = last.unsqueeze(-1) + torch.arange(1 - self.length, 1, device=last.device)  # [P, B, T]
        begin = self.first[last].unsqueeze(-1)
        present = row >= begin
        row = torch.maximum(row, begin)
        step = self.steps.index_select(0, row.flatten()).reshape(*row.shape, -1) * present.unsqueeze(-1)
        obs, act = step[..., : self.obs_size], step[..., self.obs_size : self.obs_size + self.act_size]
        if rew is not None:
            rew = rew[row] if rew.dim() == 1 else rew.gather(1, row.flatten(1)).reshape(row.shape)
            rew = rew * present
        return Windows(obs, act, present, rew)
