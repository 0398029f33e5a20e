"""TD3: twin delayed deep deterministic policy gradient (Fujimoto, van Hoof & Meger, ICML 2018).

    a~   = clip(pibar(s') + clip(noise, -c, c), -1, 1),   noise ~ N(0, sigma^2)
    L_Q  = E[ (r + gamma (1 - term) min_i Qbar_i(s', a~) - Q_i(s, a))^2 ]   for i = 1, 2
    L_pi = -E[ Q_1(s, pi(s)) ]                                              every ``delay`` updates

with target networks Qbar and pibar that track Q and pi whenever pi takes a step. To explore, Gaussian noise of
deviation ``exploration`` is added to the action.

Deviations:
- The defaults (learning rate, widths, batch size) are those of the authors' later code, not of the paper's appendix.
- A time limit bootstraps and only a true end does not, whatever the loop.
- Initial weights are torch's own uniform ones, with which the authors' code begins, too.
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
from pbrl.nets.heads import StackedPolicy
from pbrl.nets.mlp import Normalizer, StackedMLP, freeze, through
from pbrl.optim import Adam, track
from pbrl.spec import Spec


@dataclass(frozen=True)
class TD3Config:
    """Settings of TD3; the defaults are those of the authors' code."""

    lr: float = 3e-4
    """Learning rate of Adam, for all networks."""
    gamma: float = 0.99
    """Discount per step."""
    target_rate: float = 0.005
    """Share of the networks that the target networks take on when the policy takes a step."""
    smoothing: float = 0.2
    """sigma: deviation of the noise on the target policy's action."""
    smoothing_clip: float = 0.5
    """c: bound on that noise."""
    exploration: float = 0.1
    """Deviation of the noise on actions that are drawn."""
    normalize_obs: bool = False
    """Subtract the mean of the data set's observations and divide by their deviation."""
    delay: int = shared(2)
    """Updates of the critics for each of the policy."""
    hidden: tuple[int, ...] = shared((256, 256))
    """Widths of the hidden layers of all networks."""
    batch_size: int = shared(256)
    """Transitions per update."""

    def __post_init__(self) -> None:
        check_range(self, "lr", 0.0, open_low=True)
        check_range(self, "gamma", 0.0, 1.0)
        check_range(self, "target_rate", 0.0, 1.0)
        check_range(self, "smoothing", 0.0)
        check_range(self, "smoothing_clip", 0.0)
        check_range(self, "exploration", 0.0)
        check_range(self, "delay", 1)
        check_range(self, "batch_size", 1)
        check_sizes(self, "hidden")


class TD3(nn.Module):
    """Stacked TD3."""

    keys: Tensor
    gamma: Tensor
    target_rate: Tensor
    smoothing: Tensor
    smoothing_clip: Tensor
    exploration: Tensor

    def __init__(self, spec: Spec, members: Members[TD3Config]) -> None:
        super().__init__()
        self.config = members.shared
        self.count = Count()
        self.register_buffer("keys", members.keys)
        for name in ("gamma", "target_rate", "smoothing", "smoothing_clip", "exploration"):
            self.register_buffer(name, members.column(name))
        self.normalizer = Normalizer(spec, members.column("normalize_obs"))
        self.q, self.policy = self._networks(spec, members)
        self.target, self.target_policy = map(freeze, self._networks(spec, members))
        lr = members.column("lr")
        self.critic_adam = Adam(self.q.parameters(), lr)
        self.actor_adam = Adam(self.policy.parameters(), lr)
        self._descend_q = descent(self._critic_loss, members.compile)
        self._descend_pi = descent(self._actor_loss, members.compile)

    def _networks(self, spec: Spec, members: Members[TD3Config]) -> tuple[StackedMLP, StackedPolicy]:
        hidden, dtype = members.shared.hidden, members.dtype
        q = StackedMLP(
            rng.fold(members.keys, "q"), (spec.obs_size + spec.act_size, *hidden, 1), ensemble=2, dtype=dtype
        )
        keys = rng.fold(members.keys, "policy")
        return q, StackedPolicy(keys, spec.obs_size, spec.act_size, kind="deterministic", hidden=hidden, dtype=dtype)

    @property
    def updates(self) -> int:
        """How many updates have been made."""
        return self.count.value

    def wants(self) -> Wants:
        """Transitions."""
        return {"transitions": self.config.batch_size}

    def act(self, obs: Tensor, key: Tensor | None = None) -> Tensor:
        """obs [P, B, O] -> [P, B, A]: the policy's action, with noise where there is a key."""
        act = self.policy.choose(self.normalizer(obs))
        if key is None:
            return act
        noise = rng.normal(key, *act.shape[1:], dtype=act.dtype)
        return (act + self.exploration[:, None, None] * noise).clamp(-1.0, 1.0)

    def update(self, batch: Batch) -> Metrics:
        """One step of the critics, and of the policy when it is due."""
        key = rng.fold(self.keys, "smoothing", self.updates)
        metrics = self._descend_q({self.critic_adam: 1.0}, batch["transitions"], key)
        self.count.value += 1
        if self.updates % self.config.delay == 0:
            metrics |= self._descend_pi({self.actor_adam: 1.0}, batch["transitions"])
            track(self.target, self.q, self.target_rate)
            track(self.target_policy, self.policy, self.target_rate)
        return metrics

    def _smoothed(self, next_obs: Tensor, key: Tensor) -> Tensor:
        """a~ [P, B, A] at next_obs [P, B, O] (normalised), without a graph."""
        with torch.no_grad():
            act: Tensor = self.target_policy(next_obs).mode()
            bound = self.smoothing_clip[:, None, None]
            noise = self.smoothing[:, None, None] * rng.normal(key, *act.shape[1:], dtype=act.dtype)
            noise = torch.minimum(torch.maximum(noise, -bound), bound)
            return (act + noise).clamp(-1.0, 1.0)

    def _critic_loss(self, batch: Transitions, key: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """L_Q summed over the critics, [P], and metrics."""
        obs, next_obs = self.normalizer(batch.obs), self.normalizer(batch.next_obs)
        with torch.no_grad():
            next_act = self._smoothed(next_obs, key)
            best = self.target(torch.cat([next_obs, next_act], dim=-1)).squeeze(-1).amin(1)  # [P, B]
            goal = batch.rew + self.gamma[:, None] * (1.0 - batch.term) * best
        q = self.q(torch.cat([obs, batch.act], dim=-1)).squeeze(-1)  # [P, 2, B]
        loss = (goal.unsqueeze(1) - q).square().mean(-1).sum(1)
        return loss, {"loss_q": loss, "value": q.mean((1, 2))}

    def _actor_loss(self, batch: Transitions) -> tuple[Tensor, dict[str, Tensor]]:
        """L_pi, [P], and it as a metric."""
        obs = self.normalizer(batch.obs)
        act = self.policy(obs).mode()
        value: Tensor = through(self.q, torch.cat([obs, act], dim=-1), copies=1)[:, 0].squeeze(-1)  # [P, B] of Q_1
        loss = -value.mean(-1)
        return loss, {"loss_pi": loss}
