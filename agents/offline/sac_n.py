"""SAC-N: soft actor-critic with so many critics that it can learn from data alone (An et al., NeurIPS 2021).

    L_Q  = 1/2 E[ (r + gamma (1 - term) (min_{i <= N} Qbar_i(s', a') - alpha log pi(a'|s')) - Q_i(s, a))^2 ], each i
    L_pi = E[ alpha log pi(a|s) - min_{i <= N} Q_i(s, a) ]

It is ``sac`` with N = ``critics``. The smallest of many critics is low where the data do not tell them what to agree
on, so that the policy is kept near the data without having been told to. How many are needed depends on the data: 10
for HalfCheetah, 20 for Walker2d, 200 to 500 for Hopper.

Deviations:
- Those of ``sac``. The order of steps is critics, policy and temperature, targets; the authors' begins with the policy.
- The authors begin with last layers of small weights, and bound log-deviations below at -5 (here -20).
- Time limits bootstrap; the authors' data lack the rows at time limits.
"""

from __future__ import annotations

from dataclasses import dataclass

from pbrl.members import shared

from ..off_policy.sac import SAC, SACConfig


@dataclass(frozen=True)
class SACNConfig(SACConfig):
    """Settings of SAC-N; the defaults are the authors' for HalfCheetah."""

    critics: int = shared(10)
    """N: Q-functions, of which the smallest counts."""
    hidden: tuple[int, ...] = shared((256, 256, 256))
    """Widths of the hidden layers of all networks."""


class SACN(SAC):
    """Stacked SAC-N."""
