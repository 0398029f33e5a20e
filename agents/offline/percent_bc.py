"""Percentile BC: behaviour cloning of the episodes with the highest returns.

The "10 % BC" baseline of Chen et al. 2021 (Decision Transformer). It needs the true reward, so beside preference
learners it is a reference, not a competitor.

Deviations:
- Episodes are taken from the best downwards until they hold ``percent`` of the *transitions* (at least one episode), so
  that the share of data does not depend on how long good episodes are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pbrl.data.source import Source
from pbrl.errors import InputError
from pbrl.members import Members, check_range
from pbrl.spec import Spec

from .bc import BC, CloningConfig


@dataclass(frozen=True)
class PercentBCConfig(CloningConfig):
    """Settings of percentile BC."""

    percent: float = 10.0
    """Share of the data to clone, in per cent, from the best episodes downwards."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "percent", 0.0, 100.0, open_low=True)


class PercentBC(BC):
    """Stacked percentile BC; members may clone different shares."""

    percent: Tensor

    def __init__(self, spec: Spec, members: Members[PercentBCConfig]) -> None:
        super().__init__(spec, members)
        self.register_buffer("percent", members.column("percent"))

    @property
    def boundaries(self) -> tuple[int, ...]:
        """One stage."""
        return ()

    def prepare(self, source: Source) -> Source:
        """The source restricted to each member's best episodes."""
        if source.dataset is None:
            raise InputError("percent_bc ranks episodes, expected a data set and not preferences alone")
        data = source.dataset
        order = data.episode_returns().argsort(descending=True, stable=True)
        taken = data.lengths[order].cumsum(0)
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(order), device=order.device)
        of_row = torch.repeat_interleave(rank, data.lengths)  # [N] rank of the episode that a row belongs to
        rows: list[Tensor] = []
        for percent in self.percent.tolist():
            kept = 1 + int((taken < percent * len(data) / 100.0).sum())
            rows.append((of_row < kept).nonzero().squeeze(1).to(source.device))
        return source.with_rows(rows)
