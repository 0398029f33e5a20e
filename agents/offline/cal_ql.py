"""Cal-QL: CQL whose critics are not pushed below what the data's own policy earns (Nakamoto et al., NeurIPS 2023).

``cql`` with another gap: of fresh actions a_k of the policy (at s or at s'), not of the uniform ones,

    max(Q_i(s, a_k), G(s))   stands for   Q_i(s, a_k)

where G(s) is the discounted return of the data from s on. Critics are then not so pessimistic that the first steps
online look better than all that was learned, which is what makes CQL forget at first. At G = -infinity it is CQL.

Online the steps of a complete episode have a G, too, and those of a running one none; without a data set it is CQL.

Deviations:
- Those of ``cql``, and one shape for all networks (the authors': 3 layers of 512 for critics, 2 for policies).
- An episode that was cut is taken to go on paying its mean reward (``pbrl.data.to_go``). The authors take the same of
  failures where rewards are sparse (their constant r / (1 - gamma)), and nothing after the cut elsewhere.
- The authors' rewards are 10 r + 5 (of -1 and 0), in mazes 10 r - 5; rewards are not transformed here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pbrl.data.source import Source, Transitions
from pbrl.members import shared

from .cql import CQL, CQLConfig


@dataclass(frozen=True)
class CalQLConfig(CQLConfig):
    """Settings of Cal-QL: those of CQL; the defaults are the authors' for hand manipulation."""

    policy_lr: float = 1e-4
    """Learning rate of the policy and the temperature; ``lr`` is the critics'."""
    conservatism: float = 1.0
    """w: weight of the gap (5 for mazes, with a target_gap of 0.8)."""
    normalize_obs: bool = False
    """Subtract the mean of the data set's observations and divide by their deviation."""
    backup_actions: int = shared(10)
    """Fresh next actions whose best counts in goals, critic by critic; more than 1 without entropy."""


class CalQL(CQL):
    """Stacked Cal-QL."""

    @property
    def boundaries(self) -> tuple[int, ...]:
        """One stage."""
        return ()

    def prepare(self, source: Source) -> Source:
        """The source with the return from each transition on."""
        return source.with_to_go(self.gamma)

    def as_prepared(self, batch: Transitions) -> Transitions:
        """The same: returns come with the batch."""
        return batch

    def _values(self, batch: Transitions, fresh: Tensor) -> tuple[Tensor, Tensor]:
        """As CQL's, those of fresh actions calibrated."""
        known, values = super()._values(batch, fresh)
        return known, self._calibrated(values, batch)

    def _calibrated(self, fresh: Tensor, batch: Transitions) -> Tensor:
        """Values [P, E, 3 n, B] of fresh actions, the policy's own (the last two thirds) being at least G."""
        if batch.to_go is None:
            return fresh
        uniform, own = fresh.tensor_split((self.config.actions,), dim=2)
        return torch.cat([uniform, torch.maximum(own, batch.to_go[:, None, None])], dim=2)
