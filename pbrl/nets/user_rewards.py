"""Stacked rewards of many users: answers are encoded to a latent user z, z is decoded to a reward."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .. import losses, rng
from ..data.source import LabelledPairs
from ..spec import Spec
from .mlp import Normalizer, StackedMLP
from .user_encoder import UserEncoder


class UserRewards(nn.Module):
    """r(s, a, z), q(z | answers) and p(z), the latter two Gaussians with independent coordinates.

    Args:
        keys: [P] member keys.
        spec: the problem.
        hidden: widths of the hidden layers.
        latent: Z, size of z.
        answers: the largest number of answers in training.
        learned: whether mean and variance of p(z) are learned, or 0 and 1.
        normalize: [P] 1 for members that normalise observations, else 0.
    """

    def __init__(
        self,
        keys: Tensor,
        spec: Spec,
        *,
        hidden: tuple[int, ...],
        latent: int,
        answers: int,
        learned: bool,
        normalize: Tensor,
    ) -> None:
        super().__init__()
        dtype = normalize.dtype
        self.normalizer = Normalizer(spec, normalize)
        size = spec.obs_size + spec.act_size
        self.encoder = UserEncoder(
            rng.fold(keys, "encoder"), size, hidden=hidden, latent=latent, answers=answers, dtype=dtype
        )
        sizes = (size + latent, *hidden, 1)
        self.decoder = StackedMLP(rng.fold(keys, "decoder"), sizes, activation="leaky_relu", dtype=dtype)
        # A constant cancels between two segments: without a gradient, rounding alone would move it.
        constant = list(self.decoder.parameters())[-1].requires_grad_(False)
        constant.data.zero_()
        nobody = torch.zeros(len(keys), 1, latent, dtype=dtype, device=keys.device)
        self.prior_mean, self.prior_log_var = (nn.Parameter(nobody.clone(), learned) for _ in range(2))

    def decode(self, obs: Tensor, act: Tensor, latent: Tensor) -> Tensor:
        """r(s, a, z): obs [P, N, O], act [P, N, A], latent [P, N, Z] -> [P, N]."""
        reward: Tensor = self.decoder(torch.cat([self.normalizer(obs), act, latent], dim=-1)).squeeze(-1)
        return reward

    def posterior(self, pairs: LabelledPairs, known: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z | answers), each [P, U, Z], of U users.

        Args:
            pairs: [P, U N] answers, each run of N being one user's.
            known: [P, U, N] 1 for the answers to go by, else 0.
        """
        users = known.shape[1:]
        steps = torch.cat([self.normalizer(pairs.obs), pairs.act], dim=-1)
        mean, log_var = self.encoder(steps.unflatten(1, users), pairs.label.unflatten(1, users), known)
        return mean, log_var

    def draw(self, key: Tensor, count: int) -> Tensor:
        """[P, count, Z] users from p(z)."""
        noise = rng.normal(key, count, self.prior_mean.shape[-1], dtype=self.prior_mean.dtype)
        return self.prior_mean + torch.exp(0.5 * self.prior_log_var) * noise

    def bound(self, pairs: LabelledPairs, known: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The parts of minus the evidence lower bound of each user's known answers, z being mean + std * noise.

        Args:
            pairs: [P, U N] answers, each run of N being one user's.
            known: [P, U, N] 1 for the answers that count, else 0.
            noise: [P, U, Z] standard normal.

        Returns:
            sum of the cross-entropies [P, U]; KL(q || p) [P, U]; R(second, z) - R(first, z) [P, U N].
        """
        mean, log_var = self.posterior(pairs, known)
        latent = mean + torch.exp(0.5 * log_var) * noise
        obs, act = pairs.obs.flatten(1, -2), pairs.act.flatten(1, -2)
        reward = self.decode(obs, act, latent.repeat_interleave(obs.shape[1] // known.shape[1], dim=1))
        difference = reward.reshape(pairs.obs.shape[:-1]).sum(-1).diff(dim=-1).squeeze(-1)
        each = losses.bradley_terry(difference, pairs.label).unflatten(1, known.shape[1:])
        divergence = losses.gaussian_kl(mean, log_var, self.prior_mean, self.prior_log_var)
        return (known * each).sum(-1), divergence, difference
