"""BC: behaviour cloning, the baseline that ignores rewards and preferences.

Maximises E[log pi(a|s)] over the transitions of a data set, or over the steps of the segments of a preference set.

Deviations:
- There is no one reference to deviate from; the default head (a tanh mean with squared error) is that of the cloning
  baselines of the CPL and TD3+BC papers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from pbrl import rng
from pbrl.agent import Count, Metrics
from pbrl.data.source import Batch, Wants
from pbrl.descent import descent
from pbrl.members import Members, check_range, check_sizes, shared
from pbrl.nets.heads import Head, Kind, StackedPolicy, segment_likelihood
from pbrl.nets.mlp import Normalizer
from pbrl.optim import Adam
from pbrl.spec import Spec


@dataclass(frozen=True)
class CloningConfig:
    """Settings of cloning, whatever is cloned."""

    lr: float = 3e-4
    """Learning rate of Adam."""
    dropout: float = 0.0
    """Share of hidden units dropped in training."""
    normalize_obs: bool = False
    """Subtract the data's mean from observations and divide by their deviation."""
    head: Kind = shared("deterministic")
    """What the policy's output means: deterministic (squared error), gaussian or tanh_gaussian."""
    hidden: tuple[int, ...] = shared((256, 256))
    """Widths of the hidden layers."""
    batch_size: int = shared(256)
    """Transitions (or pairs) per update."""

    def __post_init__(self) -> None:
        check_range(self, "lr", 0.0, open_low=True)
        check_range(self, "dropout", 0.0, 0.99)
        check_range(self, "batch_size", 1)
        check_sizes(self, "hidden")


@dataclass(frozen=True)
class BCConfig(CloningConfig):
    """Settings of BC."""

    on: Literal["transitions", "pairs"] = shared("transitions")
    """Clone all transitions of the data set, or the steps of both segments of the labelled pairs."""


class BC(nn.Module):
    """Stacked behaviour cloning."""

    keys: Tensor
    on: Literal["transitions", "pairs"]

    def __init__(self, spec: Spec, members: Members[CloningConfig]) -> None:
        super().__init__()
        self.config = members.shared
        self.on = self.config.on if isinstance(self.config, BCConfig) else "transitions"
        self.count = Count()
        self.register_buffer("keys", members.keys)
        self.normalizer = Normalizer(spec, members.column("normalize_obs"))
        self.policy = StackedPolicy(
            rng.fold(members.keys, "policy"),
            spec.obs_size,
            spec.act_size,
            kind=self.config.head,
            hidden=self.config.hidden,
            dropout=members.column("dropout"),
            dtype=members.dtype,
        )
        self.adam = Adam(self.policy.parameters(), members.column("lr"))
        self._descend = descent(self._loss, members.compile)

    @property
    def updates(self) -> int:
        """How many updates have been made."""
        return self.count.value

    def wants(self) -> Wants:
        """Transitions, or labelled pairs whose labels are ignored."""
        return {self.on: self.config.batch_size}

    def act(self, obs: Tensor, key: Tensor | None = None) -> Tensor:
        """obs [P, B, O] -> [P, B, A]."""
        return self.policy.choose(self.normalizer(obs), key)

    def judge(self, obs: Tensor, act: Tensor) -> Tensor:
        """Each segment's log-likelihood: obs [P, M, T, O], act [P, M, T, A] -> [P, M]."""
        return segment_likelihood(self.policy, self.normalizer(obs), act)

    def update(self, batch: Batch) -> Metrics:
        """One step up the log-likelihood."""
        if "transitions" in batch:
            obs, act = batch["transitions"].obs, batch["transitions"].act
        else:
            obs, act = batch["pairs"].obs.flatten(1, -2), batch["pairs"].act.flatten(1, -2)
        metrics = self._descend({self.adam: 1.0}, obs, act, rng.fold(self.keys, "dropout", self.updates))
        self.count.value += 1
        return metrics

    def _loss(self, obs: Tensor, act: Tensor, key: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """-E[log pi(a|s)], [P], and it as a metric."""
        head: Head = self.policy(self.normalizer(obs), key)
        loss = -head.log_prob(act).mean(-1)
        return loss, {"loss": loss}
