"""IPL: inverse preference learning, without a reward model (Hejna & Sadigh, NeurIPS 2023).

Each Q-function is the optimal one of exactly one reward, which the inverse Bellman operator names. Preferences over
that reward train Q itself:

    r_Q(s, a) = Q(s, a) - gamma (1 - term) V(s'),         V taken as a constant
    L_Q = E_pairs[ cross-entropy(label, sigmoid(sum_t r_Q(second) - sum_t r_Q(first))) ] + chi2 E[ r_Q(s, a)^2 ]
    L_V = E[ |tau - 1(u < 0)| u^2 ],                      u = min_i Qbar_i(s, a) - V(s)
    L_pi = -E[ min(exp(beta u), 100) log pi(a|s) ]

(the variant IPL-IQL). The regulariser keeps r_Q from growing without bound, hence |V(s')| <= 1 / (chi2 (1 - gamma)) is
enforced. With a data set, the means over single steps are half over the steps of the pairs and half over transitions;
pairs alone are enough.

Deviations:
- Q, V and the policy are stepped together, from the weights before the update; the authors step V first.
- The term of a true end is masked, and the last step of a segment is used where the data tell its successor; the
  authors' files tell neither, so that every segment loses its last step. Ours does so for human files.
- A longer segment is cut to ``subsample`` steps at every possible offset, drawn for each pair; the authors draw one
  offset for a batch, never the last one, and take one step less.
- Losses are summed over critics (the authors average), initial weights are torch's own (orthogonal), and data sets'
  rewards are not touched at all (the authors' oracle normalises them; IPL has no use for them).
- ``judge`` leaves out the last step of a segment, as nobody tells it the successor.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pbrl import losses, rng
from pbrl.agent import Count, Metrics
from pbrl.data.source import Batch, Source, Wants
from pbrl.data.successors import successors
from pbrl.descent import descent
from pbrl.errors import InputError
from pbrl.members import Members, check_range, check_sizes, shared
from pbrl.nets.heads import Kind, StackedPolicy
from pbrl.nets.mlp import Normalizer, StackedMLP, critics
from pbrl.optim import Adam, track
from pbrl.spec import Spec


@dataclass(frozen=True)
class IPLConfig:
    """Settings of IPL; the defaults are the paper's for locomotion."""

    lr: float = 3e-4
    """Learning rate of Adam, for all networks."""
    gamma: float = 0.99
    """Discount per step."""
    chi2: float = 0.5
    """Weight of the squared reward: larger keeps rewards smaller."""
    expectile: float = 0.7
    """tau of the value's loss: 0.5 learns the behaviour's value, towards 1 the best action's."""
    temperature: float = 3.0
    """beta of the policy's loss: 0 is behaviour cloning, larger follows the advantage more."""
    max_weight: float = 100.0
    """Cap on the exponentiated advantage."""
    target_rate: float = 0.005
    """Share of the critics that the target critics take on per update."""
    dropout: float = 0.0
    """Share of the policy's hidden units dropped in training (0.1 in the paper for robomimic)."""
    normalize_obs: bool = False
    """Subtract the data's mean from observations and divide by their deviation."""
    head: Kind = shared("gaussian")
    """What the policy's output means: gaussian (the paper's), deterministic or tanh_gaussian."""
    critics: int = shared(2)
    """Q-functions, of which the smallest counts."""
    hidden: tuple[int, ...] = shared((256, 256))
    """Widths of the hidden layers of all networks."""
    subsample: int = shared(64)
    """Steps of a segment that one update takes; shorter segments are taken whole."""
    batch_size: int = shared(8)
    """Pairs per update."""
    replay_batch_size: int = shared(256)
    """Transitions per update beside the pairs, where there is a data set; 0 learns from pairs alone."""

    def __post_init__(self) -> None:
        check_range(self, "lr", 0.0, open_low=True)
        check_range(self, "gamma", 0.0, 1.0)
        check_range(self, "chi2", 0.0)
        check_range(self, "expectile", 0.0, 1.0)
        check_range(self, "temperature", 0.0)
        check_range(self, "max_weight", 0.0, open_low=True)
        check_range(self, "target_rate", 0.0, 1.0)
        check_range(self, "dropout", 0.0, 0.99)
        check_range(self, "critics", 1)
        check_range(self, "subsample", 1)
        check_range(self, "batch_size", 1)
        check_range(self, "replay_batch_size", 0)
        check_sizes(self, "hidden")


@dataclass(frozen=True, eq=False)
class Steps:
    """N steps, the first ``paired`` of them the pairs': obs and next_obs [P, N, O], act [P, N, A], term [P, N]."""

    obs: Tensor
    act: Tensor
    next_obs: Tensor
    term: Tensor
    paired: int

    def mean(self, x: Tensor) -> Tensor:
        """[P, ..., N] -> [P, ...]: half over the steps of pairs, half over the others where there are any."""
        mine = x[..., : self.paired].mean(-1)
        return mine if x.shape[-1] == self.paired else 0.5 * (mine + x[..., self.paired :].mean(-1))


