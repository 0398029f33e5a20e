"""Discounted returns of the episodes that end while P members learn from rollouts: what a policy is worth, for free."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class EpisodeReturns(nn.Module):
    """Running episodes of N copies of P members, and what those were worth that ended in the last rollout.

    Attributes:
        mean: [P, K] mean discounted return of the episodes that ended in the latest rollout in which one did.
        length: [P] their mean length.
        count: [P] how many ended in the last rollout; 0 where ``mean`` is older than that.
    """

    gamma: Tensor
    mean: Tensor
    length: Tensor
    count: Tensor
    gained: Tensor
    discount: Tensor
    age: Tensor
    whole: Tensor

    def __init__(self, gamma: Tensor, copies: int, objectives: int) -> None:
        super().__init__()
        shape = (len(gamma), copies)
        self.register_buffer("gamma", gamma)
        self.register_buffer("mean", gamma.new_zeros(len(gamma), objectives))
        self.register_buffer("length", torch.ones_like(gamma))
        self.register_buffer("count", torch.zeros_like(gamma))
        self.register_buffer("gained", gamma.new_zeros(*shape, objectives))
        self.register_buffer("discount", gamma.new_ones(shape))
        self.register_buffer("age", gamma.new_zeros(shape))
        self.register_buffer("whole", gamma.new_ones(shape))

    @torch.no_grad()
    def see(self, rew: Tensor, ended: Tensor) -> None:
        """Takes in a rollout: rew [P, T, N, K], ended [P, T, N] 1 at the last step of an episode."""
        total, length, count = torch.zeros_like(self.mean), torch.zeros_like(self.length), torch.zeros_like(self.count)
        for t in range(rew.shape[1]):
            self.gained.add_(self.discount.unsqueeze(-1) * rew[:, t])
            self.discount.mul_(self.gamma[:, None])
            self.age.add_(1.0)
            over = ended[:, t]
            counted = over * self.whole
            total += (counted.unsqueeze(-1) * self.gained).sum(1)
            length += (counted * self.age).sum(1)
            count += counted.sum(1)
            self.gained.mul_(1.0 - over.unsqueeze(-1))
            self.age.mul_(1.0 - over)
            self.discount.copy_(torch.where(over > 0, 1.0, self.discount))
            self.whole.copy_(torch.maximum(self.whole, over))
        some, number = count > 0, count.clamp_min(1.0)
        self.mean.copy_(torch.where(some[:, None], total / number[:, None], self.mean))
        self.length.copy_(torch.where(some, length / number, self.length))
        self.count.copy_(count)

    def begin(self, mean: Tensor) -> None:
        """Other policies go on from here, worth ``mean`` [P, K]; running episodes, begun by others, do not count."""
        self.mean.copy_(mean)
        self.whole.copy_((self.age == 0).to(self.whole.dtype))

    @property
    def span(self) -> Tensor:
        """[P] what a mean advantage per step is multiplied by to become a return: 1 + gamma + ... over the length."""
        below = self.gamma < 1.0
        ratio = torch.where(below, self.gamma, 0.5)
        return torch.where(below, (1.0 - ratio**self.length) / (1.0 - ratio), self.length)
