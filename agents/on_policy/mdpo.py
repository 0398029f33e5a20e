"""MDPO: mirror descent policy optimisation (Tomar et al., 2020), on-policy.

    pi_{k+1} = argmax_pi  E_{s, a ~ pi_k}[ pi(a|s) / pi_k(a|s) A(s, a) ] - 1/t_k KL(pi || pi_k)

by several gradient steps on the whole rollout. Where every action of every state was taken, the solution is
pi_{k+1} ~ pi_k exp(t_k A). The step size t_k falls linearly from ``step`` to 0. Values, advantages and preference
weights over objectives are PPO's.

Deviations:
- KL(pi || pi_k) is estimated at the actions that were taken, by ratio log ratio - ratio + 1, whose mean under pi_k it
  is; the authors' code has the closed form for normals.
- ``lr_decay`` is in updates, and ends with the run where that is shorter; the authors' is their 10 million steps.
- As in PPO here: eight copies of the environment, running statistics, orthogonal initial weights. The authors
  normalise observations and rewards, too.
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
class MDPOConfig(ActorCriticConfig):
    """Settings of MDPO; the defaults are those of the authors' code for MuJoCo, where it names them."""

    step: float = 1.0
    """t_0: the larger, the further a policy may move from the last one."""
    lr_decay: int = shared(5_000, schedule="run")
    """Updates over which t and the learning rate fall linearly to 0; 0 keeps them constant."""
    epochs: int = shared(10)
    """Gradient steps of the policy per update, each on the whole rollout."""
    value_epochs: int = shared(5)
    """Passes of the critic over a rollout."""
    batch_size: int = shared(128)
    """Steps per minibatch of the critic; the last one of a pass may be smaller."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "step", 0.0, open_low=True)
        for name in ("epochs", "value_epochs", "batch_size"):
            check_range(self, name, 1)
        check_range(self, "lr_decay", 0)


class MDPO(ActorCritic):
    """Stacked MDPO.

    Args:
        weights: [P, K] preference weights over the objectives; equal ones by default.
    """

    step: Tensor
    entropy_weight: Tensor

    def __init__(self, spec: Spec, members: Members[MDPOConfig], weights: Tensor | None = None) -> None:
        super().__init__(spec, members, weights)
        self.config = members.shared
        for name in ("step", "entropy_weight"):
            self.register_buffer(name, members.column(name))
        lr, clip = members.column("lr"), members.column("max_grad")
        self.actor_adam = Adam(self.policy.parameters(), lr, clip=clip, eps=1e-5)
        self.critic_adam = Adam(self.critic.parameters(), lr, clip=clip, eps=1e-5)
        self._descend_pi = descent(self._policy_losses, members.compile)
        self._descend_v = descent(self._value_loss, members.compile)

    def update(self, batch: Batch) -> Metrics:
        """Several steps of the policy on one rollout, then several passes of the critic."""
        rows = self.rows(batch["rollout"])
        decay = self.config.lr_decay
        scale = self.left(decay)
        step = self.step * max(scale, 1.0 / decay if decay else 0.0)  # at its end nothing moves: not a division by 0
        metrics: dict[str, Tensor] = {}
        for _ in range(self.config.epochs):
            metrics = self._descend_pi({self.actor_adam: scale}, rows, step)
        seen = [
            self._descend_v({self.critic_adam: scale}, minibatch)["loss_v"]
            for epoch in range(self.config.value_epochs)
            for minibatch in self.shuffled(rows, "order", epoch).split(self.config.batch_size, dim=1)
        ]
        self.normalizer.see(batch["rollout"].obs)
        self.count.value += 1
        return {**metrics, "loss_v": torch.stack(seen).mean(0)}

    def _policy_losses(self, rows: Tensor, size: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """What the policy minimises at step sizes [P], [P], and metrics; those of the last step are reported."""
        step = self.steps_of(rows)
        log_prob, entropy = self.policy.likelihood(step.obs, step.act)
        moved = log_prob - step.old
        loss = losses.mirror_descent(moved, step.advantage, size[:, None]).mean(1)
        kl = losses.mirror_descent(moved, torch.zeros_like(moved), 1.0).mean(1)
        metrics = {"loss_pi": loss, "entropy": entropy.mean(1), "kl": kl}
        return loss - self.entropy_weight * entropy.mean(1), metrics

    def _value_loss(self, rows: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """[P] mean squared error of the values, and it as a metric."""
        step = self.steps_of(rows)
        loss: Tensor = (self.critic(step.obs) - step.target).square().mean((1, 2))
        return loss, {"loss_v": loss}
