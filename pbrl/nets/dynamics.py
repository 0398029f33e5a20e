"""Learned models of what follows an action: Gaussian networks, and what a policy is worth when it is played in them.

    AM-Q(pi) = mean over h < H and starts s_0 of Q(s_h, pi(s_h)),   s_{h+1} ~ model(.| s_h, pi(s_h))

(Lei et al., Uni-O4, ICLR 2024). With the behaviour's Q it ranks policies without playing them: it tells by how much
one step of theirs is better, at the states to which they lead.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import rng
from .mlp import StackedMLP

Step = Callable[[Tensor, Tensor, Tensor], Tensor]
"""obs [P, K, M, O], act [P, K, M, A] and standard normal noise [P, K, M, O] -> what follows, by K models each."""

_MEMORY = 0.99  # of a model's running error, per batch
_LEAST, _MOST = -10.0, 1.0  # log-deviations of a step


class StackedDynamics(nn.Module):
    """P x E networks that predict the change of an observation as a normal of independent coordinates.

    Observations should be of the size of 1 (normalised).

    Attributes:
        error: [P, E] running mean of each network's loss on batches that it had not yet been stepped on.
    """

    error: Tensor

    def __init__(
        self, keys: Tensor, obs_size: int, act_size: int, *, models: int, hidden: tuple[int, ...], dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.net = StackedMLP(keys, (obs_size + act_size, *hidden, 2 * obs_size), ensemble=models, dtype=dtype)
        self.register_buffer("error", torch.zeros(len(keys), models, dtype=dtype, device=keys.device))

    def losses(self, obs: Tensor, act: Tensor, next_obs: Tensor) -> Tensor:
        """[P, E] negative log-density per coordinate, less a constant: obs [P, B, O], act [P, B, A] -> next_obs."""
        mean, log_std = _normal(self.net(torch.cat([obs, act], dim=-1)))
        z = ((next_obs - obs).unsqueeze(1) - mean) * torch.exp(-log_std)
        return (0.5 * z.square() + log_std).mean((2, 3))

    def see(self, losses: Tensor) -> None:
        """Takes the losses [P, E] of a batch, before the step on it, into the running errors."""
        self.error.lerp_(losses.detach(), 1.0 - _MEMORY)

    def elites(self, count: int) -> Step:
        """The ``count`` networks of smallest error, as a model of what follows."""
        best = self.error.argsort(dim=1, stable=True)[:, :count]  # [P, count]
        place = torch.arange(len(best), device=best.device).unsqueeze(1)
        weights = {name: parameter.detach()[place, best] for name, parameter in self.net.named_parameters()}

        def step(obs: Tensor, act: Tensor, noise: Tensor) -> Tensor:
            out: Tensor = torch.func.functional_call(self.net, weights, (torch.cat([obs, act], dim=-1),))
            mean, log_std = _normal(out)
            return obs + mean + log_std.exp() * noise

        return step


def _normal(out: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log-deviation, smoothly bounded, from a network's output."""
    mean, raw = out.chunk(2, dim=-1)
    below = _MOST - F.softplus(_MOST - raw)
    return mean, _LEAST + F.softplus(below - _LEAST)


@torch.no_grad()
def am_q(
    value: Callable[[Tensor, Tensor], Tensor],
    act: Callable[[Tensor], Tensor],
    step: Step,
    starts: Tensor,
    key: Tensor,
    *,
    policies: int,
    steps: int,
) -> Tensor:
    """AM-Q of n policies: [P, n]. Each is played from the same starts, with the same noise, in K models.

    Args:
        value: Q of obs [P, M, O] and act [P, M, A]: [P, M].
        act: what the n policies do at obs [P, n, M, O]: [P, n, M, A].
        step: the K models.
        starts: [P, K, S, O], those of each model.
        key: [P] of the noise.
        policies: n.
        steps: H.
    """
    models, each = starts.shape[1:3]
    obs = starts.unsqueeze(1).expand(-1, policies, -1, -1, -1)  # [P, n, K, S, O]
    total = torch.zeros(len(starts), policies, dtype=starts.dtype, device=starts.device)

    def by_model(x: Tensor) -> Tensor:  # [P, n, K, S, ...] -> [P, K, n S, ...]
        return x.transpose(1, 2).flatten(2, 3)

    for h in range(steps):
        chosen = act(obs.flatten(2, 3)).unflatten(2, (models, each))  # [P, n, K, S, A]
        worth = value(obs.flatten(1, 3), chosen.flatten(1, 3)).unflatten(1, (policies, -1))
        total += worth.mean(2)
        if h + 1 < steps:
            noise = rng.normal(rng.fold(key, h), *starts.shape[1:], dtype=starts.dtype).repeat(1, 1, policies, 1)
            after = step(by_model(obs), by_model(chosen), noise)
            obs = after.unflatten(2, (policies, each)).transpose(1, 2)
    return total / steps
