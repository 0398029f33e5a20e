"""CPL-BC: CPL regularised by behaviour cloning instead of its bias (Hejna et al., ICLR 2024).

    L = L_CPL(bias = 1) - bc_weight E[log pi(a|s)],  the expectation over the steps of both segments.

Deviations: those of ``cpl``.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pbrl.data.source import LabelledPairs
from pbrl.members import Members, check_range
from pbrl.spec import Spec

from .cpl import CPL, CPLConfig, cloning


@dataclass(frozen=True)
class CPLBCConfig(CPLConfig):
    """Settings of CPL-BC; the defaults are the authors' for states."""

    bias: float = 1.0
    """lambda of CPL's equation 5; 1 leaves the regularisation to the cloning term."""
    bc_weight: float = 1.0
    """Weight of the cloning term."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "bc_weight", 0.0)


class CPLBC(CPL):
    """Stacked CPL-BC."""

    bc_weight: Tensor

    def __init__(self, spec: Spec, members: Members[CPLBCConfig]) -> None:
        super().__init__(spec, members)
        self.register_buffer("bc_weight", members.column("bc_weight"))

    def contrast(self, pairs: LabelledPairs, log_prob: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """CPL's loss plus the cloning term, [P], and metrics."""
        loss, metrics = super().contrast(pairs, log_prob)
        clone = cloning(log_prob)
        return loss + self.bc_weight * clone, {**metrics, "loss_bc": clone}
