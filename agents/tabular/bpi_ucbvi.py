"""BPI-UCBVI: optimism with Bernstein bonuses (Menard et al., ICML 2021).

Plays the greedy policy of upper values whose bonuses shrink with the variance of the next value and with the distance
between the upper and lower bounds on V* (``pbrl.theory.optimism.Bernstein``).

Deviations:
- The constants are from memory of the paper; ``width`` 1 keeps them, and then nothing short of some ten thousand visits
  of a pair says anything. Published plots use smaller ones.
- It is run for its regret; the stopping rule for identification is not used.
"""

from __future__ import annotations

from dataclasses import dataclass

from pbrl.members import Members
from pbrl.theory.learner import TabularSpec
from pbrl.theory.mdps import Floats
from pbrl.theory.optimism import Bernstein

from .ucbvi import UCBVI, UCBVIConfig


@dataclass(frozen=True)
class BPIUCBVIConfig(UCBVIConfig):
    """Settings of BPI-UCBVI."""


class BPIUCBVI(UCBVI):
    """Stacked BPI-UCBVI."""

    def __init__(self, spec: TabularSpec, members: Members[BPIUCBVIConfig]) -> None:
        super().__init__(spec, members)

    def optimism(self) -> tuple[Floats, Floats]:
        """Upper values [P, H + 1, S] and their greedy policy [P, H, S, A]."""
        model = self.model
        upper, _, policy = Bernstein(model.law, model.reward, model.visits, self.delta, self.width).upper()
        return upper, policy
