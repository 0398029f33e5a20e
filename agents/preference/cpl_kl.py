"""CPL-KL: CPL with the log-ratio to a reference policy, as DPO has it (Hejna et al., ICLR 2024).

    adv_pi(segment) = sum_t gamma^t alpha (log pi(a_t|s_t) - log pi_ref(a_t|s_t))

with pi_ref the policy at the end of the cloning stage. The learning rate falls to a tenth after that stage.

Deviations: those of ``cpl``, and
- pi_ref is evaluated without dropout while the learner has it on, as in the authors' code, so that at the switch the
  advantage is not exactly zero in expectation (with ``dropout = 0`` it is, and the loss begins at ln 2).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pbrl.data.source import LabelledPairs
from pbrl.errors import InputError
from pbrl.members import Members, check_range, shared
from pbrl.nets.heads import StackedPolicy
from pbrl.nets.mlp import freeze
from pbrl.optim import track
from pbrl.spec import Spec

from .cpl import CPL, CPLConfig, step_log_prob


@dataclass(frozen=True)
class CPLKLConfig(CPLConfig):
    """Settings of CPL-KL; the defaults are the authors'."""

    alpha: float = 0.2
    """Temperature: advantage per unit of the log-ratio."""
    bias: float = 0.75
    """lambda of CPL's equation 5."""
    lr_factor: float = shared(0.1)
    """Factor on the learning rate in the contrastive stage."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "lr_factor", 0.0, 1.0, open_low=True)
        if self.bc_updates < 1:
            raise InputError("CPLKLConfig.bc_updates is 0, expected at least 1: the reference policy is cloned first")


class CPLKL(CPL):
    """Stacked CPL-KL."""

    config: CPLKLConfig

    def __init__(self, spec: Spec, members: Members[CPLKLConfig]) -> None:
        super().__init__(spec, members)
        self.reference = freeze(
            StackedPolicy(
                members.keys,
                spec.obs_size,
                spec.act_size,
                kind="deterministic",
                hidden=self.config.hidden,
                dtype=members.dtype,
            )
        )

    def begin(self) -> None:
        """A fresh optimiser, and the reference policy is what cloning has made."""
        super().begin()
        track(self.reference, self.policy, torch.ones_like(self.alpha))

    def scale(self, since: int) -> float:
        """The warm-up to a tenth of the learning rate."""
        return self.config.lr_factor * super().scale(since)

    def judge(self, obs: Tensor, act: Tensor) -> Tensor:
        """Each segment's advantage; as CPL's while there is no reference policy yet."""
        if self.updates < self.config.bc_updates:
            return super().judge(obs, act)
        with torch.no_grad():
            return self.advantage(self.log_prob(obs, act) - self.reference_log_prob(obs, act))

    def contrast(self, pairs: LabelledPairs, log_prob: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """CPL's, of the log-ratio."""
        return super().contrast(pairs, log_prob - self.reference_log_prob(pairs.obs, pairs.act))

    def reference_log_prob(self, obs: Tensor, act: Tensor) -> Tensor:
        """log pi_ref(a|s) of every step: obs [P, ..., O], act [P, ..., A] -> [P, ...]."""
        with torch.no_grad():
            return step_log_prob(self.reference, self.normalizer(obs), act, None)
