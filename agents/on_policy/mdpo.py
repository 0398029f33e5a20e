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
from pbrl.actor_critic import ActorCritic
from pbrl.agent import Metrics
from pbrl.compiler import compiled
from pbrl.data.source import Batch
from pbrl.members import Members, check_range, check_sizes, shared
from pbrl.optim import Adam, minimise
from pbrl.spec import Spec


@dataclass(frozen=True)
class MDPOConfig:
    """Settings of MDPO; the defaults are those of the authors' code for MuJoCo, where it names them."""

    lr: float = 3e-4
    """Learning rate of Adam."""
    gamma: float = 0.99
    """Discount per step."""
    gae_decay: float = 0.95
    """lambda of the advantages: 0 trusts the values alone, 1 the sampled rewards alone."""
    step: float = 1.0
    """t_0: the larger, the further a policy may move from the last one."""
    entropy_weight: float = 0.0
    """Weight of the policy's entropy."""
    max_grad: float = 0.5
    """Bound on the norms of a member's gradients, the policy's and the critic's each."""
    init_log_std: float = 0.0
    """What the logarithm of the policy's deviation begins at; of no effect on choices."""
    normalize_obs: bool = True
    """Standardise observations by their running mean and deviation."""
    normalize_rewards: bool = True
    """Divide rewards by the running deviation of their discounted returns, each objective by its own."""
    normalize_advantages: bool = True
    """Standardise the advantages of a rollout."""
    lr_decay: int = shared(5_000, schedule="run")
    """Updates over which t and the learning rate fall linearly to 0; 0 keeps them constant."""
    epochs: int = shared(10)
    """Gradient steps of the policy per update, each on the whole rollout."""
    value_epochs: int = shared(5)
    """Passes of the critic over a rollout."""
    batch_size: int = shared(128)
    """Steps per minibatch of the critic; the last one of a pass may be smaller."""
    steps: int = shared(256)
    """Steps that each copy of the environment is played between updates."""
    environments: int = shared(8)
    """Copies of the environment per member."""
    hidden: tuple[int, ...] = shared((64, 64))
    """Widths of the hidden layers of both networks."""

    def __post_init__(self) -> None:
        check_range(self, "lr", 0.0, open_low=True)
        check_range(self, "gamma", 0.0, 1.0)
        check_range(self, "gae_decay", 0.0, 1.0)
        check_range(self, "step", 0.0, open_low=True)
        check_range(self, "entropy_weight", 0.0)
        check_range(self, "max_grad", 0.0, open_low=True)
        check_range(self, "init_log_std", -5.0, 2.0)
        for name in ("epochs", "value_epochs", "batch_size", "steps", "environments"):
            check_range(self, name, 1)
        check_range(self, "lr_decay", 0)
        check_sizes(self, "hidden")


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
        self._policy_objective = compiled(self._policy_losses, members.compile)
        self._value_objective = compiled(self._value_loss, members.compile)

    def update(self, batch: Batch) -> Metrics:
        """Several steps of the policy on one rollout, then several passes of the critic."""
        rows = self.rows(batch["rollout"])
        decay = self.config.lr_decay
        scale = max(0.0, 1.0 - self.updates / decay) if decay else 1.0
        step = self.step * max(scale, 1.0 / decay if decay else 0.0)  # at its end nothing moves: not a division by 0
        metrics: dict[str, Tensor] = {}
        for _ in range(self.config.epochs):
            loss, metrics = self._policy_objective(rows, step)
            minimise(loss, {self.actor_adam: scale})
        seen = []
        for epoch in range(self.config.value_epochs):
            for minibatch in self.shuffled(rows, "order", epoch).split(self.config.batch_size, dim=1):
                loss_v = self._value_objective(minibatch)
                minimise(loss_v, {self.critic_adam: scale})
                seen.append(loss_v.detach())
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
        return loss - self.entropy_weight * entropy.mean(1), {name: x.detach() for name, x in metrics.items()}

    def _value_loss(self, rows: Tensor) -> Tensor:
        """[P] mean squared error of the values."""
        step = self.steps_of(rows)
        loss: Tensor = (self.critic(step.obs) - step.target).square().mean((1, 2))
        return loss
