"""PPO: proximal policy optimisation (Schulman et al., 2017), with a value per objective.

    (7)  L_clip = E[ min(ratio A, clip(ratio, 1 - c, 1 + c) A) ],   ratio = pi(a|s) / pi_old(a|s)
    (9)  L = L_clip - c1 (V(s) - target)^2 + c2 entropy

Rewards are [..., K]. The critic has K values and each objective its own generalised advantages (Schulman et al. 2016);
they are weighed into one by the member's preference weights, in units of the raw rewards. One update is several passes
over one rollout in minibatches; a step that meets a time limit bootstraps from its true last observation.

Deviations:
- Observations and rewards are divided by running deviations, gradients are clipped and the networks start from
  orthogonal weights with a small policy output, as in OpenAI's baselines and not in the paper. The statistics move
  only between rollouts, so that ratios begin at exactly 1.
- The paper plays one copy for 2048 steps; here eight copies play 256.
- The mean action is the network's output; an action is drawn unclipped, has the normal's density and is clipped by the
  environment.
- Policy and values share no layers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pbrl import losses
from pbrl.agent import Metrics
from pbrl.data.source import Batch
from pbrl.descent import descent
from pbrl.members import Members, check_range, shared
from pbrl.optim import Adam
from pbrl.parts.actor_critic import ActorCritic, ActorCriticConfig
from pbrl.spec import Spec


@dataclass(frozen=True)
class PPOConfig(ActorCriticConfig):
    """Settings of PPO; the defaults are the paper's for MuJoCo, where it names them."""

    clip: float = 0.2
    """c of equation 7: how far a ratio may move before it stops to count."""
    value_weight: float = 0.5
    """c1 of equation 9."""
    entropy_weight: float = 0.0
    """c2 of equation 9."""
    lr_decay: int = shared(0)
    """Updates over which the learning rate falls linearly to 0; 0 keeps it constant."""
    epochs: int = shared(10)
    """Passes over a rollout."""
    batch_size: int = shared(64)
    """Steps per minibatch; the last one of a pass may be smaller."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "clip", 0.0, open_low=True)
        check_range(self, "value_weight", 0.0)
        for name in ("epochs", "batch_size"):
            check_range(self, name, 1)
        check_range(self, "lr_decay", 0)


class PPO(ActorCritic):
    """Stacked PPO.

    Args:
        weights: [P, K] preference weights over the objectives; equal ones by default.
    """

    clip: Tensor
    value_weight: Tensor
    entropy_weight: Tensor

    def __init__(self, spec: Spec, members: Members[PPOConfig], weights: Tensor | None = None) -> None:
        super().__init__(spec, members, weights)
        self.config = members.shared
        for name in ("clip", "value_weight", "entropy_weight"):
            self.register_buffer(name, members.column(name))
        both = [*self.policy.parameters(), *self.critic.parameters()]
        self.adam = Adam(both, members.column("lr"), clip=members.column("max_grad"), eps=1e-5)
        self._descend = descent(self._losses, members.compile)

    def update(self, batch: Batch) -> Metrics:
        """Several passes over one rollout."""
        rows = self.rows(batch["rollout"])
        scale = self.left(self.config.lr_decay)
        seen: dict[str, list[Tensor]] = {}
        for epoch in range(self.config.epochs):
            for minibatch in self.shuffled(rows, "order", epoch).split(self.config.batch_size, dim=1):
                for name, value in self._descend({self.adam: scale}, minibatch).items():
                    seen.setdefault(name, []).append(value)
        self.normalizer.see(batch["rollout"].obs)
        self.count.value += 1
        return {name: torch.stack(values).mean(0) for name, values in seen.items()}

    def _losses(self, rows: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Equation 9 turned to a loss, [P], and metrics."""
        step = self.steps_of(rows)
        log_prob, entropy = self.policy.likelihood(step.obs, step.act)
        moved = log_prob - step.old
        ratio = moved.exp()
        loss_pi = losses.ppo_clip(ratio, step.advantage, self.clip[:, None]).mean(1)
        loss_v = (self.critic(step.obs) - step.target).square().mean((1, 2))
        loss = loss_pi + self.value_weight * loss_v - self.entropy_weight * entropy.mean(1)
        metrics = {
            "loss_pi": loss_pi,
            "loss_v": loss_v,
            "entropy": entropy.mean(1),
            "kl": (ratio - 1.0 - moved).mean(1),
            "clipped": ((ratio - 1.0).abs() > self.clip[:, None]).to(ratio.dtype).mean(1),
        }
        return loss, metrics
