"""Baseline policies: noisy versions of the best one, and policies learned from recorded transitions."""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy.special import softmax

from ..errors import InputError
from .episodic import backward_induction
from .learner import TabularSpec
from .mdps import EpisodicMDP, Floats
from .model import l1_radius
from .robust import worst_mean

Origin = Literal["given", "cloned", "pessimistic"]


def boltzmann(mdp: EpisodicMDP, sharpness: float) -> Floats:
    """[P?, H, S, A] the policy proportional to exp(sharpness Q*)."""
    policy: Floats = softmax(sharpness * backward_induction(mdp).q, axis=-1)
    return policy


def cloned(counts: Floats) -> Floats:
    """[..., H, S, A] the frequencies of actions in counts [..., H, S, A, S']; uniform in states that were not seen."""
    pairs = counts.sum(-1)
    states = pairs.sum(-1, keepdims=True)
    policy: Floats = np.where(states > 0, pairs / np.maximum(states, 1.0), 1.0 / pairs.shape[-1])
    return policy


def pessimistic(counts: Floats, reward: Floats, delta: Floats) -> Floats:
    """[P, H, S, A] the policy of highest lower confidence bound (VI-LCB with the L1 ball of ``l1_radius``).

    Args:
        counts: [P, H, S, A, S'].
        reward: [P, H, S, A].
        delta: [P].
    """
    visits: Floats = counts.sum(-1)
    law = np.where(visits[..., None] > 0, counts / np.maximum(visits, 1.0)[..., None], 1.0 / counts.shape[-1])
    radius = l1_radius(visits, delta)
    value = np.zeros((len(counts), counts.shape[-1]))
    policy: Floats = np.empty_like(visits)
    for h in reversed(range(counts.shape[1])):
        q = reward[:, h] + worst_mean(law[:, h], value, radius[:, h])
        policy[:, h] = np.eye(q.shape[-1])[q.argmax(-1)]
        value = q.max(-1)
    return policy


def baseline_of(spec: TabularSpec, origin: Origin, delta: Floats) -> Floats:
    """[P, H, S, A] the baseline of P members with these delta [P]: the given one, or one learned from ``spec.offline``.

    Raises:
        InputError: the problem lacks what that takes.
    """
    size = len(delta)
    if origin == "given":
        if spec.baseline is None:
            raise InputError(
                "the problem has no baseline policy, expected one (or --baseline cloned, with offline data)"
            )
        given: Floats = np.broadcast_to(spec.baseline, (size, *spec.shape))
        return given
    if spec.offline is None:
        raise InputError(f"a {origin} baseline is learned from offline transitions and the problem has none")
    counts = np.broadcast_to(spec.offline, (size, *spec.shape, spec.shape[1]))
    if origin == "cloned":
        return cloned(counts)
    return pessimistic(counts, np.broadcast_to(spec.reward, (size, *spec.shape)), delta)


def threshold_of(spec: TabularSpec, members: int) -> Floats:
    """[P] the return that every episode must reach in expectation.

    Raises:
        InputError: the problem has none.
    """
    if spec.threshold is None:
        raise InputError("the problem has no threshold, expected the return that every episode must reach")
    return np.broadcast_to(np.asarray(spec.threshold, dtype=np.float64), (members,))
