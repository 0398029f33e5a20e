"""Windows: the last steps of a history, as an agent that remembers sees them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .dataset import Dataset


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


@dataclass(frozen=True, eq=False)
class Compared:
    """Segments that were compared, with padding.

    Attributes:
        obs: [P, B, 2, T, O].
        act: [P, B, 2, T, A].
        present: [P, B, 2, T] bool, False where padded.
        label: [P, B] probability that the second is preferred.
    """

    obs: Tensor
    act: Tensor
    present: Tensor
    label: Tensor


def halves(windows: Windows) -> Compared:
    """The first half of a batch against the second: preferred is what has the larger ``rew`` at its first step."""
    obs, act, present = (x.unflatten(1, (2, -1)).transpose(1, 2) for x in (windows.obs, windows.act, windows.present))
    assert windows.rew is not None  # whoever compares by reward has asked for a data set
    begin = (~windows.present).sum(-1, keepdim=True)  # [P, 2 B, 1]
    first, second = windows.rew.gather(-1, begin).squeeze(-1).chunk(2, dim=1)
    return Compared(obs, act, present, 0.5 + 0.5 * torch.sign(second - first))


def returns_ahead(rew: Tensor, dataset: Dataset, steps: int) -> Tensor:
    """Sums of rewards from each row on, over ``steps`` steps or to the episode's end: rew [..., N] -> [..., N]."""
    total = torch.cat([rew.new_zeros(*rew.shape[:-1], 1, dtype=torch.float64), rew.double().cumsum(-1)], dim=-1)
    row = torch.arange(len(dataset), device=rew.device)
    end = (dataset.start + dataset.lengths).repeat_interleave(dataset.lengths).to(rew.device)
    return (total[..., torch.minimum(row + steps, end)] - total[..., row]).to(rew.dtype)
