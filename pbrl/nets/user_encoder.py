"""A stacked encoder from the answers of one user to a Gaussian over what kind of user it is."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .. import rng
from .mlp import StackedMLP

_FEATURES = 64


class UserEncoder(nn.Module):
    """q(z | answers): invariant to the order of the answers and to which segment of a pair comes first.

    A segment is the mean over its steps of learned features; a pair is a function h(better, worse) of two segments,
    label h(second, first) + (1 - label) h(first, second); a user is the sum over the answers (deep sets, Zaheer et al.,
    NeurIPS 2017), divided by the largest number of answers, so that more of them can mean more certainty.

    Args:
        keys: [P] member keys.
        step_size: numbers in an observation and an action together.
        hidden: widths of the hidden layers of h and of the function of the sum.
        latent: Z, size of z.
        answers: the largest number of answers in training; of more, the mean is taken instead of the sum.
    """

    def __init__(
        self,
        keys: Tensor,
        step_size: int,
        *,
        hidden: tuple[int, ...],
        latent: int,
        answers: int,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        self.answers = answers

        def net(name: str, *sizes: int) -> StackedMLP:
            return StackedMLP(rng.fold(keys, name), sizes, activation="leaky_relu", dtype=dtype)

        self.step = net("step", step_size, _FEATURES, _FEATURES)
        self.pair = net("pair", 2 * _FEATURES, *hidden, _FEATURES)
        self.user = net("user", _FEATURES, *hidden, 2 * latent)

    def forward(self, steps: Tensor, label: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of z, each [P, B, Z], of B users.

        Args:
            steps: [P, B, N, 2, T, O + A] observations and actions of N pairs of segments of each user.
            label: [P, B, N] probability that the second is preferred.
            known: [P, B, N] 1 for the answers to go by, 0 for those to leave out.
        """
        features = self.step(steps.flatten(1, -2)).reshape(*steps.shape[:-1], -1).mean(-2)  # [P, B, N, 2, F]
        both = torch.stack([features.flatten(-2), features.flip(-2).flatten(-2)], dim=-2)  # [P, B, N, 2, 2 F]
        pairs = self.pair(both.flatten(1, -2)).reshape(*both.shape[:-1], -1)
        weight = known.unsqueeze(-1) * torch.stack([1.0 - label, label], dim=-1)  # first better, second better
        total = (weight.unsqueeze(-1) * pairs).sum((-3, -2))  # [P, B, F]
        count = known.sum(-1, keepdim=True).clamp(min=float(self.answers))
        mean, log_var = self.user(total / count).chunk(2, dim=-1)
        return mean, log_var.clamp(-12.0, 12.0)
