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
from torch import Tensor, nn

from pbrl import losses, rng
from pbrl.actors import StackedActor, tanh_mlp
from pbrl.agent import Count, Metrics
from pbrl.compiler import compiled
from pbrl.data.rollout import Rollout
from pbrl.data.source import Batch, Wants
from pbrl.errors import InputError
from pbrl.members import Members, check_range, check_sizes, shared
from pbrl.optim import Adam, minimise
from pbrl.running import RewardScale, RunningNormalizer
from pbrl.spec import Spec


@dataclass(frozen=True)
class PPOConfig:
    """Settings of PPO; the defaults are the paper's for MuJoCo, where it names them."""

    lr: float = 3e-4
    """Learning rate of Adam."""
    gamma: float = 0.99
    """Discount per step."""
    gae_decay: float = 0.95
    """lambda of the advantages: 0 trusts the values alone, 1 the sampled rewards alone."""
    clip: float = 0.2
    """c of equation 7: how far a ratio may move before it stops to count."""
    value_weight: float = 0.5
    """c1 of equation 9."""
    entropy_weight: float = 0.0
    """c2 of equation 9."""
    max_grad: float = 0.5
    """Bound on the norm of a member's gradient."""
    init_log_std: float = 0.0
    """What the logarithm of the policy's deviation begins at; of no effect on choices."""
    normalize_obs: bool = True
    """Standardise observations by their running mean and deviation."""
    normalize_rewards: bool = True
    """Divide rewards by the running deviation of their discounted returns, each objective by its own."""
    normalize_advantages: bool = True
    """Standardise the advantages of a rollout."""
    lr_decay: int = shared(0)
    """Updates over which the learning rate falls linearly to 0; 0 keeps it constant."""
    epochs: int = shared(10)
    """Passes over a rollout."""
    batch_size: int = shared(64)
    """Steps per minibatch; the last one of a pass may be smaller."""
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
        check_range(self, "clip", 0.0, open_low=True)
        check_range(self, "value_weight", 0.0)
        check_range(self, "entropy_weight", 0.0)
        check_range(self, "max_grad", 0.0, open_low=True)
        check_range(self, "init_log_std", -5.0, 2.0)
        for name in ("epochs", "batch_size", "steps", "environments"):
            check_range(self, name, 1)
        check_range(self, "lr_decay", 0)
        check_sizes(self, "hidden")


