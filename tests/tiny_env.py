"""A vector environment for the contract: what the tiny data of ``contract.py`` describe, as something to play in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pbrl.data import Dataset
from pbrl.spec import Spec

Array = NDArray[np.float64]
LENGTH = 10


def base_reward(obs: Any, act: Any) -> Any:
    """-|a - 0.5|^2 + 0.1 s_0, of rows of arrays or tensors."""
    return -((act - 0.5) ** 2).sum(-1) + 0.1 * obs[..., 0]


class TinyEnv:
    """Episodes of ten steps in which the state drifts by itself; those that start from an even seed truly end.

    Objective k likes the actions better that are 0.8 k larger. Rewards are ``factor`` times ``base_reward``, or
    ``constant``; without ``ends`` all episodes are cut instead.
    """

    def __init__(self, copies: int, spec: Spec, *, factor: float, constant: float | None, ends: bool) -> None:
        self.copies, self.spec = copies, spec
        self.factor, self.constant, self.ends = factor, constant, ends
        self.steps = np.full(copies, LENGTH)
        self.true_end = np.zeros(copies, dtype=bool)
        self.state = np.zeros((copies, spec.obs_size))

    @classmethod
    def like(cls, dataset: Dataset, copies: int, objectives: int = 1) -> TinyEnv:
        """The environment whose rewards and endings are those of some version of the tiny data."""
        spec = Spec("tiny", dataset.spec.obs_size, dataset.spec.act_size, horizon=LENGTH, objectives=objectives)
        base: Tensor = base_reward(dataset.obs, dataset.act)
        flat = bool((dataset.rew == dataset.rew[0]).all())
        factor = float((dataset.rew * base).sum() / base.square().sum())
        constant = float(dataset.rew[0]) if flat else None
        if not flat:
            torch.testing.assert_close(dataset.rew, factor * base, rtol=1e-4, atol=1e-4 * abs(factor))
        return cls(copies, spec, factor=round(factor, 3), constant=constant, ends=bool(dataset.term.any()))

    def reset(self, seeds: Sequence[int]) -> Array:
        return self.restart(np.ones(self.copies, dtype=bool), seeds)

    def restart(self, chosen: NDArray[np.bool_], seeds: Sequence[int]) -> Array:
        for i, seed in zip(np.flatnonzero(chosen), seeds, strict=True):
            self.state[i] = np.random.default_rng(seed).standard_normal(self.spec.obs_size)
            self.true_end[i] = seed % 2 == 0
        self.steps[chosen] = 0
        return self.state.copy()

    def step(self, act: Array) -> tuple[Array, Array, NDArray[np.bool_], NDArray[np.bool_]]:
        assert act.shape == (self.copies, self.spec.act_size)
        assert np.abs(act).max() <= 1.0, "actions leave [-1, 1]"
        going = self.steps < LENGTH
        wishes = [base_reward(self.state, act - 0.8 * k) for k in range(self.spec.objectives)]
        rew = self.factor * (wishes[0] if len(wishes) == 1 else np.stack(wishes, axis=1))
        if self.constant is not None:
            rew = np.full_like(rew, self.constant)
        self.state = np.where(going[:, None], 0.9 * self.state + 0.1 * act[:, :1], self.state)
        self.steps += going
        over = self.steps >= LENGTH
        term = over & self.true_end if self.ends else np.zeros_like(over)
        return self.state.copy(), np.where(going, rew.T, 0.0).T, term, over & ~term

    def close(self) -> None:
        return None
