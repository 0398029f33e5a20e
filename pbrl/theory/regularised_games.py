"""Preference games regularised towards a reference, and the updates that seek their equilibrium, in logits.

V(p, q) = p P q - beta KL(p || ref) + beta KL(q || ref) has one symmetric equilibrium p*, with
log p* = log ref + P p* / beta + const. Everything takes leading axes: games [..., A, A], log-policies [..., A].
"""

from __future__ import annotations

import numpy as np
from scipy.special import log_softmax, logsumexp

from ..errors import InputError
from .mdps import Floats


def answer(game: Floats, policy: Floats) -> Floats:
    """[..., A] win rates of each choice against a policy [..., A]."""
    rates: Floats = np.einsum("...ij,...j->...i", game, policy)
    return rates


def kl(policy: Floats, other: Floats) -> Floats:
    """[...] KL of two log-policies [..., A]."""
    divergence: Floats = (np.exp(policy) * (policy - other)).sum(-1)
    return divergence


def mirror_step(
    game: Floats, policy: Floats, reference: Floats, step: float, beta: float, against: Floats | None = None
) -> Floats:
    """log pi+ = (1 - step beta) log pi + step beta log ref + step P q + const, q = ``against`` or pi: mirror descent.

    With beta = 0 it is self-play by multiplicative weights. Online IPO, INPO and SPPO are this step in expectation.
    """
    opponent = np.exp(policy if against is None else against)
    moved = (1.0 - step * beta) * policy + step * beta * reference + step * answer(game, opponent)
    return np.asarray(log_softmax(moved, axis=-1))


def extragradient_step(
    game: Floats, policy: Floats, reference: Floats, step: float, beta: float
) -> tuple[Floats, Floats]:
    """EGPO (Zhou et al., 2025): a mirror step against the policy that a first mirror step gives. (pi+, that policy)."""
    half = mirror_step(game, policy, reference, step, beta)
    return mirror_step(game, policy, reference, step, beta, half), half


def nash_md_step(game: Floats, policy: Floats, reference: Floats, step: float, beta: float) -> Floats:
    """Nash-MD (Munos et al., ICML 2024): a mirror step against pi^(1 - step beta) ref^(step beta) / Z."""
    mixed = np.asarray(log_softmax((1.0 - step * beta) * policy + step * beta * reference, axis=-1))
    return mirror_step(game, policy, reference, step, beta, mixed)


def gap(game: Floats, policy: Floats, reference: Floats, beta: float) -> Floats:
    """[...] duality gap of a log-policy: 2 (beta log E_ref exp(P pi / beta) + beta KL(pi || ref) - 1/2)."""
    best = beta * logsumexp(reference + answer(game, np.exp(policy)) / beta, axis=-1)
    found: Floats = 2.0 * (best + beta * kl(policy, reference) - 0.5)
    return found


def equilibrium(game: Floats, reference: Floats, beta: float, tolerance: float = 1e-13) -> Floats:
    """[..., A] the log-policy of the symmetric equilibrium, by EGPO and then Newton's method.

    Raises:
        InputError: beta of 0 or below, or no convergence.
    """
    if beta <= 0.0:
        raise InputError(f"beta is {beta}, expected above 0: without regularisation the equilibrium may not be unique")
    policy, step = np.broadcast_to(reference, game.shape[:-1]).astype(np.float64), 1.0 / (beta + 0.75)
    identity = np.eye(game.shape[-1])
    for _ in range(100_000):
        after, _ = extragradient_step(game, policy, reference, step, beta)
        moved = float(np.abs(np.exp(after) - np.exp(policy)).max())
        policy = after
        if moved < 1e-6 * step * beta:
            break
    for _ in range(50):
        law = np.exp(policy)
        wanted = np.asarray(log_softmax(reference + answer(game, law) / beta, axis=-1))
        missed = wanted - policy
        if float(np.abs(missed).max()) < tolerance * (1.0 + 1.0 / beta):
            return policy
        # F(log p) = log_softmax(reference + P p / beta) - log p; its derivative is (I - 1 w') P diag(p) / beta - I.
        slope = game * law[..., None, :] / beta
        slope = slope - np.einsum("...j,...jk->...k", np.exp(wanted), slope)[..., None, :]
        policy = policy + np.linalg.solve(identity - slope, missed[..., None])[..., 0]
        policy = np.asarray(log_softmax(policy, axis=-1))
    raise InputError(f"the equilibrium at beta {beta} has not been found to {tolerance}")


def random_games(count: int, choices: int, *, seed: list[int], certain: bool = False) -> Floats:
    """[count, A, A] preference matrices, uniformly random or (``certain``) of zeros and ones."""
    upper = np.triu(np.random.default_rng(seed).random((count, choices, choices)), 1)
    if certain:
        upper = np.triu(np.round(upper), 1)
    below = np.tril(1.0 - np.swapaxes(upper, -1, -2), -1)
    games: Floats = upper + below + 0.5 * np.eye(choices)
    return games


def random_laws(count: int, choices: int, *, seed: list[int]) -> Floats:
    """[count, A] log-policies of standard normal logits."""
    return np.asarray(log_softmax(np.random.default_rng(seed).standard_normal((count, choices)), axis=-1))
