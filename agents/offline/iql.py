"""IQL: implicit Q-learning (Kostrikov, Nair & Levine, ICLR 2022).

    (5)  L_V = E[ |tau - 1(u < 0)| u^2 ],           u = min_i Qbar_i(s, a) - V(s)
    (6)  L_Q = E[ (r + gamma (1 - term) V(s') - Q_i(s, a))^2 ]   for i = 1, 2
    (7)  L_pi = -E[ min(exp(beta u), 100) log pi(a|s) ]

with target critics Qbar tracking Q at rate 0.005. Rewards are the data's, or any that ``Source.with_reward`` brings.

Deviations:
- The three losses are computed together from the weights before the update; the authors' code steps V, then pi and Q
  with the new V.
- "return_range" scales rewards so that the returns of the data span the longest episode's length (at the authors' 1000
  steps it is their 1000 / (max - min)), unless they are all equal; it is for training alone and never scales a score.
- Time limits bootstrap: ``term`` is the true end only. The authors' data lack the rows at time limits.
- Initial weights are torch's own uniform ones.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from pbrl import losses, rng
from pbrl.agent import Count, Metrics
from pbrl.data.source import Batch, Source, Transitions, Wants
from pbrl.descent import descent
from pbrl.errors import InputError
from pbrl.members import Members, check_range, check_sizes, shared
from pbrl.nets.heads import Kind, StackedPolicy
from pbrl.nets.mlp import Normalizer, StackedMLP, critics
from pbrl.optim import Adam, track
from pbrl.spec import Spec


@dataclass(frozen=True)
class IQLConfig:
    """Settings of IQL; the defaults are the paper's for locomotion."""

    lr: float = 3e-4
    """Learning rate of Adam, for all networks."""
    gamma: float = 0.99
    """Discount per step."""
    expectile: float = 0.7
    """tau of equation 5: 0.5 learns the behaviour's value, towards 1 the best action's."""
    temperature: float = 3.0
    """beta of equation 7: 0 is behaviour cloning, larger follows the advantage more."""
    max_weight: float = 100.0
    """Cap on the exponentiated advantage of equation 7."""
    target_rate: float = 0.005
    """Share of the critics that the target critics take on per update."""
    dropout: float = 0.0
    """Share of the policy's hidden units dropped in training (0.1 in the paper for Adroit and kitchen)."""
    normalize_obs: bool = False
    """Subtract the data's mean from observations and divide by their deviation."""
    rewards: Literal["return_range", "raw"] = shared("return_range")
    """Rewards in training: scaled so that returns span the longest episode's length, or as they are."""
    head: Kind = shared("gaussian")
    """What the policy's output means: gaussian (the paper's), deterministic or tanh_gaussian."""
    actor_decay: int = shared(1_000_000)
    """Updates over which the policy's learning rate falls to 0 along a cosine; 0 keeps it constant."""
    critics: int = shared(2)
    """Q-functions, of which the smallest counts."""
    hidden: tuple[int, ...] = shared((256, 256))
    """Widths of the hidden layers of all networks."""
    batch_size: int = shared(256)
    """Transitions per update."""

    def __post_init__(self) -> None:
        check_range(self, "lr", 0.0, open_low=True)
        check_range(self, "gamma", 0.0, 1.0)
        check_range(self, "expectile", 0.0, 1.0)
        check_range(self, "temperature", 0.0)
        check_range(self, "max_weight", 0.0, open_low=True)
        check_range(self, "target_rate", 0.0, 1.0)
        check_range(self, "dropout", 0.0, 0.99)
        check_range(self, "actor_decay", 0)
        check_range(self, "critics", 1)
        check_range(self, "batch_size", 1)
        check_sizes(self, "hidden")


