"""A conditional variational autoencoder of actions (Sohn, Lee & Yan 2015), as BCQ and its successors have it.

    z ~ N(mean(s, a), std(s, a)^2),   made action = tanh(decoder(s, z))

The latent has twice as many dimensions as the action; log std is kept in [-4, 15].
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .. import losses, rng
from .mlp import StackedMLP


class StackedActionVAE(nn.Module):
    """P autoencoders."""

    def __init__(
        self, keys: Tensor, obs_size: int, act_size: int, *, hidden: tuple[int, ...], dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.latent = 2 * act_size
        sizes = (obs_size + act_size, *hidden, 2 * self.latent)
        self.encoder = StackedMLP(rng.fold(keys, "encoder"), sizes, dtype=dtype)
        sizes = (obs_size + self.latent, *hidden, act_size)
        self.decoder = StackedMLP(rng.fold(keys, "decoder"), sizes, dtype=dtype)

    def encode(self, obs: Tensor, act: Tensor) -> tuple[Tensor, Tensor]:
        """obs [P, B, O], act [P, B, A] -> mean and log std [P, B, 2 A] of the latent."""
        mean, log_std = self.encoder(torch.cat([obs, act], dim=-1)).chunk(2, dim=-1)
        return mean, log_std.clamp(-4.0, 15.0)

    def forward(self, obs: Tensor, act: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """The actions that are made of others [P, B, A], and the latents' divergences from N(0, 1) in nats [P, B]."""
        mean, log_std = self.encode(obs, act)
        noise = rng.normal(key, *mean.shape[1:], dtype=mean.dtype)
        z = mean + log_std.exp() * noise
        zero = torch.zeros_like(mean)
        made = torch.tanh(self.decoder(torch.cat([obs, z], dim=-1)))
        return made, losses.gaussian_kl(mean, 2.0 * log_std, zero, zero)
