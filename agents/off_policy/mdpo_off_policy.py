"""Off-policy MDPO: mirror descent policy optimisation from a replay (Tomar et al., 2020).

For states s of the data and fresh actions a ~ pi(.|s), with Q_i tracked by target critics Qbar,

    L_pi = E[ c log pi(a|s) + (lambda - c) log pi_k(a|s) - Q_1(s, a) ]
         = E[ (c - lambda) KL(pi || pi_k) + lambda log pi - Q_1 ]
    L_Q  = 1/2 E[ (r + gamma (1 - term) (min_i Qbar_i(s', a') - lambda log pi(a'|s')) - Q_i(s, a))^2 ]  for each i

whose best policy is pi ~ pi_k^((c - lambda) / c) exp(Q_1 / c): c is ``nearness`` and lambda ``temperature``. pi_k
becomes the present policy every ``refresh`` updates. At c = lambda nothing holds to pi_k: SAC at a fixed temperature,
but for the policy's critic.

Deviations:
- Actions that explore are drawn from the policy; the authors' code acts by its mean alone.
- The authors' small penalty on the policy's mean and deviation is left out.
- A time limit bootstraps and only a true end does not. Initial weights are torch's own uniform ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pbrl import rng
from pbrl.agent import Count, Metrics
from pbrl.data.source import Batch, Transitions, Wants
from pbrl.descent import descent
from pbrl.errors import InputError
from pbrl.members import Members, check_range, check_sizes, shared
from pbrl.nets.heads import StackedPolicy, TanhGaussian
from pbrl.nets.mlp import Normalizer, critics, freeze, through
from pbrl.optim import Adam, track
from pbrl.spec import Spec


@dataclass(frozen=True)
class MDPOOffPolicyConfig:
    """Settings of off-policy MDPO; the defaults are those of the authors' code."""

    lr: float = 3e-4
    """Learning rate of Adam, for all networks."""
    gamma: float = 0.99
    """Discount per step."""
    target_rate: float = 0.005
    """Share of the critics that the target critics take on per update."""
    nearness: float = 1.0
    """c: how much a nat of divergence from pi_k costs, less lambda; at least lambda."""
    temperature: float = 0.2
    """lambda: what a nat of entropy is worth in units of reward."""
    normalize_obs: bool = False
    """Subtract the mean of the data set's observations and divide by their deviation."""
    refresh: int = shared(1000)
    """Updates after which pi_k becomes the present policy."""
    critics: int = shared(2)
    """Q-functions: the first teaches the policy, the smallest counts in targets."""
    hidden: tuple[int, ...] = shared((256, 256))
    """Widths of the hidden layers of all networks."""
    batch_size: int = shared(256)
    """Transitions per update."""

    def __post_init__(self) -> None:
        check_range(self, "lr", 0.0, open_low=True)
        check_range(self, "gamma", 0.0, 1.0)
        check_range(self, "target_rate", 0.0, 1.0)
        check_range(self, "nearness", 0.0, open_low=True)
        check_range(self, "temperature", 0.0)
        if self.nearness < self.temperature:
            found = f"nearness is {self.nearness} and temperature {self.temperature}"
            raise InputError(f"MDPOOffPolicyConfig.{found}, expected nearness to be at least as large")
        for name in ("refresh", "critics", "batch_size"):
            check_range(self, name, 1)
        check_sizes(self, "hidden")


class MDPOOffPolicy(nn.Module):
    """Stacked off-policy MDPO."""

    keys: Tensor
    gamma: Tensor
    target_rate: Tensor
    nearness: Tensor
    temperature: Tensor

    def __init__(self, spec: Spec, members: Members[MDPOOffPolicyConfig]) -> None:
        super().__init__()
        self.config = config = members.shared
        self.count = Count()
        self.register_buffer("keys", members.keys)
        for name in ("gamma", "target_rate", "nearness", "temperature"):
            self.register_buffer(name, members.column(name))
        self.normalizer = Normalizer(spec, members.column("normalize_obs"))
        keys = rng.fold(members.keys, "q")
        self.q, self.target = critics(keys, spec, config.hidden, count=config.critics, dtype=members.dtype)
        self.policy, old = (
            StackedPolicy(
                rng.fold(members.keys, "policy"),
                spec.obs_size,
                spec.act_size,
                kind="tanh_gaussian",
                hidden=config.hidden,
                dtype=members.dtype,
            )
            for _ in range(2)
        )
        self.old = freeze(old)
        lr = members.column("lr")
        self.critic_adam, self.actor_adam = Adam(self.q.parameters(), lr), Adam(self.policy.parameters(), lr)
        self._descend_q = descent(self._critic_loss, members.compile)
        self._descend_pi = descent(self._actor_loss, members.compile)

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
        """One step of the critics, then one of the policy."""
        if self.updates % self.config.refresh == 0:
            self.old.load_state_dict(self.policy.state_dict())
        key = rng.fold(self.keys, "noise", self.updates)
        metrics = self._descend_q({self.critic_adam: 1.0}, batch["transitions"], rng.fold(key, "target"))
        metrics |= self._descend_pi({self.actor_adam: 1.0}, batch["transitions"], rng.fold(key, "policy"))
        track(self.target, self.q, self.target_rate)
        self.count.value += 1
        return metrics

    def worth(self, obs: Tensor, act: Tensor) -> Tensor:
        """[P, B] what the policy climbs: the first critic, of obs (normalised) and actions; gradients reach ``act``."""
        return through(self.q, torch.cat([obs, act], dim=-1), copies=1).squeeze(-1)[:, 0]

    def _draw(self, obs: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Fresh actions [P, B, A] at obs [P, B, O] (normalised) and their log-densities [P, B]."""
        head = self.policy(obs)
        assert isinstance(head, TanhGaussian)
        return head.sample_with_log_prob(key)

    def _critic_loss(self, batch: Transitions, key: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """L_Q summed over the critics, [P], and metrics."""
        obs, next_obs = self.normalizer(batch.obs), self.normalizer(batch.next_obs)
        with torch.no_grad():
            next_act, log_prob = self._draw(next_obs, key)
            best = self.target(torch.cat([next_obs, next_act], dim=-1)).squeeze(-1).amin(1)  # [P, B]
            soft = best - self.temperature[:, None] * log_prob
            goal = batch.rew + self.gamma[:, None] * (1.0 - batch.term) * soft
        q = self.q(torch.cat([obs, batch.act], dim=-1)).squeeze(-1)  # [P, E, B]
        loss = 0.5 * (goal.unsqueeze(1) - q).square().mean(-1).sum(1)
        return loss, {"loss_q": loss, "value": q.mean((1, 2))}

    def _actor_loss(self, batch: Transitions, key: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """L_pi, [P], and metrics."""
        obs = self.normalizer(batch.obs)
        act, log_prob = self._draw(obs, key)
        old = self.old(obs).log_prob(act)
        c, weight = self.nearness[:, None], self.temperature[:, None]
        loss = (c * log_prob + (weight - c) * old - self.worth(obs, act)).mean(-1)
        metrics = {"loss_pi": loss, "entropy": -log_prob.mean(-1), "kl": (log_prob - old).mean(-1)}
        return loss, metrics
