"""AWAC: advantage-weighted actor-critic (Nair, Gupta, Dalal & Levine, 2020).

    L_Q  = E[ (r + gamma (1 - term) min_i Qbar_i(s', a') - Q_i(s, a))^2 ],  a' ~ pi(.|s'),   for i = 1, 2
    L_pi = -E[ min(exp(A(s, a) / lambda), 100) log pi(a|s) ],   A(s, a) = min_i Q_i(s, a) - V(s)

with V(s) the mean of min_i Q_i(s, a_k) over ``samples`` fresh actions a_k ~ pi(.|s). Weights are constants. lambda is
``temperature``: the policy is drawn to mu(a|s) exp(A / lambda) of the data's mu, which for large lambda is cloning. It
is made to go online as it is, on data and new steps together.

Deviations:
- V is the mean over one fresh action by default, as in the reimplementations whose scores are known.
- Both losses are computed from the weights before the update; the usual code steps the critics first.
- The default policy's mean goes through a tanh and its log-deviation is in [-5, 2] (``iql``'s policy); elsewhere the
  mean is unbounded. Fresh actions are clipped to [-1, 1].
- Time limits bootstrap. Initial weights are torch's own uniform ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pbrl import losses, rng
from pbrl.agent import Count, Metrics
from pbrl.data.source import Batch, Transitions, Wants
from pbrl.descent import descent
from pbrl.members import Members, check_range, check_sizes, shared
from pbrl.nets.heads import Head, Kind, StackedPolicy
from pbrl.nets.mlp import Normalizer, critics
from pbrl.optim import Adam, track
from pbrl.spec import Spec


@dataclass(frozen=True)
class AWACConfig:
    """Settings of AWAC; the defaults are those used for locomotion."""

    lr: float = 3e-4
    """Learning rate of Adam, for all networks."""
    gamma: float = 0.99
    """Discount per step."""
    temperature: float = 1.0 / 3.0
    """lambda, in units of reward: small follows the advantage, large clones the data (0.1 for hand manipulation)."""
    max_weight: float = 100.0
    """Cap on the exponentiated advantage."""
    target_rate: float = 0.005
    """Share of the critics that the target critics take on per update."""
    normalize_obs: bool = True
    """Subtract the data's mean from observations and divide by their deviation."""
    samples: int = shared(1)
    """Fresh actions whose mean value is V."""
    head: Kind = shared("gaussian")
    """What the policy's output means: gaussian, deterministic or tanh_gaussian."""
    critics: int = shared(2)
    """Q-functions, of which the smallest counts."""
    hidden: tuple[int, ...] = shared((256, 256, 256))
    """Widths of the hidden layers of all networks."""
    batch_size: int = shared(256)
    """Transitions per update."""

    def __post_init__(self) -> None:
        check_range(self, "lr", 0.0, open_low=True)
        check_range(self, "gamma", 0.0, 1.0)
        check_range(self, "temperature", 0.0, open_low=True)
        check_range(self, "max_weight", 0.0, open_low=True)
        check_range(self, "target_rate", 0.0, 1.0)
        for name in ("samples", "critics", "batch_size"):
            check_range(self, name, 1)
        check_sizes(self, "hidden")


class AWAC(nn.Module):
    """Stacked AWAC."""

    keys: Tensor
    gamma: Tensor
    temperature: Tensor
    max_weight: Tensor
    target_rate: Tensor

    def __init__(self, spec: Spec, members: Members[AWACConfig]) -> None:
        super().__init__()
        self.config = config = members.shared
        self.count = Count()
        self.register_buffer("keys", members.keys)
        for name in ("gamma", "temperature", "max_weight", "target_rate"):
            self.register_buffer(name, members.column(name))
        self.normalizer = Normalizer(spec, members.column("normalize_obs"))
        keys = rng.fold(members.keys, "q")
        self.q, self.target = critics(keys, spec, config.hidden, count=config.critics, dtype=members.dtype)
        self.policy = StackedPolicy(
            rng.fold(members.keys, "policy"),
            spec.obs_size,
            spec.act_size,
            kind=config.head,
            hidden=config.hidden,
            dtype=members.dtype,
        )
        lr = members.column("lr")
        self.critic_adam, self.actor_adam = Adam(self.q.parameters(), lr), Adam(self.policy.parameters(), lr)
        self._descend = descent(self._losses, members.compile)

    @property
    def updates(self) -> int:
        """How many updates have been made."""
        return self.count.value

    def wants(self) -> Wants:
        """Transitions."""
        return {"transitions": self.config.batch_size}

    def act(self, obs: Tensor, key: Tensor | None = None) -> Tensor:
        """obs [P, B, O] -> [P, B, A]."""
        return self.policy.choose(self.normalizer(obs), key)

    def update(self, batch: Batch) -> Metrics:
        """One step of all networks."""
        key = rng.fold(self.keys, "noise", self.updates)
        metrics = self._descend({self.critic_adam: 1.0, self.actor_adam: 1.0}, batch["transitions"], key)
        track(self.target, self.q, self.target_rate)
        self.count.value += 1
        return metrics

    def _losses(self, batch: Transitions, key: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """L_Q summed over the critics and L_pi, each [P], and metrics. No gradient of one reaches the other."""
        obs, next_obs = self.normalizer(batch.obs), self.normalizer(batch.next_obs)
        head: Head = self.policy(obs)
        with torch.no_grad():
            ahead: Head = self.policy(next_obs)
            next_act = ahead.sample(rng.fold(key, "target"))
            future = self.target(torch.cat([next_obs, next_act], dim=-1)).squeeze(-1).amin(1)  # [P, B]
            goal = batch.rew + self.gamma[:, None] * (1.0 - batch.term) * future
            value = self._value(obs, head, rng.fold(key, "value"))
        q = self.q(torch.cat([obs, batch.act], dim=-1)).squeeze(-1)  # [P, E, B]
        loss_q = (goal.unsqueeze(1) - q).square().mean(-1).sum(1)
        advantage = q.detach().amin(1) - value
        weight = losses.advantage_weight(advantage, 1.0 / self.temperature[:, None], self.max_weight[:, None])
        loss_pi = -(weight * head.log_prob(batch.act)).mean(-1)
        metrics = {"loss_q": loss_q, "loss_pi": loss_pi, "value": value.mean(-1), "weight": weight.mean(-1)}
        return loss_q, loss_pi, metrics

    def _value(self, obs: Tensor, head: Head, key: Tensor) -> Tensor:
        """V(s), [P, B]: the mean of the smallest critic over fresh actions."""
        fresh = [head.sample(rng.fold(key, k)) for k in range(self.config.samples)]
        pairs = torch.cat([torch.cat([obs, act], dim=-1) for act in fresh], dim=1)  # [P, K B, O + A]
        smallest: Tensor = self.q(pairs).squeeze(-1).amin(1)
        return smallest.reshape(len(obs), self.config.samples, -1).mean(1)
