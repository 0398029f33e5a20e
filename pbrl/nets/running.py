"""Running statistics per member as buffers, so that they are saved with the agent."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_LIMIT = 10.0  # standardised numbers are clipped to so many deviations, as OpenAI's baselines do
_EPS = 1e-8


class RunningMoments(nn.Module):
    """Mean and variance of everything seen: [P, F] each, merged batch by batch (Chan, Golub & LeVeque 1983)."""

    count: Tensor
    mean: Tensor
    var: Tensor

    def __init__(self, keys: Tensor, size: int, dtype: torch.dtype) -> None:
        super().__init__()
        zeros = torch.zeros(len(keys), size, dtype=dtype, device=keys.device)
        self.register_buffer("count", zeros[:, :1].clone())
        self.register_buffer("mean", zeros)
        self.register_buffer("var", torch.ones_like(zeros))

    @torch.no_grad()
    def see(self, x: Tensor) -> None:
        """Takes in a batch [P, B, F]."""
        count, total = x.shape[1], self.count + x.shape[1]
        mean, var = x.mean(1), x.var(1, correction=0)
        gap = mean - self.mean
        spread = self.var * self.count + var * count + gap.square() * self.count * (count / total)
        self.mean.add_(gap * (count / total))
        self.var.copy_(spread / total)
        self.count.copy_(total)


class RunningNormalizer(nn.Module):
    """(x - mean) / std of all that was seen so far, clipped to 10 deviations; x itself until anything was seen."""

    on: Tensor

    def __init__(self, keys: Tensor, size: int, on: Tensor) -> None:
        """``on`` [P] is 1 for members that normalise, 0 for those that take x as it is."""
        super().__init__()
        self.active = bool((on > 0).any())
        self.register_buffer("on", on > 0)
        self.moments = RunningMoments(keys, size, on.dtype)

    def see(self, x: Tensor) -> None:
        """Takes in a batch [P, ..., F]."""
        self.moments.see(x.flatten(1, -2))

    def forward(self, x: Tensor) -> Tensor:
        """[P, ..., F] -> the same shape."""
        if not self.active:
            return x
        shape = (len(self.on), *(1,) * (x.dim() - 2), -1)
        mean, var = self.moments.mean.reshape(shape), self.moments.var.reshape(shape)
        scaled = ((x - mean) * torch.rsqrt(var + _EPS)).clamp(-_LIMIT, _LIMIT)
        fresh = (self.moments.count == 0).reshape(shape)
        return torch.where(self.on.reshape(shape) & ~fresh, scaled, x)


class RewardScale(nn.Module):
    """Rewards over the deviation of their running discounted return, per member and objective; no mean is taken off.

    The return of a copy runs on from one rollout to the next and begins anew with each episode.

    Attributes:
        limit: scaled rewards are clipped to so many deviations; infinity for who must know what a reward was.
    """

    gamma: Tensor
    on: Tensor
    returns: Tensor

    def __init__(self, keys: Tensor, copies: int, objectives: int, gamma: Tensor, on: Tensor) -> None:
        super().__init__()
        self.limit = _LIMIT
        self.register_buffer("gamma", gamma)
        self.register_buffer("on", on > 0)
        self.register_buffer("returns", gamma.new_zeros(len(keys), copies, objectives))
        self.moments = RunningMoments(keys, objectives, gamma.dtype)

    @torch.no_grad()
    def see(self, rew: Tensor, ended: Tensor) -> None:
        """Takes in a rollout: rew [P, T, N, K], ended [P, T, N] 1 at the last step of an episode."""
        running, seen = self.returns.clone(), torch.empty_like(rew)
        for t in range(rew.shape[1]):
            running = self.gamma[:, None, None] * running + rew[:, t]
            seen[:, t] = running
            running = running * (1.0 - ended[:, t].unsqueeze(-1))
        self.returns.copy_(running)
        self.moments.see(seen.flatten(1, 2))

    @property
    def scale(self) -> Tensor:
        """[P, K] what a reward of 1 is divided by."""
        return torch.where(self.on[:, None], (self.moments.var + _EPS).sqrt(), torch.ones_like(self.moments.var))

    def forward(self, rew: Tensor) -> Tensor:
        """[P, T, N, K] -> the same shape."""
        scaled = (rew / self.scale[:, None, None]).clamp(-self.limit, self.limit)
        return torch.where(self.on[:, None, None, None], scaled, rew)
