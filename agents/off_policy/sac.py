"""SAC: soft actor-critic with a learned temperature (Haarnoja et al. 2018, Algorithms and Applications).

It maximises E[ sum_t gamma^t (r_t + alpha H(pi(.|s_t))) ] by three losses, a' ~ pi(.|s') and a ~ pi(.|s) being fresh:

    L_Q     = 1/2 E[ (r + gamma (1 - term) (min_i Qbar_i(s', a') - alpha log pi(a'|s')) - Q_i(s, a))^2 ]  for each i
    L_pi    = E[ alpha log pi(a|s) - min_i Q_i(s, a) ]
    L_alpha = -alpha E[ log pi(a|s) + H0 ],   H0 the target entropy

with target critics Qbar that track Q, and a tanh-Gaussian policy. It learns from any transitions; online it explores by
its own entropy. With more than two ``critics`` and data alone it is SAC-N (An et al., NeurIPS 2021).

Deviations:
- The policy is improved against the critics of the same update, after their step; the temperature with the policy.
- A time limit bootstraps and only a true end does not, whatever the loop.
- Initial weights are torch's own uniform ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pbrl import rng
from pbrl.agent import Count, Metrics
from pbrl.data.source import Batch, Transitions, Wants
from pbrl.descent import descent
from pbrl.members import Members, check_range, check_sizes, shared
from pbrl.nets.heads import StackedPolicy, TanhGaussian
from pbrl.nets.mlp import Normalizer, critics, through
from pbrl.optim import Adam, track
from pbrl.spec import Spec


@dataclass(frozen=True)
class SACConfig:
    """Settings of SAC; the defaults are the authors' for locomotion."""

    lr: float = 3e-4
    """Learning rate of Adam, for all networks and the temperature."""
    gamma: float = 0.99
    """Discount per step."""
    target_rate: float = 0.005
    """Share of the critics that the target critics take on per update."""
    temperature: float = 1.0
    """alpha: what a nat of entropy is worth in units of reward; where it is learned, what it begins at."""
    learn_temperature: bool = True
    """Whether alpha follows the target entropy, or stays as it is."""
    target_entropy: float = -1.0
    """H0 per dimension of the action, in nats."""
    normalize_obs: bool = False
    """Subtract the mean of the data set's observations and divide by their deviation."""
    critics: int = shared(2)
    """Q-functions, of which the smallest counts."""
    hidden: tuple[int, ...] = shared((256, 256))
    """Widths of the hidden layers of all networks."""
    batch_size: int = shared(256)
    """Transitions per update."""

    def __post_init__(self) -> None:
        check_range(self, "lr", 0.0, open_low=True)
        check_range(self, "gamma", 0.0, 1.0)
        check_range(self, "target_rate", 0.0, 1.0)
        check_range(self, "temperature", 0.0, open_low=True)
        check_range(self, "target_entropy")
        check_range(self, "critics", 1)
        check_range(self, "batch_size", 1)
        check_sizes(self, "hidden")


class SAC(nn.Module):
    """Stacked SAC."""

    keys: Tensor
    gamma: Tensor
    target_rate: Tensor
    learn_temperature: Tensor
    target_entropy: Tensor

    def __init__(self, spec: Spec, members: Members[SACConfig]) -> None:
        super().__init__()
        self.config = config = members.shared
        self.count = Count()
        self.register_buffer("keys", members.keys)
        for name in ("gamma", "target_rate", "learn_temperature"):
            self.register_buffer(name, members.column(name))
        self.register_buffer("target_entropy", members.column("target_entropy") * spec.act_size)
        self.normalizer = Normalizer(spec, members.column("normalize_obs"))
        keys = rng.fold(members.keys, "q")
        self.q, self.target = critics(keys, spec, config.hidden, count=config.critics, dtype=members.dtype)
        self.policy = StackedPolicy(
            rng.fold(members.keys, "policy"),
            spec.obs_size,
            spec.act_size,
            kind="tanh_gaussian",
            hidden=config.hidden,
            dtype=members.dtype,
        )
        self.log_alpha = nn.Parameter(members.column("temperature").log().unsqueeze(1))  # [P, 1]
        lr = members.column("lr")
        self.critic_adam = Adam(self.q.parameters(), lr)
        self.actor_adam = Adam([*self.policy.parameters(), self.log_alpha], lr)
        self._descend_q = descent(self._critic_loss, members.compile)
        self._descend_pi = descent(self._actor_losses, members.compile)

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
        """One step of the critics, then one of the policy and the temperature."""
        key = rng.fold(self.keys, "noise", self.updates)
        metrics = self._descend_q({self.critic_adam: 1.0}, batch["transitions"], rng.fold(key, "target"))
        metrics |= self._descend_pi({self.actor_adam: 1.0}, batch["transitions"], rng.fold(key, "policy"))
        track(self.target, self.q, self.target_rate)
        self.count.value += 1
        return metrics

    def _draw(self, obs: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Fresh actions [P, B, A] at obs [P, B, O] (normalised) and their log-densities [P, B]."""
        head = self.policy(obs)
        assert isinstance(head, TanhGaussian)
        return head.sample_with_log_prob(key)

    def _goal(self, batch: Transitions, key: Tensor) -> Tensor:
        """[P, B] what the critics should say of the batch."""
        with torch.no_grad():
            next_obs = self.normalizer(batch.next_obs)
            next_act, log_prob = self._draw(next_obs, key)
            best = self.target(torch.cat([next_obs, next_act], dim=-1)).squeeze(-1).amin(1)  # [P, B]
            soft = best - self.log_alpha.exp() * log_prob
            goal: Tensor = batch.rew + self.gamma[:, None] * (1.0 - batch.term) * soft
        return goal

    def _critic_loss(self, batch: Transitions, key: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """L_Q summed over the critics, [P], and metrics."""
        goal = self._goal(batch, key)
        q = self.q(torch.cat([self.normalizer(batch.obs), batch.act], dim=-1)).squeeze(-1)  # [P, E, B]
        loss = 0.5 * (goal.unsqueeze(1) - q).square().mean(-1).sum(1)
        return loss, {"loss_q": loss, "value": q.mean((1, 2))}

    def _actor_losses(self, batch: Transitions, key: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """L_pi + L_alpha, [P], of which no gradient reaches the other's parameters; and metrics."""
        obs = self.normalizer(batch.obs)
        act, log_prob = self._draw(obs, key)
        best = through(self.q, torch.cat([obs, act], dim=-1)).squeeze(-1).amin(1)  # [P, B]
        alpha = self.log_alpha.exp()
        loss_pi = (alpha.detach() * log_prob - best).mean(-1)
        entropy = -log_prob.detach().mean(-1)
        loss_alpha = self.learn_temperature * alpha.squeeze(1) * (entropy - self.target_entropy)
        metrics = {"loss_pi": loss_pi, "entropy": entropy, "temperature": alpha.squeeze(1)}
        return loss_pi + loss_alpha, metrics
