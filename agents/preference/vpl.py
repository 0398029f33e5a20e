"""VPL: variational preference learning, for users who want different things (Poddar et al., NeurIPS 2024).

A user is a hidden z; an encoder guesses it from the user's answers, a decoder is the reward of such a user:

    L = E_users[ sum_i cross-entropy(y_i, sigmoid(R(second_i, z) - R(first_i, z))) + beta KL(q(z | answers) || p(z)) ]

with R(segment, z) = sum_t r(s_t, a_t, z), z ~ q(z | answers) by reparametrisation, p(z) a Gaussian (learned or
standard) and beta rising from 0 to ``kl_weight`` along a cosine, ``cycles`` times. Where beta is 1, L is minus the
evidence lower bound of a user's answers. Second stage: ``iql`` on observations followed by z, the rewards being those
of z ~ p(z), drawn anew every ten trajectories. Then ``condition`` tells the agent some answers of a user, and it acts
for that user, z being the posterior's mean. Told nothing, it takes the prior's mean.

Deviations (beside those of ``iql``):
- The KL divergence has its factor 1/2; the authors' code leaves it out (``kl_weight = 2`` does the same).
- The encoder takes any number of answers in any order; theirs takes exactly N, one after the other. In training the
  number is drawn from 1 to ``context``, so that few answers are understood, too.
- The scale "spo" makes rewards P(this step is better than a step of the data | z), mean over 1000 steps, as in their
  VPL-SPO; the probability is that of the same decoder, sigmoid(r - r'), not of a classifier trained on pairs of states.
- Leaky ReLUs have slope .01, and theirs .2. Users are drawn with equal chances however many pairs each has answered,
  and a user's answers without repetition.
- Rewards depend on the action, too; a batch has 16 users (their 256 sets are of single states); preferences that do not
  tell users apart are one user's.
- Adam's epsilon is 1e-5 in the first stage and the decoder has no output bias: what adds the same to both segments of a
  pair has no gradient, and at the usual 1e-8 rounding errors would move it.
- Which queries tell most about z (their active learning) is not built, nor is the flow prior.
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
from pbrl.data.dataset import Dataset
from pbrl.data.source import Batch, LabelledPairs, Source, Wants
from pbrl.descent import descent
from pbrl.errors import InputError
from pbrl.members import Members, check_range, check_sizes, shared
from pbrl.nets.user_rewards import UserRewards
from pbrl.optim import Adam
from pbrl.spec import Spec

from ..offline.iql import IQL, IQLConfig

_ROWS = 1 << 12
_COMPARED = 1000


@dataclass(frozen=True)
class VPLConfig(IQLConfig):
    """Settings of VPL: those of IQL (the paper's for mazes), and those of the rewards of its users."""

    expectile: float = 0.9
    """tau of IQL's value: 0.5 learns the behaviour's value, towards 1 the best action's."""
    temperature: float = 10.0
    """beta of IQL's policy: 0 is behaviour cloning, larger follows the advantage more."""
    hidden: tuple[int, ...] = shared(IQLConfig.hidden)
    """Widths of the hidden layers of IQL's networks; encoder and decoder have their own."""
    batch_size: int = shared(IQLConfig.batch_size)
    """Transitions per update of IQL."""
    reward_lr: float = 1e-3
    """Learning rate of encoder, decoder and prior."""
    kl_weight: float = 1.0
    """What beta rises to: 1 is the evidence lower bound."""
    reward_updates: int = shared(50_000, schedule="stage")
    """Updates of the first stage."""
    cycles: int = shared(4)
    """How often beta rises from 0 in the first stage."""
    prior: Literal["learned", "standard"] = shared("learned")
    """Whether mean and variance of p(z) are learned, or 0 and 1."""
    scale: Literal["none", "spo"] = shared("none")
    """Rewards of the second stage: the decoder's, or the probability of being better than a step of the data."""
    latent: int = shared(32)
    """Numbers in z."""
    context: int = shared(16)
    """Answers of one user, at most, that an update of the first stage goes by; every user must have given as many."""
    trajectories: int = shared(10)
    """Trajectories that share a draw of z in the second stage."""
    reward_hidden: tuple[int, ...] = shared((256, 256, 256))
    """Widths of the hidden layers of encoder and decoder."""
    reward_batch_size: int = shared(16)
    """Users per update of the first stage."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "reward_lr", 0.0, open_low=True)
        check_range(self, "kl_weight", 0.0)
        for name in ("reward_updates", "cycles", "latent", "context", "trajectories", "reward_batch_size"):
            check_range(self, name, 1)
        check_sizes(self, "reward_hidden")


class VPL(nn.Module):
    """Stacked VPL."""

    keys: Tensor
    kl_weight: Tensor
    offset: Tensor

    def __init__(self, spec: Spec, members: Members[VPLConfig]) -> None:
        super().__init__()
        self.config = config = members.shared
        self.count = Count()
        self.register_buffer("keys", members.keys)
        self.register_buffer("kl_weight", members.column("kl_weight"))
        self.rewards = UserRewards(
            rng.fold(members.keys, "rewards"),
            spec,
            hidden=config.reward_hidden,
            latent=config.latent,
            answers=config.context,
            learned=config.prior == "learned",
            normalize=members.column("normalize_obs"),
        )
        learned = [weight for weight in self.rewards.parameters() if weight.requires_grad]
        self.adam = Adam(learned, members.column("reward_lr"), eps=1e-5)
        # How far the z to act for lies from the prior's mean, which moves in training: [P, 1, Z].
        self.register_buffer("offset", torch.zeros_like(self.rewards.prior_mean.detach()))
        zeros, ones = (0.0,) * config.latent, (1.0 - 1e-3,) * config.latent  # the normaliser adds 1e-3
        wide = dataclasses.replace(
            spec,
            obs_size=spec.obs_size + config.latent,
            obs_mean=None if spec.obs_mean is None else (*spec.obs_mean, *zeros),
            obs_std=None if spec.obs_std is None else (*spec.obs_std, *ones),
        )
        self.iql = IQL(wide, members)
        self._descend = descent(self._loss, members.compile)

    @property
    def updates(self) -> int:
        """How many updates have been made, of both stages."""
        return self.count.value + self.iql.updates

    @property
    def boundaries(self) -> tuple[int, ...]:
        """IQL begins after ``reward_updates``."""
        return (self.config.reward_updates,)

    def prepare(self, source: Source) -> Source:
        """Pairs drawn user by user; in the second stage, transitions with a z each and its rewards."""
        if source.dataset is None:
            raise InputError("vpl learns from transitions too, expected a data set and not preferences alone")
        if self.updates < self.config.reward_updates:
            return source.by_user(self.config.context)
        return self.iql.prepare(self._relabelled(source, source.dataset))

    def wants(self) -> Wants:
        """Labelled pairs, ``context`` of each user, then transitions."""
        if self.updates < self.config.reward_updates:
            return {"pairs": self.config.reward_batch_size * self.config.context}
        return self.iql.wants()

    def condition(self, answers: LabelledPairs | None) -> None:
        """Act and judge from now on for the user who gave these answers ([P, N] of them); None: for nobody known."""
        self.offset.zero_()
        if answers is not None:
            with torch.no_grad():
                mean, _ = self.rewards.posterior(answers, torch.ones_like(answers.label).unsqueeze(1))
                self.offset.copy_(mean - self.rewards.prior_mean)

    @property
    def latent(self) -> Tensor:
        """[P, 1, Z] the z to act for."""
        return self.rewards.prior_mean.detach() + self.offset

    def act(self, obs: Tensor, key: Tensor | None = None) -> Tensor:
        """obs [P, B, O] -> [P, B, A]."""
        return self.iql.act(torch.cat([obs, self.latent.expand(-1, obs.shape[1], -1)], dim=-1), key)

    def reward(self, obs: Tensor, act: Tensor) -> Tensor:
        """The user's reward, not scaled: obs [P, ..., O], act [P, ..., A] -> [P, ...]."""
        flat = obs.flatten(1, -2)
        with torch.no_grad():
            reward = self.rewards.decode(flat, act.flatten(1, -2), self.latent.expand(-1, flat.shape[1], -1))
        return reward.reshape(obs.shape[:-1])

    def judge(self, obs: Tensor, act: Tensor) -> Tensor:
        """What each segment is worth to the user: obs [P, M, T, O], act [P, M, T, A] -> [P, M]."""
        return self.reward(obs, act).sum(-1)

    def update(self, batch: Batch) -> Metrics:
        """One step down L, then of IQL. The metric ``nll`` is minus the lower bound, per answer."""
        config, done = self.config, self.updates
        if done >= config.reward_updates:
            return self.iql.update(batch)
        pairs, key = batch["pairs"], rng.fold(self.keys, "users", done)
        count = 1 + rng.indices(rng.fold(key, "count"), config.reward_batch_size, config.context)  # [P, U]
        place = torch.arange(config.context, device=count.device)  # answers come in random order: the first ones count
        known = (place < count.unsqueeze(-1)).to(pairs.obs.dtype)
        noise = rng.normal(rng.fold(key, "noise"), config.reward_batch_size, config.latent, dtype=pairs.obs.dtype)
        period = config.reward_updates / config.cycles
        beta = self.kl_weight * (0.5 - 0.5 * math.cos(math.pi * (done % period) / period))
        metrics = self._descend({self.adam: 1.0}, pairs, known, noise, beta)
        self.count.value += 1
        return metrics

    def _loss(
        self, pairs: LabelledPairs, known: Tensor, noise: Tensor, beta: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """L at KL weights ``beta`` [P], [P], and metrics; the others are ``UserRewards.bound``'s."""
        fit, divergence, difference = self.rewards.bound(pairs, known, noise)
        loss = (fit + beta[:, None] * divergence).mean(1)
        return loss, {
            "loss": loss,
            "nll": ((fit + divergence) / known.sum(-1)).mean(1),
            "kl": divergence.mean(1),
            "accuracy": losses.accuracy(difference, pairs.label),
        }

    @torch.no_grad()
    def _relabelled(self, source: Source, data: Dataset) -> Source:
        """The source with a z for every ``trajectories`` trajectories, and the rewards of such users."""
        device, dtype = self.keys.device, self.kl_weight.dtype
        obs, act = (x.to(device, dtype).expand(len(self.keys), -1, -1) for x in (data.obs, data.act))
        episode = torch.repeat_interleave(torch.arange(len(data.start), device=data.start.device), data.lengths)
        group = (episode // self.config.trajectories).to(device)
        key = rng.fold(self.keys, "relabel")
        latent = self.rewards.draw(key, int(group[-1]) + 1)  # [P, G, Z]
        chosen = rng.indices(rng.fold(key, "compared"), _COMPARED, len(data))[..., None]  # [P, M, 1]
        other = [x.gather(1, chosen.expand(-1, -1, x.shape[-1])) for x in (obs, act)]

        def decode(seen: Tensor, done: Tensor, user: Tensor) -> Tensor:
            return self.rewards.decode(seen, done, user.expand(-1, seen.shape[1], -1))

        parts = []
        for number in range(latent.shape[1]):
            user = latent[:, number : number + 1]
            for rows in (group == number).nonzero().squeeze(1).split(_ROWS):
                reward = decode(obs[:, rows], act[:, rows], user)
                if self.config.scale == "spo":
                    known = decode(other[0], other[1], user)
                    reward = torch.sigmoid(reward.unsqueeze(-1) - known.unsqueeze(1)).mean(-1)
                parts.append(reward)
        return source.with_reward(torch.cat(parts, dim=1)).with_context(latent, group)
