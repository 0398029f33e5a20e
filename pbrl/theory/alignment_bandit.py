"""Alignment without states: a policy over Y responses, a reward, a reference, and the price of leaving it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import expit, logsumexp, xlogy
from torch import Tensor

from ..errors import InputError
from ..parts.direct_preference import LINKS
from .mdps import Floats, law


@dataclass(frozen=True, eq=False)
class AlignmentBandit:
    """max_pi E_pi r - beta KL(pi || reference).

    Attributes:
        reference: [Y] positive probabilities.
        reward: [Y].
        beta: price, above 0.

    Raises:
        InputError: a reference that is no positive law, another number of rewards, or a price of 0 or below.
    """

    reference: Floats
    reward: Floats
    beta: float

    def __post_init__(self) -> None:
        reference = law(self.reference, "reference")
        if reference.ndim != 1 or reference.min() <= 0.0 or self.reward.shape != reference.shape or self.beta <= 0.0:
            raise InputError(
                f"a bandit of reference {list(reference.shape)}, reward {list(self.reward.shape)}, beta {self.beta}: "
                "expected positive probabilities [Y], as many rewards, and beta above 0"
            )

    @classmethod
    def random(cls, responses: int, beta: float, *, seed: list[int]) -> AlignmentBandit:
        """Standard normal rewards, and a reference of standard normal logits."""
        draw = np.random.default_rng(seed)
        logits = draw.standard_normal(responses)
        return cls(np.exp(logits - logsumexp(logits)), draw.standard_normal(responses), beta)

    @property
    def optimum(self) -> Floats:
        """[Y] reference exp(reward / beta) / Z."""
        score = np.log(self.reference) + self.reward / self.beta
        policy: Floats = np.exp(score - logsumexp(score))
        return policy

    @property
    def preference(self) -> Floats:
        """[Y, Y] P(i preferred to j) = sigmoid(r_i - r_j)."""
        return np.asarray(expit(self.reward[:, None] - self.reward))

    def kl(self, policy: Floats) -> float:
        """KL(policy || reference)."""
        return float((xlogy(policy, policy) - xlogy(policy, self.reference)).sum())

    def value(self, policy: Floats) -> float:
        """E_policy r - beta KL(policy || reference)."""
        return float(policy @ self.reward) - self.beta * self.kl(policy)

    def lost(self, policy: Floats) -> float:
        """How much less a policy is worth than the optimum."""
        return self.value(self.optimum) - self.value(policy)


def divergent_optimum(bandit: AlignmentBandit, divergence: str) -> Floats:
    """[Y] argmax E r - beta D_f(pi || reference), by bisection: f'(pi / reference) = (r - z) / beta, sum pi = 1."""
    link = LINKS[divergence]

    def inverse(target: Floats) -> Floats:
        low, high = np.full_like(target, -60.0), np.full_like(target, 60.0)
        for _ in range(58):
            middle = 0.5 * (low + high)
            below = link(torch.from_numpy(middle)).numpy() < target
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return 0.5 * (low + high)

    low, high = float(bandit.reward.min()) - 50.0 * bandit.beta, float(bandit.reward.max()) + 50.0 * bandit.beta
    for _ in range(60):
        middle = 0.5 * (low + high)
        total = float((bandit.reference * np.exp(inverse((bandit.reward - middle) / bandit.beta))).sum())
        low, high = (middle, high) if total > 1.0 else (low, middle)
    policy: Floats = bandit.reference * np.exp(inverse((bandit.reward - 0.5 * (low + high)) / bandit.beta))
    policy /= policy.sum()
    return policy


def pairs(responses: int) -> tuple[Tensor, Tensor]:
    """Indices [Y (Y - 1) / 2] of all pairs, the first below the second."""
    one, two = torch.triu_indices(responses, responses, 1)
    return one, two


def minimise(loss: Callable[[Tensor], Tensor], start: Tensor, *, steps: int = 100) -> Tensor:
    """A minimiser of a smooth function of a vector by damped Newton steps, to rounding; flat directions stay put.

    Raises:
        InputError: the gradient does not vanish within ``steps``.
    """
    at = start.detach().double().clone()
    for _ in range(steps):
        gradient = torch.autograd.functional.jacobian(loss, at)
        if float(gradient.abs().max()) < 1e-13:
            return at
        values, vectors = torch.linalg.eigh(torch.autograd.functional.hessian(loss, at))
        curvature = values.abs()
        seen = curvature > 1e-11 * curvature.max()
        inverse = torch.where(seen, 1.0 / torch.where(seen, curvature, torch.ones_like(curvature)), 0.0)
        step = vectors @ (inverse * (vectors.mT @ gradient))
        now, size = loss(at), 1.0
        while size > 1e-10 and bool(loss(at - size * step) > now):
            size *= 0.5
        if size <= 1e-10:  # rounding: no step is better
            return at
        at = at - size * step
    if float(gradient.abs().max()) > 1e-9:
        raise InputError(f"Newton's method left a gradient of {float(gradient.abs().max()):.2g} after {steps} steps")
    return at
