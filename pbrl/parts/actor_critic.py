"""What on-policy agents share: a policy, a value per objective, running statistics, and advantages of a rollout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .. import losses, rng
from ..agent import Count
from ..data.rollout import Rollout
from ..data.source import Wants
from ..errors import InputError
from ..members import Members, check_range, check_sizes, shared
from ..nets.actors import StackedActor, tanh_mlp
from ..nets.running import RewardScale, RunningNormalizer
from ..spec import Spec


class Steps(NamedTuple):
    """Steps of a rollout in any order: obs [P, B, O] normalised, act [P, B, A], and what was found out about each.

    ``old`` [P, B] is log pi of the policy that played, ``advantage`` [P, B] is weighed into one number, and ``target``
    [P, B, K] is what the values should be.
    """

    obs: Tensor
    act: Tensor
    old: Tensor
    advantage: Tensor
    target: Tensor


@dataclass(frozen=True)
class ActorCriticConfig:
    """Settings that on-policy agents share; the defaults are those of PPO's paper for MuJoCo, where it names them."""

    lr: float = 3e-4
    """Learning rate of Adam."""
    gamma: float = 0.99
    """Discount per step."""
    gae_decay: float = 0.95
    """lambda of the advantages: 0 trusts the values alone, 1 the sampled rewards alone."""
    entropy_weight: float = 0.0
    """Weight of the policy's entropy."""
    max_grad: float = 0.5
    """Bound on the norm of a member's gradient, of each optimiser for itself."""
    init_log_std: float = 0.0
    """What the logarithm of the policy's deviation begins at; of no effect on choices."""
    normalize_obs: bool = True
    """Standardise observations by their running mean and deviation."""
    normalize_rewards: bool = True
    """Divide rewards by the running deviation of their discounted returns, each objective by its own."""
    normalize_advantages: bool = True
    """Standardise the advantages of a rollout."""
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
        check_range(self, "entropy_weight", 0.0)
        check_range(self, "max_grad", 0.0, open_low=True)
        check_range(self, "init_log_std", -5.0, 2.0)
        check_range(self, "steps", 1)
        check_range(self, "environments", 1)
        check_sizes(self, "hidden")


class ActorCritic(nn.Module):
    """P policies and critics that share no layers.

    Rewards are [..., K]: each objective has its own value, generalised advantage and scale; the advantages are weighed
    into one by the member's preference weights, in units of the raw rewards. Statistics of observations and rewards run
    on from rollout to rollout.

    Args:
        members: whose configs are an ``ActorCriticConfig``, or have these fields of one: gamma, gae_decay,
            init_log_std, normalize_obs, normalize_rewards, normalize_advantages, hidden, environments and steps.
        weights: [P, K] preference weights over the objectives; equal ones by default.

    Raises:
        InputError: weights of another shape, or that are not finite.
    """

    keys: Tensor
    weights: Tensor
    gamma: Tensor
    gae_decay: Tensor
    normalize_advantages: Tensor

    def __init__(self, spec: Spec, members: Members[Any], weights: Tensor | None = None) -> None:
        super().__init__()
        config = members.shared
        self.environments: int = config.environments
        self.steps: int = config.steps
        self.spec, self.count = spec, Count()
        self.register_buffer("keys", members.keys)
        for name in ("gamma", "gae_decay", "normalize_advantages"):
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

    @property
    def updates(self) -> int:
        """How many updates have been made."""
        return self.count.value

    def left(self, decay: int) -> float:
        """What is left after the updates so far of a factor that falls linearly from 1 to 0 over ``decay`` of them.

        A decay of 0: it stays 1.
        """
        return max(0.0, 1.0 - self.updates / decay) if decay else 1.0

    def wants(self) -> Wants:
        """A rollout."""
        return {"rollout": self.steps}

    def act(self, obs: Tensor, key: Tensor | None = None) -> Tensor:
        """obs [P, B, O] -> [P, B, A]."""
        return self.policy.choose(self.normalizer(obs), key)

    def draw(self, obs: Tensor, key: Tensor) -> Tensor:
        """obs [P, N, O] -> actions [P, N, A] of the policy, not yet clipped."""
        return self.policy.draw(self.normalizer(obs), key)

    @torch.no_grad()
    def estimates(self, rollout: Rollout) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Of the rollout's steps [P, B = T N, ...]: obs normalised, act, log pi, and by objective advantage and target.

        Advantages and targets [P, B, K] are on the scale of the normalised rewards, whose statistics see this rollout.
        """
        rew = rollout.rew if rollout.rew.dim() == 4 else rollout.rew.unsqueeze(-1)
        self.reward_scale.see(rew, rollout.ended)
        obs, next_obs = self.normalizer(rollout.obs), self.normalizer(rollout.next_obs)
        flat, act = obs.flatten(1, 2), rollout.act.flatten(1, 2)
        value = self.critic(flat).reshape(rew.shape)
        next_value = self.critic(next_obs.flatten(1, 2)).reshape(rew.shape)
        advantage = losses.gae(
            self.reward_scale(rew), value, next_value, rollout.term, rollout.ended, self.gamma, self.gae_decay
        )
        old, _ = self.policy.likelihood(flat, act)
        return flat, act, old, advantage.flatten(1, 2), (advantage + value).flatten(1, 2)

    @torch.no_grad()
    def rows(self, rollout: Rollout) -> Tensor:
        """[P, T N, columns] the rollout as rows that ``steps_of`` reads. Its rewards enter their running scale."""
        obs, act, old, advantage, target = self.estimates(rollout)
        raw = (advantage * (self.weights * self.reward_scale.scale)[:, None]).sum(-1)
        return torch.cat([obs, act, old.unsqueeze(-1), self.standardised(raw).unsqueeze(-1), target], -1)

    def steps_of(self, rows: Tensor) -> Steps:
        """What ``rows`` has put side by side."""
        sizes = (self.spec.obs_size, self.spec.act_size, 1, 1, self.spec.objectives)
        obs, act, old, advantage, target = rows.split(sizes, dim=-1)
        return Steps(obs, act, old.squeeze(-1), advantage.squeeze(-1), target)

    def shuffled(self, rows: Tensor, word: str, epoch: int) -> Tensor:
        """The rows in an order of this update and pass, by the member's key."""
        order = rng.permutation(rng.fold(self.keys, word, self.updates, epoch), rows.shape[1])
        return rows.gather(1, order.unsqueeze(-1).expand_as(rows))

    def standardised(self, advantage: Tensor) -> Tensor:
        """Advantages [P, B] less their mean, over their deviation, for members that want it."""
        centred = advantage - advantage.mean(1, keepdim=True)
        standard = centred / (advantage.std(1, correction=0, keepdim=True) + 1e-8)
        return torch.where(self.normalize_advantages[:, None] > 0, standard, advantage)

    def _parts(self) -> list[Tensor]:
        """Networks and running statistics, [P, ...] each."""
        moments = (self.normalizer.moments, self.reward_scale.moments)
        statistics = [x for module in moments for x in (module.count, module.mean, module.var)]
        return [*self.policy.parameters(), *self.critic.parameters(), *statistics]

    def vectors(self) -> Tensor:
        """[P, D] what makes each policy, and what it needs to learn on: networks and running statistics."""
        return torch.cat([x.detach().flatten(1) for x in self._parts()], 1)

    @torch.no_grad()
    def load_vectors(self, vectors: Tensor) -> None:
        """Turns every member into the one that ``vectors`` [P, D] was taken from."""
        parts = self._parts()
        for x, part in zip(parts, vectors.split([x[0].numel() for x in parts], dim=1)):
            x.copy_(part.reshape(x.shape))
