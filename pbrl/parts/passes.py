"""Several passes over a rollout in minibatches, by PPO's clipped loss; pure functions for agents that play."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import losses, rng
from ..data.rollout import Rollout
from ..members import check_range, shared
from ..nets.heads import Gaussian


@dataclass(frozen=True)
class PassesConfig:
    """Settings of an agent that learns online by passes over its rollouts, and on data before."""

    gamma: float = 0.99
    """Discount per step."""
    reward_scale: float = 0.1
    """Factor on rewards, of data and simulator."""
    online_lr: float = 3e-5
    """Learning rate of the policy online."""
    online_critic_lr: float = 2e-4
    """Learning rate of V online."""
    online_clip: float = 0.05
    """How far a ratio may move online before it stops to count."""
    gae_decay: float = 0.95
    """lambda of the advantages online."""
    entropy_weight: float = 0.01
    """What a nat of entropy is worth online."""
    steps: int = shared(2048)
    """Steps that each copy of the environment is played between updates online."""
    environments: int = shared(1)
    """Copies of the environment per member."""
    epochs: int = shared(10)
    """Passes over a rollout."""
    minibatch_size: int = shared(128)
    """Steps per minibatch of a rollout."""

    def __post_init__(self) -> None:
        for name in ("online_lr", "online_critic_lr", "reward_scale", "online_clip"):
            check_range(self, name, 0.0, open_low=True)
        check_range(self, "gamma", 0.0, 1.0)
        check_range(self, "gae_decay", 0.0, 1.0)
        check_range(self, "entropy_weight", 0.0)
        for name in ("steps", "environments", "epochs", "minibatch_size"):
            check_range(self, name, 1)


Values = Callable[[Tensor], Tensor]
"""obs [P, B, O] -> V [P, B, 1]."""


@torch.no_grad()
def rows_of(
    rollout: Rollout,
    obs: Tensor,
    next_obs: Tensor,
    *,
    policy: Callable[[Tensor], Gaussian],
    value: Values,
    gamma: Tensor,
    gae_decay: Tensor,
    reward_scale: Tensor,
) -> Tensor:
    """[P, T N, O + A + 3] obs, act, log pi of the policy that played, standardised advantage, and goal of V.

    Args:
        rollout: of one reward per step.
        obs: [P, T, N, O] its observations as the networks see them.
        next_obs: [P, T, N, O] what followed.
        policy: the policy that played.
        value: V.
        gamma: [P].
        gae_decay: [P] lambda.
        reward_scale: [P] factor on rewards.
    """
    flat, act = obs.flatten(1, 2), rollout.act.flatten(1, 2)
    shape = rollout.term.shape  # [P, T, N]
    here, after = (value(x.flatten(1, 2)).reshape(*shape, 1) for x in (obs, next_obs))
    rew = reward_scale[:, None, None, None] * rollout.rew.reshape(*shape, 1)
    ended = torch.maximum(rollout.term, rollout.trunc)
    advantage = losses.gae(rew, here, after, rollout.term, ended, gamma, gae_decay)
    told = (policy(flat).log_prob(act), losses.standardised(advantage.flatten(1)), (advantage + here).flatten(1))
    return torch.cat([flat, act, *(x.unsqueeze(-1) for x in told)], dim=-1)


def minibatches(rows: Tensor, keys: Tensor, update: int, *, epochs: int, size: int) -> Iterator[Tensor]:
    """The rows [P, B, columns] in minibatches [P, size, columns], each pass in an order of the member's own."""
    for epoch in range(epochs):
        order = rng.permutation(rng.fold(keys, "order", update, epoch), rows.shape[1])
        yield from rows.gather(1, order.unsqueeze(-1).expand_as(rows)).split(size, dim=1)


def learn(
    rows: Tensor,
    keys: Tensor,
    update: int,
    descend: Callable[[Tensor], dict[str, Tensor]],
    *,
    epochs: int,
    size: int,
) -> dict[str, Tensor]:
    """``descend``, a step, for each of the ``minibatches``; the means of its metrics."""
    seen: dict[str, list[Tensor]] = {}
    for minibatch in minibatches(rows, keys, update, epochs=epochs, size=size):
        for name, value in descend(minibatch).items():
            seen.setdefault(name, []).append(value)
    return {name: torch.stack(values).mean(0) for name, values in seen.items()}


def clipped_losses(
    rows: Tensor,
    obs_size: int,
    policy: Callable[[Tensor], Gaussian],
    value: Values,
    *,
    clip: Tensor,
    entropy_weight: Tensor,
) -> tuple[Tensor, dict[str, Tensor]]:
    """PPO's loss less the entropy's worth plus V's squared error, [P], of ``rows_of``'s rows; and metrics."""
    obs, act, told = rows.split((obs_size, rows.shape[-1] - obs_size - 3, 3), dim=-1)
    old, advantage, goal = told.unbind(-1)
    head = policy(obs)
    moved = head.log_prob(act) - old
    ratio, entropy = moved.exp(), head.entropy().mean(1)
    loss_pi = losses.ppo_clip(ratio, advantage, clip[:, None]).mean(1)
    loss_v = (value(obs).squeeze(-1) - goal).square().mean(1)
    loss = loss_pi - entropy_weight * entropy + loss_v
    metrics = {"loss_pi": loss_pi, "loss_v": loss_v, "entropy": entropy, "kl": (ratio - 1.0 - moved).mean(1)}
    return loss, metrics