class IQL(nn.Module):
    """Stacked IQL."""

    keys: Tensor
    gamma: Tensor
    expectile: Tensor
    temperature: Tensor
    max_weight: Tensor
    target_rate: Tensor
    reward_scale: Tensor

    def __init__(self, spec: Spec, members: Members[IQLConfig]) -> None:
        super().__init__()
        self.config = config = members.shared
        self.count = Count()
        self.register_buffer("keys", members.keys)
        for name in ("gamma", "expectile", "temperature", "max_weight", "target_rate"):
            self.register_buffer(name, members.column(name))
        self.register_buffer("reward_scale", members.column("gamma").new_ones(len(members), 1))  # of the data's rewards
        self.normalizer = Normalizer(spec, members.column("normalize_obs"))
        keys = rng.fold(members.keys, "q")
        self.q, self.target = critics(keys, spec, config.hidden, count=config.critics, dtype=members.dtype)
        self.v = StackedMLP(rng.fold(members.keys, "v"), (spec.obs_size, *config.hidden, 1), dtype=members.dtype)
        self.policy = StackedPolicy(
            rng.fold(members.keys, "policy"),
            spec.obs_size,
            spec.act_size,
            kind=config.head,
            hidden=config.hidden,
            dropout=members.column("dropout"),
            dtype=members.dtype,
        )
        self.drops = bool((members.column("dropout") > 0).any())
        lr = members.column("lr")
        self.critic_adam = Adam([*self.q.parameters(), *self.v.parameters()], lr)
        self.actor_adam = Adam(self.policy.parameters(), lr)
        self._descend = descent(self._losses, members.compile)

    @property
    def updates(self) -> int:
        """How many updates have been made."""
        return self.count.value

    @property
    def boundaries(self) -> tuple[int, ...]:
        """One stage."""
        return ()

    def prepare(self, source: Source) -> Source:
        """The source with rewards on the scale that ``config.rewards`` names."""
        if source.dataset is None or source.rew is None:
            raise InputError("iql learns from transitions, expected a data set and not preferences alone")
        if self.config.rewards == "raw":
            return source
        length = source.dataset.lengths
        episode = torch.repeat_interleave(torch.arange(len(length), device=length.device), length).to(source.rew.device)
        returns = source.rew.new_zeros(*source.rew.shape[:-1], len(length)).index_add_(-1, episode, source.rew)
        span = returns.amax(-1, keepdim=True) - returns.amin(-1, keepdim=True)  # [1] or [P, 1]
        flat = span <= 1e-6 * returns.abs().amax(-1, keepdim=True)  # returns that are all the same give no scale
        scale = torch.where(flat, 1.0, int(length.max()) / span)
        self.reward_scale.copy_(scale.expand(len(self.keys), 1))
        return source.with_reward(source.rew * scale)

    def as_prepared(self, batch: Transitions) -> Transitions:
        """Transitions from elsewhere, with rewards on the scale of the data that were prepared last."""
        return dataclasses.replace(batch, rew=batch.rew * self.reward_scale)

    def wants(self) -> Wants:
        """Transitions."""
        return {"transitions": self.config.batch_size}

    def act(self, obs: Tensor, key: Tensor | None = None) -> Tensor:
        """obs [P, B, O] -> [P, B, A]."""
        return self.policy.choose(self.normalizer(obs), key)

    def update(self, batch: Batch) -> Metrics:
        """One step of all networks."""
        key = rng.fold(self.keys, "dropout", self.updates) if self.drops else None
        decay = self.config.actor_decay
        cosine = 0.5 * (1.0 + math.cos(math.pi * min(self.updates / decay, 1.0))) if decay else 1.0
        metrics = self._descend({self.critic_adam: 1.0, self.actor_adam: cosine}, batch["transitions"], key)
        track(self.target, self.q, self.target_rate)
        self.count.value += 1
        return metrics

    def _losses(self, batch: Transitions, key: Tensor | None) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """Equations 5, 6 and 7, each [P], and metrics. No gradient of one reaches the networks of another."""
        obs, next_obs = self.normalizer(batch.obs), self.normalizer(batch.next_obs)
        pair = torch.cat([obs, batch.act], dim=-1)
        with torch.no_grad():
            best = self.target(pair).squeeze(-1).amin(1)  # [P, B]
            future = self.v(next_obs).squeeze(-1)
        value = self.v(obs).squeeze(-1)
        advantage = best - value
        loss_v = losses.expectile(advantage, self.expectile[:, None]).mean(-1)
        goal = batch.rew + self.gamma[:, None] * (1.0 - batch.term) * future
        loss_q = (goal.unsqueeze(1) - self.q(pair).squeeze(-1)).square().mean(-1).sum(1)
        weight = losses.advantage_weight(advantage.detach(), self.temperature[:, None], self.max_weight[:, None])
        loss_pi = -(weight * self.policy(obs, key).log_prob(batch.act)).mean(-1)
        metrics = {"loss_v": loss_v, "loss_q": loss_q, "loss_pi": loss_pi, "value": value.mean(-1)}
        return loss_v, loss_q, loss_pi, metrics