class PPO(nn.Module):
    """Stacked PPO.

    Args:
        weights: [P, K] preference weights over the objectives; equal ones by default.
    """

    keys: Tensor
    weights: Tensor
    gamma: Tensor
    gae_decay: Tensor
    clip: Tensor
    value_weight: Tensor
    entropy_weight: Tensor
    normalize_advantages: Tensor

    def __init__(self, spec: Spec, members: Members[PPOConfig], weights: Tensor | None = None) -> None:
        super().__init__()
        self.config = config = members.shared
        self.spec, self.count = spec, Count()
        self.register_buffer("keys", members.keys)
        for name in ("gamma", "gae_decay", "clip", "value_weight", "entropy_weight", "normalize_advantages"):
            self.register_buffer(name, members.column(name))
        shape = (len(members), spec.objectives)
        if weights is None:
            weights = torch.full(shape, 1.0 / spec.objectives)
        if weights.shape != shape or not weights.isfinite().all():
            raise InputError(f"preference weights have shape {list(weights.shape)}, expected finite ones {list(shape)}")
        self.register_buffer("weights", weights.to(members.device, members.dtype))
        on = members.column("normalize_rewards")
        self.normalizer = RunningNormalizer(members.keys, spec.obs_size, members.column("normalize_obs"))
        self.reward_scale = RewardScale(members.keys, config.environments, spec.objectives, self.gamma, on)
        self.policy = StackedActor(
            rng.fold(members.keys, "policy"),
            spec,
            hidden=config.hidden,
            log_std=members.column("init_log_std"),
            dtype=members.dtype,
        )
        sizes = (spec.obs_size, *config.hidden, spec.objectives)
        self.critic = tanh_mlp(rng.fold(members.keys, "critic"), sizes, last=1.0, dtype=members.dtype)
        both = [*self.policy.parameters(), *self.critic.parameters()]
        self.adam = Adam(both, members.column("lr"), clip=members.column("max_grad"), eps=1e-5)
        self._objective = compiled(self._losses, members.compile)

    @property
    def updates(self) -> int:
        """How many updates have been made."""
        return self.count.value

    @property
    def environments(self) -> int:
        """N, copies of the environment per member."""
        return self.config.environments

    def wants(self) -> Wants:
        """A rollout."""
        return {"rollout": self.config.steps}

    def act(self, obs: Tensor, key: Tensor | None = None) -> Tensor:
        """obs [P, B, O] -> [P, B, A]."""
        return self.policy.choose(self.normalizer(obs), key)

    def draw(self, obs: Tensor, key: Tensor) -> Tensor:
        """obs [P, N, O] -> actions [P, N, A] of the policy, not yet clipped."""
        return self.policy.draw(self.normalizer(obs), key)

    def update(self, batch: Batch) -> Metrics:
        """Several passes over one rollout."""
        rollout = batch["rollout"]
        rows = self._rows(rollout)
        decay = self.config.lr_decay
        scale = max(0.0, 1.0 - self.updates / decay) if decay else 1.0
        seen: dict[str, list[Tensor]] = {}
        for epoch in range(self.config.epochs):
            order = rng.permutation(rng.fold(self.keys, "order", self.updates, epoch), rows.shape[1])
            shuffled = rows.gather(1, order.unsqueeze(-1).expand_as(rows))
            for minibatch in shuffled.split(self.config.batch_size, dim=1):
                loss, metrics = self._objective(minibatch)
                minimise(loss, {self.adam: scale})
                for name, value in metrics.items():
                    seen.setdefault(name, []).append(value)
        self.normalizer.see(rollout.obs)
        self.count.value += 1
        return {name: torch.stack(values).mean(0) for name, values in seen.items()}

    @torch.no_grad()
    def _rows(self, rollout: Rollout) -> Tensor:
        """[P, T N, O + A + 2 + K] the rollout as rows: obs (normalised), act, old log pi, advantage, value target."""
        ended = torch.maximum(rollout.term, rollout.trunc)
        rew = rollout.rew if rollout.rew.dim() == 4 else rollout.rew.unsqueeze(-1)
        self.reward_scale.see(rew, ended)
        obs, next_obs = self.normalizer(rollout.obs), self.normalizer(rollout.next_obs)
        flat, act = obs.flatten(1, 2), rollout.act.flatten(1, 2)
        value = self.critic(flat).reshape(rew.shape)
        next_value = self.critic(next_obs.flatten(1, 2)).reshape(rew.shape)
        advantage = losses.gae(
            self.reward_scale(rew), value, next_value, rollout.term, ended, self.gamma, self.gae_decay
        )
        old, _ = self.policy.likelihood(flat, act)
        raw = (advantage * (self.weights * self.reward_scale.scale)[:, None, None]).sum(-1)
        target = (advantage + value).flatten(1, 2)
        return torch.cat([flat, act, old.unsqueeze(-1), self.standardised(raw.flatten(1)).unsqueeze(-1), target], -1)

    def standardised(self, advantage: Tensor) -> Tensor:
        """Advantages [P, B] less their mean, over their deviation, for members that want it."""
        centred = advantage - advantage.mean(1, keepdim=True)
        standard = centred / (advantage.std(1, correction=0, keepdim=True) + 1e-8)
        return torch.where(self.normalize_advantages[:, None] > 0, standard, advantage)

    def _losses(self, rows: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Equation 9 turned to a loss, [P], and metrics."""
        sizes = (self.spec.obs_size, self.spec.act_size, 1, 1, self.spec.objectives)
        obs, act, old, advantage, target = rows.split(sizes, dim=-1)
        log_prob, entropy = self.policy.likelihood(obs, act)
        moved = log_prob - old.squeeze(-1)
        ratio = moved.exp()
        loss_pi = self.surrogate(ratio, moved, advantage.squeeze(-1)).mean(1)
        loss_v = (self.critic(obs) - target).square().mean((1, 2))
        loss = loss_pi + self.value_weight * loss_v - self.entropy_weight * entropy.mean(1)
        metrics = {
            "loss_pi": loss_pi,
            "loss_v": loss_v,
            "entropy": entropy.mean(1),
            "kl": (ratio - 1.0 - moved).mean(1),
            "clipped": ((ratio - 1.0).abs() > self.clip[:, None]).to(ratio.dtype).mean(1),
        }
        return loss, {name: metric.detach() for name, metric in metrics.items()}

    def surrogate(self, ratio: Tensor, moved: Tensor, advantage: Tensor) -> Tensor:  # noqa: ARG002  others go by moved
        """What is minimised in place of the policy's loss, [P, B]; ``moved`` is the logarithm of the ratio."""
        return losses.ppo_clip(ratio, advantage, self.clip[:, None])
