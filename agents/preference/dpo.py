"""DPO on segments: direct preference objectives of log-ratios to a cloned policy (Rafailov et al., NeurIPS 2023).

With u = sum_t (log pi(a_t|s_t) - log pi_ref(a_t|s_t)) of a segment, a loss of ``pbrl.parts.direct_preference``, the
file that the exact checks of theory use too:

    dpo             -log sigmoid(beta (u+ - u-))                   equation 7
    ipo             (beta (u+ - u-) - 1/2)^2                       IPO (Azar et al., AISTATS 2024), times beta^2
    slic            max(0, 1 - beta (u+ - u-))                     SLiC-HF (Zhao et al., 2023)
    jensen_shannon  DPO for that divergence in place of the KL     f-DPO (Wang et al., ICLR 2024)

``flips`` corrects for labels that are turned round at a known rate (rDPO: Chowdhury et al., ICML 2024), ``imitation``
adds -imitation beta log pi of the preferred segment (RPO: Liu et al., NeurIPS 2024). pi_ref is what cloning of all
segments has made; then the optimiser starts afresh.

Deviations:
- A segment's steps take the place of a response's tokens; dynamics cancel in u. The learning rate, network and cloning
  stage are those of ``cpl_kl``, which with bias 1 and gamma 1 differs from ``objective = "dpo"`` in its warm-up alone.
- log pi is -|a - mean|^2, as in ``cpl``; pi_ref is evaluated without dropout while the learner has it on.
- Of f-DPO only the divergence whose link is bounded by a line is here: exp(u) of a sum over steps leaves float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from pbrl import losses, rng
from pbrl.agent import Count, Metrics
from pbrl.data.source import Batch, LabelledPairs, Source, Wants
from pbrl.descent import descent
from pbrl.members import Members, check_range, check_sizes, shared
from pbrl.nets.heads import StackedPolicy
from pbrl.nets.mlp import Init, Normalizer, freeze
from pbrl.optim import Adam, track
from pbrl.parts import direct_preference as direct
from pbrl.spec import Spec

from .cpl import cloning, step_log_prob

Objective = Literal["dpo", "ipo", "slic", "jensen_shannon"]


@dataclass(frozen=True)
class DPOConfig:
    """Settings of DPO; beta is the paper's, the rest as in CPL-KL."""

    lr: float = 1e-4
    """Learning rate of Adam in the cloning stage."""
    beta: float = 0.1
    """Price of leaving the reference, per unit of the log-ratio."""
    flips: float = 0.0
    """Rate, below a half, at which labels are known to be turned round."""
    imitation: float = 0.0
    """Weight, times beta, of the preferred segment's log-probability."""
    dropout: float = 0.25
    """Share of hidden units dropped in training."""
    normalize_obs: bool = False
    """Subtract the data's mean from observations and divide by their deviation."""
    objective: Objective = shared("dpo")
    """The loss of log-ratios: dpo, ipo, slic or jensen_shannon."""
    bc_updates: int = shared(200_000, schedule="stage")
    """Updates of the first stage, behaviour cloning on all segments."""
    lr_factor: float = shared(0.1)
    """Factor on the learning rate in the second stage."""
    init: Init = shared("orthogonal")
    """Initial weights: orthogonal with zero biases, or torch's uniform ones."""
    hidden: tuple[int, ...] = shared((512, 512))
    """Widths of the hidden layers."""
    batch_size: int = shared(96)
    """Pairs per update."""

    def __post_init__(self) -> None:
        check_range(self, "lr", 0.0, open_low=True)
        check_range(self, "beta", 0.0, open_low=True)
        check_range(self, "flips", 0.0, 0.49)
        check_range(self, "imitation", 0.0)
        check_range(self, "dropout", 0.0, 0.99)
        check_range(self, "bc_updates", 1)  # the reference is cloned first
        check_range(self, "lr_factor", 0.0, 1.0, open_low=True)
        check_range(self, "batch_size", 1)
        check_sizes(self, "hidden")


