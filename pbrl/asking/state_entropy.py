"""State entropy as a reward: explore where few states have been seen (PEBBLE; Lee, Smith & Abbeel, ICML 2021).

The k-nearest-neighbour estimate of a distribution's entropy is, up to constants, the mean of log d_k(s), with d_k(s)
the distance from s to its k-th nearest neighbour. A state's reward is its own term of that mean,

    r(s) = log |s - kNN_k(s)| / (running standard deviation of all such terms),

with the states of the replay buffer as neighbours. The mean is not subtracted. The authors' code leaves the logarithm
out, and shifts its running mean wrongly.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_FLOOR = 1e-6
_ROWS = 1 << 10


def nearest(obs: Tensor, states: Tensor, k: int, *, rows: int = _ROWS) -> Tensor:
    """The distance to the k-th nearest of ``states``: obs [P, B, O], states [P, N, O] -> [P, B].

    Memory is bounded: ``rows`` states are compared at a time, and the k nearest so far are kept. With fewer than k
    states the farthest counts.
    """
    best = obs.new_full((*obs.shape[:2], 0), torch.inf)
    for part in states.split(rows, dim=1):
        # Not by way of products, which are inexact for near points and may depend on P.
        far = torch.cdist(obs, part, compute_mode="donot_use_mm_for_euclid_dist")  # [P, B, rows]
        best = torch.cat([best, far], dim=-1)
        best = best.topk(min(k, best.shape[-1]), dim=-1, largest=False).values
    return best[..., -1]


def state_entropy(obs: Tensor, states: Tensor, k: int, *, rows: int = _ROWS) -> Tensor:
    """log distance to the k-th nearest other state: obs [P, B, O], which are among states [P, N, O] -> [P, B].

    As an observation is among the states itself, its k-th neighbour is the (k + 1)-th nearest. Distances below 1e-6
    count as that, so that a state that was seen k times before has a finite (and very low) reward.
    """
    return nearest(obs, states, k + 1, rows=rows).clamp_min(_FLOOR).log()


class RunningScale(nn.Module):
    """Divides by the standard deviation of everything seen so far, each member by its own."""

    count: Tensor
    mean: Tensor
    spread: Tensor

    def __init__(self, members: int, *, device: torch.device | str = "cpu") -> None:
        super().__init__()
        for name in ("count", "mean", "spread"):
            self.register_buffer(name, torch.zeros(members, dtype=torch.float64, device=device))

    def forward(self, x: Tensor) -> Tensor:
        """x [P, B] joins what was seen, and is returned divided by its deviation (1 where there is none)."""
        wide = x.double()
        mean, size = wide.mean(1), wide.shape[1]
        total = self.count + size
        shift = mean - self.mean
        self.spread += (wide - mean[:, None]).square().sum(1) + shift.square() * self.count * size / total
        self.mean += shift * size / total
        self.count = total
        return x / self.std.to(x.dtype)[:, None]

    @property
    def std(self) -> Tensor:
        """[P] standard deviation of what was seen."""
        std = (self.spread / self.count.clamp_min(1.0)).sqrt()
        return torch.where(std > 0, std, 1.0)
