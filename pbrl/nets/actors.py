"""Policies for policy gradients: a Gaussian whose deviation does not depend on the state, or a choice among actions."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .. import rng
from ..spec import Spec
from .heads import Categorical, Gaussian
from .mlp import StackedMLP


def tanh_mlp(keys: Tensor, sizes: tuple[int, ...], *, last: float, dtype: torch.dtype) -> StackedMLP:
    """A stack of tanh networks, orthogonal at gain sqrt(2), whose output layer begins at gain ``last``."""
    net = StackedMLP(keys, sizes, activation="tanh", init="orthogonal", gain=math.sqrt(2.0), dtype=dtype)
    final = net.layers[-1]
    assert isinstance(final.weight, Tensor)
    with torch.no_grad():
        final.weight.mul_(last / math.sqrt(2.0))
    return net


class StackedActor(nn.Module):
    """P policies.

    Where the problem has bounded actions: a normal whose mean is the network's output and whose log-deviation is a
    parameter. Actions are drawn unclipped (their density is the normal's) and clipped to [-1, 1] to act. Where it has
    ``spec.actions`` choices: a categorical distribution; an action is the number of the choice, as one float.
    """

    def __init__(
        self, keys: Tensor, spec: Spec, *, hidden: tuple[int, ...], log_std: Tensor, dtype: torch.dtype
    ) -> None:
        """``log_std`` [P] is what the log-deviation begins at."""
        super().__init__()
        outputs = spec.actions or spec.act_size
        self.net = tanh_mlp(keys, (spec.obs_size, *hidden, outputs), last=0.01, dtype=dtype)
        self.log_std: nn.Parameter | None = None
        if spec.actions is None:
            self.log_std = nn.Parameter(log_std.reshape(-1, 1, 1).repeat(1, 1, spec.act_size))

    def forward(self, obs: Tensor) -> Gaussian | Categorical:
        """obs [P, B, O] -> a distribution for each."""
        out = self.net(obs)
        return Categorical(out) if self.log_std is None else Gaussian(out, self.log_std.clamp(-5.0, 2.0))

    def likelihood(self, obs: Tensor, act: Tensor) -> tuple[Tensor, Tensor]:
        """log pi(act|obs) [P, B] and the policy's entropy [P, B], of obs [P, B, O] and act [P, B, A]."""
        head: Gaussian | Categorical = self(obs)
        if isinstance(head, Categorical):
            return head.log_prob(act.squeeze(-1).to(torch.int64)), head.entropy()
        return head.log_prob(act), head.entropy()

    def draw(self, obs: Tensor, key: Tensor) -> Tensor:
        """obs [P, B, O] -> actions [P, B, A] as they are drawn, unclipped."""
        with torch.no_grad():
            head: Gaussian | Categorical = self(obs)
            if isinstance(head, Categorical):
                return head.sample(key).unsqueeze(-1).to(obs.dtype)
            noise = rng.normal(key, *head.mean.shape[1:], dtype=head.mean.dtype)
            return head.mean + head.log_std.exp() * noise

    def choose(self, obs: Tensor, key: Tensor | None = None) -> Tensor:
        """obs [P, B, O] -> actions [P, B, A] for an environment: the likeliest, or drawn where there is a key."""
        if key is not None:
            act = self.draw(obs, key)
            return act if self.log_std is None else act.clamp(-1.0, 1.0)
        with torch.no_grad():
            mode: Tensor = self(obs).mode()
        return mode.unsqueeze(-1).to(obs.dtype) if self.log_std is None else mode