class DPO(nn.Module):
    """Stacked DPO."""

    keys: Tensor
    beta: Tensor
    flips: Tensor
    imitation: Tensor

    def __init__(self, spec: Spec, members: Members[DPOConfig]) -> None:
        super().__init__()
        self.config = config = members.shared
        self.count = Count()
        self.register_buffer("keys", members.keys)
        for name in ("beta", "flips", "imitation"):
            self.register_buffer(name, members.column(name))
        self.normalizer = Normalizer(spec, members.column("normalize_obs"))
        self.policy, reference = (
            StackedPolicy(
                rng.fold(members.keys, "policy"),
                spec.obs_size,
                spec.act_size,
                kind="deterministic",
                hidden=config.hidden,
                dropout=members.column("dropout"),
                init=config.init,
                dtype=members.dtype,
            )
            for _ in range(2)
        )
        self.reference = freeze(reference)
        self.adam = Adam(self.policy.parameters(), members.column("lr"))
        self._descend = descent(self._loss, members.compile)

    @property
    def updates(self) -> int:
        """How many updates have been made."""
        return self.count.value

    @property
    def boundaries(self) -> tuple[int, ...]:
        """The preferences' stage begins after ``bc_updates``."""
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
        """beta u of each segment, beta log pi while there is no reference: [P, M, T, O], [P, M, T, A] -> [P, M]."""
        cloned = self.updates >= self.config.bc_updates
        with torch.no_grad():
            own, reference = self.likelihoods(obs, act)
            return self.beta[:, None] * (own - reference if cloned else own)

    def update(self, batch: Batch) -> Metrics:
        """One step of cloning, then of the objective."""
        tuning = self.updates >= self.config.bc_updates
        if self.updates == self.config.bc_updates:
            self.adam.reset()
            track(self.reference, self.policy, torch.ones_like(self.beta))
        scale, key = self.config.lr_factor if tuning else 1.0, rng.fold(self.keys, "dropout", self.updates)
        metrics = self._descend({self.adam: scale}, batch["pairs"], key, tuning)
        self.count.value += 1
        return metrics

    def likelihoods(self, obs: Tensor, act: Tensor, key: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """sum_t log pi and sum_t log pi_ref: obs [P, ..., T, O], act [P, ..., T, A] -> [P, ...] each."""
        seen = self.normalizer(obs)
        with torch.no_grad():
            reference = step_log_prob(self.reference, seen, act, None).sum(-1)
        return step_log_prob(self.policy, seen, act, key).sum(-1), reference

    def _loss(self, pairs: LabelledPairs, key: Tensor, tuning: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of the present stage, [P], and metrics."""
        if not tuning:
            loss = cloning(step_log_prob(self.policy, self.normalizer(pairs.obs), pairs.act, key))
            return loss, {"loss_bc": loss}
        own, reference = self.likelihoods(pairs.obs, pairs.act, key)  # [P, B, 2]
        first, second = (own - reference).unbind(-1)
        beta, label = self.beta[:, None], losses.unflipped(pairs.label, self.flips[:, None])
        base = label * own[..., 1] + (1.0 - label) * own[..., 0]
        each = segment_loss(self.config.objective, first, second, label, beta)
        loss = (each + direct.imitation(base, beta, self.imitation[:, None])).mean(1)
        return loss, {"loss": loss, "accuracy": losses.accuracy(second - first, pairs.label)}


def segment_loss(objective: Objective, first: Tensor, second: Tensor, label: Tensor, beta: Tensor) -> Tensor:
    """The named loss of log-ratios first, second [...], in units in which beta scales them."""
    if objective == "dpo":
        return direct.dpo(first, second, label, beta)
    if objective == "ipo":
        return direct.ipo(beta * first, beta * second, label, 1.0)
    if objective == "slic":
        return direct.slic(beta * first, beta * second, label, 1.0)
    return direct.f_dpo(first, second, label, beta, objective)
