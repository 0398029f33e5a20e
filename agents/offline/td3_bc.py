"""TD3+BC: TD3 whose policy also clones the data (Fujimoto & Gu, NeurIPS 2021).

    L_pi = -lambda E[ Q_1(s, pi(s)) ] + E[ |pi(s) - a|^2 / A ],   lambda = alpha / mean_batch |Q_1(s, pi(s))|

with lambda as a constant, so that alpha means the same whatever the scale of the rewards; alpha = 0 is behaviour
cloning. The critics are those of ``td3``. Observations are normalised by the data's statistics, which are saved with
the agent. Online it goes on as it is, with the actions of the replay as those that are cloned.

Deviations:
- Those of ``td3``; the defaults are those of the authors' code there, too.
- Time limits bootstrap; the authors' data lack the rows at time limits.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pbrl.data.source import Transitions
from pbrl.members import Members, check_range
from pbrl.nets.mlp import through
from pbrl.spec import Spec

from ..off_policy.td3 import TD3, TD3Config


@dataclass(frozen=True)
class TD3BCConfig(TD3Config):
    """Settings of TD3+BC: those of TD3, and what the critic counts beside cloning."""

    alpha: float = 2.5
    """Weight of the critic, in multiples of its own mean size: 0 is behaviour cloning."""
    normalize_obs: bool = True
    """Subtract the mean of the data set's observations and divide by their deviation."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "alpha", 0.0)


class TD3BC(TD3):
    """Stacked TD3+BC."""

    alpha: Tensor

    def __init__(self, spec: Spec, members: Members[TD3BCConfig]) -> None:
        super().__init__(spec, members)
        self.register_buffer("alpha", members.column("alpha"))

    def _actor_loss(self, batch: Transitions) -> tuple[Tensor, dict[str, Tensor]]:
        """L_pi, [P], and it as a metric."""
        obs = self.normalizer(batch.obs)
        act = self.policy(obs).mode()
        value: Tensor = through(self.q, torch.cat([obs, act], dim=-1), copies=1)[:, 0].squeeze(-1)  # [P, B] of Q_1
        cloning: Tensor = (act - batch.act).square().mean((1, 2))
        loss = climb(value, self.alpha) + cloning
        return loss, {"loss_pi": loss}


def climb(value: Tensor, alpha: Tensor) -> Tensor:
    """-lambda E[Q] with lambda = alpha / mean |Q| as a constant: value [P, B], alpha [P] -> [P]."""
    size = value.detach().abs().mean(-1).clamp_min(1e-8)  # critics that are 0 everywhere tell nothing
    return -(alpha / size) * value.mean(-1)
