"""The policy of a soft actor-critic run, from its weights, in NumPy."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .behaviour import Array, Policy


def sac_policy(weights: Mapping[str, Array], *, greedy: bool = False) -> Policy:
    """The tanh-Gaussian policy of the arrays of an oracle of kind ``sac`` (two hidden layers), or its mode."""

    def act(obs: Array, generator: np.random.Generator) -> Array:
        hidden = obs
        for depth in ("0", "1"):
            hidden = np.maximum(hidden @ weights[f"actor/{depth}/weight"] + weights[f"actor/{depth}/bias"], 0.0)
        raw = hidden @ weights["actor/mean/weight"] + weights["actor/mean/bias"]
        if not greedy:
            log_std = hidden @ weights["actor/log_std/weight"] + weights["actor/log_std/bias"]
            raw = raw + np.exp(np.clip(log_std, -20.0, 2.0)) * generator.standard_normal(raw.shape)
        return np.asarray(np.tanh(raw))

    return act