class IPL(nn.Module):
    """Stacked IPL-IQL."""

    keys: Tensor
    gamma: Tensor
    chi2: Tensor
    expectile: Tensor
    temperature: Tensor
    max_weight: Tensor
    target_rate: Tensor

    def __init__(self, spec: Spec, members: Members[IPLConfig]) -> None:
        super().__init__()
        self.config = config = members.shared
        self.count = Count()
        self.replays = config.replay_batch_size > 0
        self.register_buffer("keys", members.keys)
        for name in ("gamma", "chi2", "expectile", "temperature", "max_weight", "target_rate"):
            self.register_buffer(name, members.column(name))
        self.normalizer = Normalizer(spec, members.column("normalize_obs"))
        keys = rng.fold(members.keys, "q")
        self.q, self.target = critics(keys, spec, config.hidden, count=config.critics, dtype=members.dtype)
        self.v = StackedMLP(rng.fold(members.keys, "v"), (spec.obs_size, *config.hidden, 1), dtype=members.dtype)
        self.policy = StackedPolicy(
            rng.fold(members.keys, "policy"),
            spec.obs_size,
            spec.act_size,
            kind=config.head,
            hidden=config.hidden,
            dropout=members.column("dropout"),
            dtype=members.dtype,
        )
        self.adam = Adam([*self.q.parameters(), *self.v.parameters(), *self.policy.parameters()], members.column("lr"))
        self._descend = descent(self._losses, members.compile)

    @property
    def updates(self) -> int:
        """How many updates have been made."""
        return self.count.value

    @property
    def boundaries(self) -> tuple[int, ...]:
        """One stage."""
        return ()

    def prepare(self, source: Source) -> Source:
        """The source as it is; whether it has transitions decides what is drawn beside pairs."""
        if source.segments is not None and source.segments.shape[1] == 1 and source.ends is None:
            raise InputError("ipl needs each step's successor, found segments of one step without any")
        self.replays = source.steps is not None and self.config.replay_batch_size > 0
        return source

    def wants(self) -> Wants:
        """Labelled pairs, and transitions where there are any."""
        pairs: Wants = {"pairs": self.config.batch_size}
        return {**pairs, "transitions": self.config.replay_batch_size} if self.replays else pairs

    def act(self, obs: Tensor, key: Tensor | None = None) -> Tensor:
        """obs [P, B, O] -> [P, B, A]."""
        return self.policy.choose(self.normalizer(obs), key)

    def judge(self, obs: Tensor, act: Tensor) -> Tensor:
        """Each segment's sum of r_Q but for its last step: obs [P, M, T, O], act [P, M, T, A] -> [P, M]."""
        before, after = (x.flatten(1, 2) for x in (obs[:, :, :-1], obs[:, :, 1:]))
        term = torch.zeros_like(before[..., 0])
        with torch.no_grad():
            rewards: Tensor = self.rewards(before, act[:, :, :-1].flatten(1, 2), after, term).mean(1)
        worth: Tensor = rewards.reshape(*obs.shape[:2], -1).sum(-1)
        return worth

    def rewards(self, obs: Tensor, act: Tensor, next_obs: Tensor, term: Tensor) -> Tensor:
        """r_Q of every critic: obs [P, N, O], act [P, N, A], next_obs [P, N, O], term [P, N] -> [P, E, N]."""
        bound = (1.0 / (self.chi2 * (1.0 - self.gamma)))[:, None]
        with torch.no_grad():
            future: Tensor = self.v(self.normalizer(next_obs)).squeeze(-1).clamp(-bound, bound)  # [P, N]
        q: Tensor = self.q(torch.cat([self.normalizer(obs), act], dim=-1)).squeeze(-1)
        return q - (self.gamma[:, None] * (1.0 - term) * future).unsqueeze(1)

    def update(self, batch: Batch) -> Metrics:
        """One step of all networks."""
        pairs = batch["pairs"]
        parts = successors(pairs, self.config.subsample, rng.fold(self.keys, "subsample", self.updates))
        obs, act, next_obs, term = (x.flatten(1, 3) for x in parts)
        paired = obs.shape[1]
        if self.replays:
            others = batch["transitions"]
            obs, act = torch.cat([obs, others.obs], dim=1), torch.cat([act, others.act], dim=1)
            next_obs, term = torch.cat([next_obs, others.next_obs], dim=1), torch.cat([term, others.term], dim=1)
        steps = Steps(obs, act, next_obs, term, paired)
        key = rng.fold(self.keys, "dropout", self.updates)
        metrics = self._descend({self.adam: 1.0}, steps, pairs.label, key)
        track(self.target, self.q, self.target_rate)
        self.count.value += 1
        return metrics

    def _losses(self, steps: Steps, label: Tensor, key: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The three losses, added, [P], and metrics. No gradient of one reaches the networks of another."""
        rewards = self.rewards(steps.obs, steps.act, steps.next_obs, steps.term)  # [P, E, N]
        total = rewards[..., : steps.paired].unflatten(-1, (label.shape[1], 2, -1)).sum(-1)  # [P, E, B, 2]
        difference = total[..., 1] - total[..., 0]
        fit = losses.bradley_terry(difference, label.unsqueeze(1)).mean(-1)  # [P, E]
        loss_q = (fit + self.chi2[:, None] * steps.mean(rewards.square())).sum(1)

        obs = self.normalizer(steps.obs)
        with torch.no_grad():
            best = self.target(torch.cat([obs, steps.act], dim=-1)).squeeze(-1).amin(1)
        value = self.v(obs).squeeze(-1)
        advantage = best - value
        loss_v = steps.mean(losses.expectile(advantage, self.expectile[:, None]))
        weight = losses.advantage_weight(advantage.detach(), self.temperature[:, None], self.max_weight[:, None])
        loss_pi = -steps.mean(weight * self.policy(obs, key).log_prob(steps.act))
        metrics = {
            "loss": fit.mean(1),
            "loss_v": loss_v,
            "loss_pi": loss_pi,
            "accuracy": losses.accuracy(difference.mean(1), label),
            "reward": steps.mean(rewards.mean(1)),
        }
        return loss_q + loss_v + loss_pi, metrics
