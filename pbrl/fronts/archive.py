"""An archive per member: policies, as vectors of weights, whose returns no other one dominates."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Archive(nn.Module):
    """At most C policies for each of P members. Everything is a tensor operation, and part of the state_dict.

    Args:
        fallback: [P, D] the policy that an empty archive serves.
        size: C.
        objectives: K.

    Attributes:
        points: [P, C, K] returns.
        used: [P, C] bool, which rows hold a policy.
        policies: [P, C, D] their weights.
        times: [P, C] how often each was chosen for extension.
        offers: [P] how many policies were ever offered.
    """

    points: Tensor
    used: Tensor
    policies: Tensor
    times: Tensor
    offers: Tensor

    def __init__(self, fallback: Tensor, size: int, objectives: int) -> None:
        super().__init__()
        members, weights = fallback.shape
        policies = fallback.new_zeros(members, size, weights)
        policies[:, 0] = fallback
        self.register_buffer("points", fallback.new_zeros(members, size, objectives))
        self.register_buffer("used", torch.zeros(members, size, dtype=torch.bool, device=fallback.device))
        self.register_buffer("policies", policies)
        self.register_buffer("times", torch.zeros_like(self.used, dtype=torch.int64))
        self.register_buffer("offers", torch.zeros_like(self.times[:, 0]))

    @torch.no_grad()
    def offer(self, points: Tensor, policies: Tensor, valid: Tensor) -> None:
        """Take in points [P, S, K] with policies [P, S, D] where ``valid`` [P, S]; drop what is dominated.

        Of more than C that remain, those in the thickest crowd go.
        """
        valid = valid & points.isfinite().all(-1)
        all_points = torch.cat([self.points, torch.where(valid.unsqueeze(-1), points, 0.0)], 1)
        all_used = torch.cat([self.used, valid], 1)
        all_times = torch.cat([self.times, torch.zeros_like(valid, dtype=torch.int64)], 1)
        kept = all_used & ~dominated(all_points, all_used)
        rank = torch.where(kept, crowding(all_points, kept), -1.0)
        order = rank.argsort(dim=1, descending=True, stable=True)[:, : self.used.shape[1]]
        self.used.copy_(kept.gather(1, order))
        self.times.copy_(all_times.gather(1, order))
        self.points.copy_(_rows(all_points, order))
        self.policies.copy_(_rows(torch.cat([self.policies, policies], 1), order))
        self.offers += valid.sum(1)

    @torch.no_grad()
    def select(self, count: int) -> Tensor:
        """[P, count] rows to extend: never chosen ones first, of these extremes, then the largest crowding distance.

        Where there are fewer policies than ``count`` they repeat.
        """
        rank = crowding(self.points, self.used).clamp_max(1e3) - 1e6 * self.times
        order = torch.where(self.used, rank, -math.inf).argsort(dim=1, descending=True, stable=True)
        turn = torch.arange(count, device=order.device) % self.used.sum(1, keepdim=True).clamp_min(1)
        chosen = order.gather(1, turn)
        self.times.scatter_add_(1, chosen, torch.ones_like(chosen))
        return chosen

    def assign(self, weights: Tensor) -> Tensor:
        """[P] the row whose weighed return is best for the preference weights [P, K]."""
        utility = (self.points * weights[:, None]).sum(-1)
        return torch.where(self.used, utility, -math.inf).argmax(1)

    def row(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Points [P, N, K] and policies [P, N, D] of rows [P, N]."""
        return _rows(self.points, index), _rows(self.policies, index)


def _rows(x: Tensor, index: Tensor) -> Tensor:
    return x.gather(1, index.unsqueeze(-1).expand(-1, -1, x.shape[-1]))


def dominated(points: Tensor, used: Tensor) -> Tensor:
    """[P, N] bool: another used point is at least as good in all objectives and better in one, or equal and earlier."""
    reaches = (points[:, :, None] >= points[:, None]).all(-1)  # [P, N, N] row i is at least as good as column j
    equal = reaches & reaches.transpose(1, 2)
    earlier = torch.ones_like(reaches).triu(1)
    return (((reaches & ~equal) | (equal & earlier)) & used.unsqueeze(-1)).any(1)


def crowding(points: Tensor, used: Tensor) -> Tensor:
    """[P, N] crowding distance among the used points [P, N, K]; infinity at both ends of an objective."""
    distance = torch.zeros_like(points[..., 0])
    count = used.sum(1, keepdim=True)
    place = torch.arange(points.shape[1], device=points.device)
    for k in range(points.shape[-1]):
        values, order = torch.where(used, points[..., k], math.inf).sort(dim=1, stable=True)
        last = values.gather(1, (count - 1).clamp_min(0))
        span = last - values[:, :1]
        after = values.roll(-1, 1)
        inner = (place > 0) & (place < count - 1)
        gap = torch.where(inner, after - values.roll(1, 1), 0.0) / torch.where(span > 0, span, 1.0)
        gap = torch.where((place == 0) | (place == count - 1), math.inf, gap)
        gap = torch.where((span > 0) & (place < count), gap, 0.0)
        distance = distance.scatter_add(1, order, gap)
    return distance
