"""EDAC: SAC-N with critics whose slopes differ (An et al., NeurIPS 2021).

    L_Q = 1/2 [ sum_i E[ (goal - Q_i(s, a))^2 ] + eta / (N - 1) E[ sum_{i != j} <g_i, g_j> ] ]

with ``sac_n``'s goals and g_i = grad_a Q_i(s, a) / |grad_a Q_i(s, a)| at the actions of the data: critics that agree on
the direction of better actions have a small smallest value only further away, so agreement costs. eta is ``diversity``,
and 0 is SAC-N. N is far smaller than without: 10 (50 for Hopper).

Deviations:
- Those of ``sac_n``. All of L_Q has SAC's half, so that eta weighs what the authors' does.
- The sum over pairs is computed as |sum_i g_i|^2 - sum_i |g_i|^2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pbrl.data.source import Transitions
from pbrl.members import Members, check_range
from pbrl.nets.slopes import value_and_slope
from pbrl.spec import Spec

from .sac_n import SACN, SACNConfig


@dataclass(frozen=True)
class EDACConfig(SACNConfig):
    """Settings of EDAC; the defaults are the authors' for HalfCheetah-medium."""

    diversity: float = 1.0
    """eta: what agreement of the critics' slopes costs (5 for HalfCheetah- and Walker2d-medium-expert)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "diversity", 0.0)
        check_range(self, "critics", 2)


class EDAC(SACN):
    """Stacked EDAC."""

    diversity: Tensor

    def __init__(self, spec: Spec, members: Members[EDACConfig]) -> None:
        super().__init__(spec, members)
        self.register_buffer("diversity", members.column("diversity"))

    def _critic_loss(self, batch: Transitions, key: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """L_Q, [P], and metrics."""
        goal = self._goal(batch, key)
        obs = self.normalizer(batch.obs)
        q, slope = value_and_slope(self.q, torch.cat([obs, batch.act], dim=-1))
        agreement = pairwise_cosines(slope[..., obs.shape[-1] :]).mean(-1) / (self.config.critics - 1)
        loss = 0.5 * (goal.unsqueeze(1) - q).square().mean(-1).sum(1) + 0.5 * self.diversity * agreement
        metrics = {"loss_q": loss, "value": q.mean((1, 2)), "agreement": agreement / self.config.critics}
        return loss, metrics


def pairwise_cosines(slope: Tensor) -> Tensor:
    """sum_{i != j} of the cosines between slopes: [P, E, B, A] -> [P, B]."""
    direction = slope / (slope.norm(dim=-1, keepdim=True) + 1e-10)
    together: Tensor = direction.sum(1).square().sum(-1) - direction.square().sum((1, -1))
    return together
