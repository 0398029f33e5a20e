"""CPL: contrastive preference learning (Hejna et al., ICLR 2024).

In max-entropy RL the optimal advantage is alpha log pi*(a|s), so the regret preference model needs neither a reward nor
a value:

    (3)  P(second preferred) = sigmoid(adv_pi(second) - adv_pi(first)),
         adv_pi(segment) = sum_t gamma^t alpha log pi(a_t|s_t)
    (5)  L = -log sigmoid(adv+ - bias adv-),   bias (the paper's lambda) in (0, 1]

bias = 1 is maximum likelihood. Its loss depends on differences alone, so that probability may leak to actions outside
the data for free; bias < 1 makes that costly, and the estimate inconsistent (the tests show both). The policy is cloned
from all segments first; then the optimiser starts afresh, with the learning rate warmed up over ``warmup`` updates.

Deviations:
- gamma^t is there as in the paper's equation; the authors' code leaves it out (``gamma = 1`` does the same).
- A label is a probability: label * L(second preferred) + (1 - label) * L(first preferred), a tie being 0.5.
- log pi is -|a - mean|^2 as in the authors' code: no 1/2, no constant, unit variance. A Gaussian of deviation s is the
  same with alpha / (2 s^2). A learnable deviation would leave the density, and so the loss, without a bound.
- Only labelled pairs are drawn; the authors' "dense" mode, which compares all scored segments of a batch, is not built.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pbrl import losses, rng
from pbrl.agent import Count, Metrics
from pbrl.data.source import Batch, LabelledPairs, Source, Wants
from pbrl.descent import descent
from pbrl.members import Members, check_range, check_sizes, shared
from pbrl.nets.heads import StackedPolicy
from pbrl.nets.mlp import Init, Normalizer
from pbrl.optim import Adam
from pbrl.spec import Spec


@dataclass(frozen=True)
class CPLConfig:
    """Settings of CPL; the defaults are the paper's for MetaWorld from states."""

    lr: float = 1e-4
    """Learning rate of Adam, in both stages."""
    alpha: float = 0.1
    """Temperature: advantage per unit of log-probability."""
    bias: float = 0.5
    """lambda of equation 5: 1 is maximum likelihood, less keeps the policy nearer to the data."""
    gamma: float = 0.99
    """Discount per step inside a segment."""
    dropout: float = 0.25
    """Share of hidden units dropped in training."""
    normalize_obs: bool = False
    """Subtract the data's mean from observations and divide by their deviation."""
    bc_updates: int = shared(200_000, schedule="stage")
    """Updates of the first stage, behaviour cloning on all segments."""
    warmup: int = shared(10_000, schedule="warmup")
    """Updates over which the learning rate rises linearly at the start of the second stage."""
    init: Init = shared("orthogonal")
    """Initial weights: orthogonal with zero biases, or torch's uniform ones."""
    hidden: tuple[int, ...] = shared((512, 512))
    """Widths of the hidden layers."""
    batch_size: int = shared(96)
    """Pairs per update."""

    def __post_init__(self) -> None:
        check_range(self, "lr", 0.0, open_low=True)
        check_range(self, "alpha", 0.0, open_low=True)
        check_range(self, "bias", 0.0, 1.0, open_low=True)
        check_range(self, "gamma", 0.0, 1.0, open_low=True)
        check_range(self, "dropout", 0.0, 0.99)
        check_range(self, "bc_updates", 0)
        check_range(self, "warmup", 0)
        check_range(self, "batch_size", 1)
        check_sizes(self, "hidden")


class CPL(nn.Module):
    """Stacked CPL."""

    keys: Tensor
    alpha: Tensor
    bias: Tensor
    gamma: Tensor

    def __init__(self, spec: Spec, members: Members[CPLConfig]) -> None:
        super().__init__()
        self.config = config = members.shared
        self.count = Count()
        self.register_buffer("keys", members.keys)
        for name in ("alpha", "bias", "gamma"):
            self.register_buffer(name, members.column(name))
        self.normalizer = Normalizer(spec, members.column("normalize_obs"))
        self.policy = StackedPolicy(
            rng.fold(members.keys, "policy"),
            spec.obs_size,
            spec.act_size,
            kind="deterministic",
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
        """The contrastive stage begins after ``bc_updates``."""
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

    def update(self, batch: Batch) -> Metrics:
        """One step of cloning, then of equation 5."""
        since = self.updates - self.config.bc_updates
        if since == 0:
            self.begin()
        scale, key = self.scale(since) if since >= 0 else 1.0, rng.fold(self.keys, "dropout", self.updates)
        metrics = self._descend({self.adam: scale}, batch["pairs"], key, since >= 0)
        self.count.value += 1
        return metrics

    def _loss(self, pairs: LabelledPairs, key: Tensor, contrastive: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of the present stage, [P], and metrics."""
        log_prob = self.log_prob(pairs.obs, pairs.act, key)
        if contrastive:
            return self.contrast(pairs, log_prob)
        loss = cloning(log_prob)
        return loss, {"loss_bc": loss}

    def judge(self, obs: Tensor, act: Tensor) -> Tensor:
        """Each segment's advantage of equation 3: obs [P, M, T, O], act [P, M, T, A] -> [P, M]."""
        with torch.no_grad():
            return self.advantage(self.log_prob(obs, act))

    def log_prob(self, obs: Tensor, act: Tensor, key: Tensor | None = None) -> Tensor:
        """log pi(a|s) of every step: obs [P, ..., O], act [P, ..., A] -> [P, ...]; ``key`` [P] switches dropout on."""
        return step_log_prob(self.policy, self.normalizer(obs), act, key)

    def advantage(self, log_prob: Tensor) -> Tensor:
        """sum_t gamma^t alpha log pi(a_t|s_t), from log_prob [P, ..., T] of these steps: [P, ...]."""
        discount = self.gamma[:, None] ** torch.arange(log_prob.shape[-1], device=log_prob.device)  # [P, T]
        return torch.einsum("p...t,pt,p->p...", log_prob, discount, self.alpha)

    def begin(self) -> None:
        """What happens once, before the first contrastive update."""
        self.adam.reset()

    def scale(self, since: int) -> float:
        """Factor on the learning rate, ``since`` updates into the contrastive stage."""
        return min(1.0, (since + 1) / self.config.warmup) if self.config.warmup else 1.0

    def contrast(self, pairs: LabelledPairs, log_prob: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Equation 5 averaged over the batch, [P], from log_prob [P, B, 2, T], and metrics.

        Accuracy is the share of decisive pairs ranked as labelled (ties are left out).
        """
        first, second = self.advantage(log_prob).unbind(-1)  # [P, B] each
        loss = losses.contrastive(first, second, pairs.label, self.bias[:, None]).mean(1)
        return loss, {"loss": loss, "accuracy": losses.accuracy(second - first, pairs.label)}


def step_log_prob(policy: StackedPolicy, obs: Tensor, act: Tensor, key: Tensor | None) -> Tensor:
    """log pi(a|s) for obs [P, ..., O] and act [P, ..., A]: [P, ...]."""
    log_prob: Tensor = policy(obs.flatten(1, -2), key).log_prob(act.flatten(1, -2))
    return log_prob.reshape(obs.shape[:-1])


def cloning(log_prob: Tensor) -> Tensor:
    """-E[log pi] over all steps of both segments, [P]."""
    return -log_prob.flatten(1).mean(1)
