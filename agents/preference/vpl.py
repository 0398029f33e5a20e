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
- Rewards depend on the action, too; a batch has 16 users (their 256 sets are of single states); preferences that do not
  tell users apart are one user's.
- Adam's epsilon is 1e-5 in the first stage: what adds the same to both segments of a pair has no gradient, and at the
  usual 1e-8 rounding errors would move it.
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
from pbrl.compiler import compiled
from pbrl.data.source import Batch, LabelledPairs, Source, Wants
from pbrl.errors import InputError
from pbrl.members import Members, check_range, check_sizes, shared
from pbrl.nets import Normalizer, StackedMLP
from pbrl.optim import Adam, minimise
from pbrl.spec import Spec
from pbrl.user_encoder import UserEncoder

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
        self.normalizer = Normalizer(spec, members.column("normalize_obs"))
        step_size = spec.obs_size + spec.act_size
        self.encoder = UserEncoder(
            rng.fold(members.keys, "encoder"),
            step_size,
            hidden=config.reward_hidden,
            latent=config.latent,
            answers=config.context,
            dtype=members.dtype,
        )
        self.decoder = StackedMLP(
            rng.fold(members.keys, "decoder"),
            (step_size + config.latent, *config.reward_hidden, 1),
            activation="leaky_relu",
            dtype=members.dtype,
        )
        prior = torch.zeros(2, len(members), 1, config.latent, dtype=members.dtype, device=members.device)
        self.prior_mean, self.prior_log_var = (nn.Parameter(x) for x in prior)
        learned = [self.prior_mean, self.prior_log_var] if config.prior == "learned" else []
        weights = [*self.encoder.parameters(), *self.decoder.parameters(), *learned]
        self.adam = Adam(weights, members.column("reward_lr"), eps=1e-5)
        # How far the z to act for lies from the prior's mean, which moves in training: [P, 1, Z].
        self.register_buffer("offset", torch.zeros_like(prior[0]))
        blank = (0.0,) * config.latent
        one = (1.0 - 1e-3,) * config.latent  # the normaliser adds 1e-3
        wide = dataclasses.replace(
            spec,
            obs_size=spec.obs_size + config.latent,
            obs_mean=None if spec.obs_mean is None else (*spec.obs_mean, *blank),
            obs_std=None if spec.obs_std is None else (*spec.obs_std, *one),
        )
        self.iql = IQL(wide, members)
        self._objective = compiled(self._loss, members.compile)

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
        return self.iql.prepare(self._relabelled(source))

    def wants(self) -> Wants:
        """Labelled pairs, ``context`` of each user, then transitions."""
        if self.updates < self.config.reward_updates:
            return {"pairs": self.config.reward_batch_size * self.config.context}
        return self.iql.wants()

    def condition(self, answers: LabelledPairs | None) -> None:
        """Act and judge from now on for the user who gave these answers ([P, N] of them); None: for nobody known."""
        if answers is None:
            self.offset.zero_()
            return
        with torch.no_grad():
            mean, _ = self.posterior(answers, torch.ones_like(answers.label))
            self.offset.copy_(mean - self.prior_mean)

    def act(self, obs: Tensor, key: Tensor | None = None) -> Tensor:
        """obs [P, B, O] -> [P, B, A]."""
        latent = (self.prior_mean.detach() + self.offset).expand(-1, obs.shape[1], -1)
        return self.iql.act(torch.cat([obs, latent], dim=-1), key)

    def reward(self, obs: Tensor, act: Tensor) -> Tensor:
        """The user's reward, not scaled: obs [P, ..., O], act [P, ..., A] -> [P, ...]."""
        flat, latent = obs.flatten(1, -2), self.prior_mean + self.offset
        with torch.no_grad():
            return self.decode(flat, act.flatten(1, -2), latent.expand(-1, flat.shape[1], -1)).reshape(obs.shape[:-1])

    def judge(self, obs: Tensor, act: Tensor) -> Tensor:
        """What each segment is worth to the user: obs [P, M, T, O], act [P, M, T, A] -> [P, M]."""
        return self.reward(obs, act).sum(-1)

    def decode(self, obs: Tensor, act: Tensor, latent: Tensor) -> Tensor:
        """r(s, a, z): obs [P, N, O], act [P, N, A], latent [P, N, Z] -> [P, N]."""
        reward: Tensor = self.decoder(torch.cat([self.normalizer(obs), act, latent], dim=-1)).squeeze(-1)
        return reward

    def posterior(self, pairs: LabelledPairs, known: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z | answers), each [P, U, Z], of U users.

        Args:
            pairs: [P, U N] answers, each run of N being one user's.
            known: [P, N] or [P, U, N], 1 for the answers to go by.
        """
        known = known.reshape(len(known), -1, known.shape[-1])
        steps = torch.cat([self.normalizer(pairs.obs), pairs.act], dim=-1)
        users = known.shape[1:]
        mean, log_var = self.encoder(steps.unflatten(1, users), pairs.label.unflatten(1, users), known)
        return mean, log_var

    def update(self, batch: Batch) -> Metrics:
        """One step of encoder and decoder, then of IQL."""
        done = self.updates
        if done >= self.config.reward_updates:
            return self.iql.update(batch)
        period = self.config.reward_updates / self.config.cycles
        rise = 0.5 * (1.0 - math.cos(math.pi * (done % period) / period))
        loss, metrics = self._objective(batch["pairs"], self.kl_weight * rise, rng.fold(self.keys, "latent", done))
        minimise(loss, {self.adam: 1.0})
        self.count.value += 1
        return metrics

    def _loss(self, pairs: LabelledPairs, beta: Tensor, key: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """L, mean over users, [P], and metrics; ``nll`` is minus the lower bound, per answer."""
        users, size = self.config.reward_batch_size, self.config.context
        count = 1 + rng.indices(
            rng.fold(key, "count"), users, size
        )  # [P, U] in a random order: the first ones are known
        known = (torch.arange(size, device=count.device) < count.unsqueeze(-1)).to(pairs.obs.dtype)  # [P, U, N]
        mean, log_var = self.posterior(pairs, known)
        noise = rng.normal(rng.fold(key, "noise"), *mean.shape[1:], dtype=mean.dtype)
        latent = mean + torch.exp(0.5 * log_var) * noise
        each = pairs.obs.shape[1:-1].numel() // users  # steps of a user
        obs, act = pairs.obs.flatten(1, -2), pairs.act.flatten(1, -2)
        reward = self.decode(obs, act, latent.repeat_interleave(each, dim=1))
        worth = reward.reshape(pairs.obs.shape[:-1]).sum(-1)  # [P, U N, 2]
        difference = worth[..., 1] - worth[..., 0]
        fit = (known * losses.bradley_terry(difference, pairs.label).unflatten(1, (users, size))).sum(-1)  # [P, U]
        divergence = losses.gaussian_kl(mean, log_var, self.prior_mean, self.prior_log_var)
        loss = (fit + beta[:, None] * divergence).mean(1)
        metrics = {
            "loss": loss,
            "nll": ((fit + divergence) / count).mean(1),
            "kl": divergence.mean(1),
            "accuracy": losses.accuracy(difference, pairs.label),
        }
        return loss, {name: metric.detach() for name, metric in metrics.items()}

    @torch.no_grad()
    def _relabelled(self, source: Source) -> Source:
        """The source with a z for every ``trajectories`` trajectories, and the rewards of such users."""
        data = source.dataset
        assert data is not None  # prepare has checked
        device, dtype = self.keys.device, self.kl_weight.dtype
        episode = torch.repeat_interleave(torch.arange(len(data.start), device=data.start.device), data.lengths)
        group = (episode // self.config.trajectories).to(device)
        key = rng.fold(self.keys, "relabel")
        noise = rng.normal(key, int(group[-1]) + 1, self.config.latent, dtype=dtype)
        latent = self.prior_mean + torch.exp(0.5 * self.prior_log_var) * noise  # [P, G, Z]
        obs, act = (x.to(device, dtype) for x in (data.obs, data.act))
        other = rng.indices(rng.fold(key, "compared"), _COMPARED, len(data))  # [P, M]
        parts = []
        for number in range(latent.shape[1]):
            rows = (group == number).nonzero().squeeze(1)
            for some in rows.split(_ROWS):
                seen, done = (x[some].expand(len(latent), -1, -1) for x in (obs, act))
                reward = self.decode(seen, done, latent[:, number : number + 1].expand(-1, len(some), -1))
                if self.config.scale == "spo":
                    known = self.decode(
                        obs[other], act[other], latent[:, number : number + 1].expand(-1, _COMPARED, -1)
                    )
                    reward = torch.sigmoid(reward.unsqueeze(-1) - known.unsqueeze(1)).mean(-1)
                parts.append(reward)
        return source.with_reward(torch.cat(parts, dim=1)).with_context(latent, group)
