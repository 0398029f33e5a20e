"""Preference games: exact self-play in matrices, as the theory of minimax winners needs it.

A preference matrix has P[i, j] = P(i preferred to j), P[i, j] + P[j, i] = 1 and P[i, i] = 1/2. Its minimax winner is
the policy p that no other beats: min_j (p P)_j = 1/2, the Nash equilibrium of the symmetric zero-sum game 2 P - 1.
Self-play of one learner with the reward r_i = sum_j p_j P[i, j] and multiplicative weights finds it *on average*
(Freund & Schapire 1999; SPO, Swamy et al., ICML 2024); the policies themselves may cycle for ever.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import rng
from ..errors import InputError


def check_preferences(preference: Tensor) -> None:
    """Raise InputError unless [..., A, A] holds probabilities with P[i, j] + P[j, i] = 1."""
    square = preference.dim() >= 2 and preference.shape[-1] == preference.shape[-2]
    if not square or not bool(((preference + preference.mT - 1.0).abs() < 1e-9).all() & (preference >= 0.0).all()):
        raise InputError(
            f"preference matrix of shape {list(preference.shape)} is not one, expected P[i, j] + P[j, i] = 1"
        )


def cycle(size: int = 3, strength: float = 1.0) -> Tensor:
    """[A, A] each of an odd number of choices beats half of the others: rock, paper and scissors for 3.

    Args:
        size: A, odd.
        strength: 1 wins always, 0 is a tie.
    """
    if size % 2 == 0 or not 0.0 <= strength <= 1.0:
        raise InputError(f"cycle of {size} at strength {strength}, expected an odd size and a strength in [0, 1]")
    ahead = (torch.arange(size)[:, None] - torch.arange(size)[None, :]) % size  # i beats those just behind it
    won = torch.where(ahead == 0, 0.0, torch.where(ahead <= size // 2, 1.0, -1.0)).double()
    return 0.5 + 0.5 * strength * won


def bradley_terry_matrix(utility: Tensor) -> Tensor:
    """[..., A] utilities -> [..., A, A] P = sigmoid(u_i - u_j)."""
    return torch.sigmoid(utility.unsqueeze(-1) - utility.unsqueeze(-2))


def win_rates(preference: Tensor, policy: Tensor) -> Tensor:
    """r_i = sum_j p_j P[i, j]: [..., A, A], [..., A] -> [..., A]. Their mean under the policy itself is 1/2."""
    return (preference @ policy.unsqueeze(-1)).squeeze(-1)


def exploitability(preference: Tensor, policy: Tensor) -> Tensor:
    """How much more often than half the time the best answer to a policy wins: [...], 0 for a minimax winner."""
    return win_rates(preference, policy).amax(-1) - 0.5


@dataclass(frozen=True, eq=False)
class SelfPlay:
    """What self-play came to.

    Attributes:
        average: [P, A] the mean of all policies that were played.
        last: [P, A] the policy after the last round.
    """

    average: Tensor
    last: Tensor


def multiplicative_weights(
    preference: Tensor,
    start: Tensor,
    *,
    rounds: int,
    rate: float | None = None,
    keys: Tensor | None = None,
    batch: int = 64,
) -> SelfPlay:
    """p_i <- p_i exp(rate r_i) / Z for ``rounds`` rounds of self-play.

    Args:
        preference: [P, A, A].
        start: [P, A] the first policy; from a minimax winner nothing moves.
        rate: step size, by default sqrt(8 log A / rounds). As regret goes, the average's exploitability is at most
            log(1 / min_i start_i) / (rate rounds) + rate / 8.
        keys: [P]; where given, r_i is the win rate against ``batch`` choices drawn from the policy, not the exact one.
        batch: how many.

    Raises:
        InputError: no preference matrix.
    """
    check_preferences(preference)
    choices = preference.shape[-1]
    step = math.sqrt(8.0 * math.log(choices) / rounds) if rate is None else rate
    logits, total = start.log(), torch.zeros_like(start)
    for number in range(rounds):
        policy = logits.softmax(-1)
        total += policy
        opponents = policy if keys is None else _drawn(policy, rng.fold(keys, "opponents", number), batch)
        logits = logits + step * win_rates(preference, opponents)
    return SelfPlay(total / rounds, logits.softmax(-1))


def _drawn(policy: Tensor, keys: Tensor, batch: int) -> Tensor:
    """[P, A] the shares of ``batch`` choices drawn from a policy [P, A]."""
    drawn = rng.uniform(keys, batch, dtype=torch.float64)
    choice = torch.searchsorted(policy.cumsum(-1).contiguous(), drawn, right=True).clamp(max=policy.shape[-1] - 1)
    return torch.zeros_like(policy).scatter_add_(-1, choice, torch.full_like(drawn, 1.0 / batch).to(policy.dtype))
