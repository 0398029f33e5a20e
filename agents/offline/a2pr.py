"""A2PR: advantage-guided policy regularisation (Liu et al., ICML 2024).

``td3`` whose policy is drawn to the better one of the data's action and an action made by an autoencoder of actions:

    L_V   = E[ (min(y_target, y) - V(s))^2 ],   y_target, y = r + gamma (1 - term) min_i {Qbar_i, Q_i}(s', a~)
    L_VAE = w E[ 1(Q_1(s, a) > V(s)) |VAE(s, a) - a|^2 / A ] + E[ KL / 4 A ]
    L_pi  = -lambda E[ Q_1(s, pi(s)) ] + m E[ 1(Q_1(s, b) >= V(s) or Q_1(s, a) > V(s)) |pi(s) - c|^2 / A ]
    b = VAE(s, pi(s));   c = b where Q_1(s, b) >= Q_1(s, a), or else a

with lambda = alpha / mean |Q_1| as in ``td3_bc``. The autoencoder learns those actions of the data that are better than
V, so that cloning is of good actions and stops where neither is good. m is ``cloning``, w ``vae_weight``.

Deviations:
- Those of ``td3``; one width for the policy, the critics and V (the authors': 3 and 4 layers).
- No gradient passes through b; in the authors' code it does, where a good autoencoder cancels the pull towards it.
- V, as the comparisons see it, is that before the update, as in the authors' code; the autoencoder, too.
- m and w are single numbers; the authors tune them for each data set, and have published three of those settings.
- Time limits bootstrap; the authors' data lack the rows at time limits.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pbrl import rng
from pbrl.agent import Metrics
from pbrl.data.source import Batch, Transitions
from pbrl.descent import descent
from pbrl.members import Members, check_range, check_sizes, shared
from pbrl.nets.action_vae import StackedActionVAE
from pbrl.nets.mlp import StackedMLP, through
from pbrl.optim import Adam, track
from pbrl.spec import Spec

from ..off_policy.td3 import TD3, TD3Config
from .td3_bc import climb


@dataclass(frozen=True)
class A2PRConfig(TD3Config):
    """Settings of A2PR: those of TD3, and what the policy is drawn to."""

    alpha: float = 2.5
    """Weight of the critic, in multiples of its own mean size (40 for HalfCheetah-medium)."""
    cloning: float = 0.5
    """m: weight of the distance to the better action (1 for HalfCheetah- and Walker2d-medium, 0.4 for Hopper's)."""
    vae_weight: float = 1.0
    """w: weight of good actions beside the latent's divergence (1.5 for Walker2d-medium)."""
    vae_lr: float = 1e-3
    """Learning rate of the autoencoder."""
    normalize_obs: bool = True
    """Subtract the mean of the data set's observations and divide by their deviation."""
    hidden: tuple[int, ...] = shared((256, 256, 256))
    """Widths of the hidden layers of the policy, the critics and V."""
    vae_hidden: tuple[int, ...] = shared((750, 750))
    """Widths of the hidden layers of the encoder and of the decoder."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "alpha", 0.0)
        check_range(self, "cloning", 0.0)
        check_range(self, "vae_weight", 0.0)
        check_range(self, "vae_lr", 0.0, open_low=True)
        check_sizes(self, "vae_hidden")


class A2PR(TD3):
    """Stacked A2PR."""

    alpha: Tensor
    cloning: Tensor
    vae_weight: Tensor

    def __init__(self, spec: Spec, members: Members[A2PRConfig]) -> None:
        super().__init__(spec, members)
        config, keys = members.shared, members.keys
        for name in ("alpha", "cloning", "vae_weight"):
            self.register_buffer(name, members.column(name))
        self.v = StackedMLP(rng.fold(keys, "v"), (spec.obs_size, *config.hidden, 1), dtype=members.dtype)
        self.vae = StackedActionVAE(
            rng.fold(keys, "vae"), spec.obs_size, spec.act_size, hidden=config.vae_hidden, dtype=members.dtype
        )
        self.critic_adam = Adam([*self.q.parameters(), *self.v.parameters()], members.column("lr"))
        self.vae_adam = Adam(self.vae.parameters(), members.column("vae_lr"))
        self._descend_vae = descent(self._vae_loss, members.compile)
        self._descend_both = descent(self._both_losses, members.compile)

    def update(self, batch: Batch) -> Metrics:
        """One step of critics, V and autoencoder, and of the policy when it is due."""
        data, key = batch["transitions"], rng.fold(self.keys, "made", self.updates)
        with torch.no_grad():
            value = self.v(self.normalizer(data.obs)).squeeze(-1)
        metrics = self._descend_q({self.critic_adam: 1.0}, data, rng.fold(self.keys, "smoothing", self.updates))
        self.count.value += 1
        if self.updates % self.config.delay:
            return metrics | self._descend_vae({self.vae_adam: 1.0}, data, value, rng.fold(key, "data"))
        metrics |= self._descend_both({self.vae_adam: 1.0, self.actor_adam: 1.0}, data, value, key)
        track(self.target, self.q, self.target_rate)
        track(self.target_policy, self.policy, self.target_rate)
        return metrics

    def _critic_loss(self, batch: Transitions, key: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """L_Q + L_V, [P], of which no gradient reaches the other's networks; and metrics."""
        obs, next_obs = self.normalizer(batch.obs), self.normalizer(batch.next_obs)
        discount = self.gamma[:, None] * (1.0 - batch.term)
        with torch.no_grad():
            ahead = torch.cat([next_obs, self._smoothed(next_obs, key)], dim=-1)
            goal = batch.rew + discount * self.target(ahead).squeeze(-1).amin(1)  # [P, B]
            lower = torch.minimum(goal, batch.rew + discount * self.q(ahead).squeeze(-1).amin(1))
        q = self.q(torch.cat([obs, batch.act], dim=-1)).squeeze(-1)  # [P, 2, B]
        loss_q = (goal.unsqueeze(1) - q).square().mean(-1).sum(1)
        loss_v = (lower - self.v(obs).squeeze(-1)).square().mean(-1)
        metrics = {"loss_q": loss_q, "loss_v": loss_v, "value": q.mean((1, 2))}
        return loss_q + loss_v, metrics

    def _both_losses(self, batch: Transitions, value: Tensor, key: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """L_VAE and L_pi, each [P], of which no gradient reaches the other's network; and metrics."""
        loss_vae, metrics = self._vae_loss(batch, value, rng.fold(key, "data"))
        loss_pi, more = self._guided_loss(batch, value, rng.fold(key, "policy"))
        return loss_vae, loss_pi, metrics | more

    def _vae_loss(self, batch: Transitions, value: Tensor, key: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """L_VAE, [P], and it as a metric; value [P, B] is V(s)."""
        obs = self.normalizer(batch.obs)
        with torch.no_grad():
            good = self._first(obs, batch.act) > value
        made, divergence = self.vae(obs, batch.act, key)
        distance = (good * (made - batch.act).square().mean(-1)).mean(-1)
        loss: Tensor = self.vae_weight * distance + 0.5 * divergence.mean(-1) / self.vae.latent
        return loss, {"loss_vae": loss}

    def _guided_loss(self, batch: Transitions, value: Tensor, key: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """L_pi, [P], and metrics; value [P, B] is V(s)."""
        obs = self.normalizer(batch.obs)
        act = self.policy(obs).mode()
        worth = self._first(obs, act)
        with torch.no_grad():
            made, _ = self.vae(obs, act, key)
            take, near = guide(self._first(obs, batch.act), self._first(obs, made), value)
            better = torch.where(take.unsqueeze(-1), made, batch.act)
        distance = (near * (act - better).square().mean(-1)).mean(-1)
        loss = climb(worth, self.alpha) + self.cloning * distance
        shares = {"made": take.to(worth.dtype).mean(-1), "near": near.to(worth.dtype).mean(-1)}
        return loss, {"loss_pi": loss, **shares}

    def _first(self, obs: Tensor, act: Tensor) -> Tensor:
        """Q_1 of obs (normalised) and actions, [P, B]; its gradients reach the actions alone."""
        value: Tensor = through(self.q, torch.cat([obs, act], dim=-1), copies=1)[:, 0].squeeze(-1)
        return value


def guide(known: Tensor, made: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Whether the made action stands for the data's, and whether the policy is drawn to it at all, [P, B] each.

    known and made [P, B] are Q_1 of the data's and of the made action, value [P, B] is V.
    """
    return made >= known, (made >= value) | (known > value)
