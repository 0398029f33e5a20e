"""SFT: supervised fine-tuning, cloning of preferred segments (the baseline of Hejna et al., ICLR 2024).

First stage: maximise E[log pi(a|s)] over the steps of both segments of every pair. Second stage: over the steps of the
preferred segment only; both segments of a tie count.

Deviations:
- A label between 0 and 1 other than 0.5 (a probability) counts for the likelier segment.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pbrl import rng
from pbrl.agent import Count, Metrics
from pbrl.data.source import Batch, Source, Wants
from pbrl.descent import descent
from pbrl.members import Members, check_range, check_sizes, shared
from pbrl.nets.heads import Head, Kind, StackedPolicy, segment_likelihood
from pbrl.nets.mlp import Init, Normalizer
from pbrl.optim import Adam
from pbrl.spec import Spec


@dataclass(frozen=True)
class SFTConfig:
    """Settings of SFT; the defaults are the paper's for MetaWorld from states."""

    lr: float = 1e-4
    """Learning rate of Adam."""
    dropout: float = 0.25
    """Share of hidden units dropped in training."""
    normalize_obs: bool = False
    """Subtract the data's mean from observations and divide by their deviation."""
    bc_updates: int = shared(200_000, schedule="stage")
    """Updates of the first stage, on all segments; the second stage is the rest of the run."""
    head: Kind = shared("deterministic")
    """What the policy's output means: deterministic (squared error), gaussian or tanh_gaussian."""
    init: Init = shared("orthogonal")
    """Initial weights: orthogonal with zero biases, or torch's uniform ones."""
    hidden: tuple[int, ...] = shared((512, 512))
    """Widths of the hidden layers."""
    batch_size: int = shared(96)
    """Pairs per update."""

    def __post_init__(self) -> None:
        check_range(self, "lr", 0.0, open_low=True)
        check_range(self, "dropout", 0.0, 0.99)
        check_range(self, "bc_updates", 0)
        check_range(self, "batch_size", 1)
        check_sizes(self, "hidden")


class SFT(nn.Module):
    """Stacked SFT."""

    keys: Tensor

    def __init__(self, spec: Spec, members: Members[SFTConfig]) -> None:
        super().__init__()
        self.config = config = members.shared
        self.count = Count()
        self.register_buffer("keys", members.keys)
        self.normalizer = Normalizer(spec, members.column("normalize_obs"))
        self.policy = StackedPolicy(
            rng.fold(members.keys, "policy"),
            spec.obs_size,
            spec.act_size,
            kind=config.head,
            hidden=config.hidden,
            dropout=members.column("dropout"),
            init=config.init,
            dtype=members.dtype,
        )
        self.adam = Adam(self.policy.parameters(), members.column("lr"))
        self._descend = descent(self._loss, members.compile)

    @property
    def updates(self) -> int:
        """How many updates have been made."""
        return self.count.value

    @property
    def boundaries(self) -> tuple[int, ...]:
        """The second stage begins after ``bc_updates``."""
        return (self.config.bc_updates,)

    def prepare(self, source: Source) -> Source:
        """The source as it is."""
        return source

    def wants(self) -> Wants:
        """Labelled pairs."""
        return {"pairs": self.config.batch_size}

    def act(self, obs: Tensor, key: Tensor | None = None) -> Tensor:
        """obs [P, B, O] -> [P, B, A]."""
        return self.policy.choose(self.normalizer(obs), key)

    def judge(self, obs: Tensor, act: Tensor) -> Tensor:
        """Each segment's log-likelihood: obs [P, M, T, O], act [P, M, T, A] -> [P, M]."""
        return segment_likelihood(self.policy, self.normalizer(obs), act)

    def update(self, batch: Batch) -> Metrics:
        """One step up the log-likelihood of all segments, then of the preferred ones."""
        pairs = batch["pairs"]
        kept = torch.stack([pairs.label <= 0.5, pairs.label >= 0.5], dim=-1).to(pairs.obs.dtype)  # [P, B, 2]
        if self.updates < self.config.bc_updates:
            kept = torch.ones_like(kept)
        key = rng.fold(self.keys, "dropout", self.updates)
        metrics = self._descend({self.adam: 1.0}, pairs.obs, pairs.act, kept, key)
        self.count.value += 1
        return metrics

    def _loss(self, obs: Tensor, act: Tensor, kept: Tensor, key: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """-E[log pi(a|s)] over the steps of the segments that are kept [P, B, 2] (1 or 0), [P], and it as a metric."""
        head: Head = self.policy(self.normalizer(obs).flatten(1, -2), key)
        log_prob = head.log_prob(act.flatten(1, -2)).reshape(obs.shape[:-1])  # [P, B, 2, T]
        loss = -(kept * log_prob.mean(-1)).sum((1, 2)) / kept.sum((1, 2))
        return loss, {"loss": loss}
