"""Finite MDPs as arrays: episodic with stages, discounted, and with average reward.

All may have a leading axis P of equally large problems. A model is checked when it is built: rows of ``transition`` and
``start`` are probabilities, rewards are finite.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError

Floats = NDArray[np.float64]
ROUNDING = 1e-9


def law(values: ArrayLike, name: str) -> Floats:
    """float64 probabilities over the last axis.

    Raises:
        InputError: an entry below 0, or a row that does not sum to 1.
    """
    table = np.asarray(values, dtype=np.float64)
    if not table.size or not np.isfinite(table).all() or table.min() < 0:
        raise InputError(f"{name} has entries that are negative or not finite, expected probabilities")
    error = float(np.abs(table.sum(-1) - 1.0).max())
    if error > ROUNDING:
        raise InputError(f"{name} has rows that miss a sum of 1 by {error:.3g}, expected probabilities")
    return table


def _rewards(values: ArrayLike, transition: Floats) -> Floats:
    table = np.asarray(values, dtype=np.float64)
    if table.shape != transition.shape[:-1]:
        raise InputError(f"reward is {list(table.shape)}, expected {list(transition.shape[:-1])}")
    if not np.isfinite(table).all():
        raise InputError("reward has entries that are not finite")
    return table


def _start(values: ArrayLike | None, states: int) -> Floats:
    if values is None:
        return np.full(states, 1.0 / states)
    start = law(values, "start")
    if start.shape[-1] != states:
        raise InputError(f"start has {start.shape[-1]} states, expected {states}")
    return start


@dataclass(frozen=True, eq=False)
class EpisodicMDP:
    """H stages; the law of the next state and the reward may differ between them.

    Attributes:
        transition: [P?, H, S, A, S'] probability of the next state.
        reward: [P?, H, S, A] expected reward, known to learners unless they say otherwise.
        start: [S] or [P, S] law of the first state; state 0 if None.
        name: what it is called in tables.

    Raises:
        InputError: shapes that do not fit, or rows that are no probabilities.
    """

    transition: Floats
    reward: Floats
    start: Floats | None = None
    name: str = "episodic"

    def __post_init__(self) -> None:
        transition = law(self.transition, f"{self.name}: transition")
        if transition.ndim not in (4, 5) or transition.shape[-1] != transition.shape[-3]:
            raise InputError(f"{self.name}: transition is {list(transition.shape)}, expected [P?, H, S, A, S]")
        first = np.eye(transition.shape[-1])[0] if self.start is None else self.start
        object.__setattr__(self, "transition", transition)
        object.__setattr__(self, "reward", _rewards(self.reward, transition))
        object.__setattr__(self, "start", _start(first, transition.shape[-1]))

    @property
    def first(self) -> Floats:
        """[S] or [P, S], the law of the first state."""
        assert self.start is not None
        return self.start

    @property
    def shape(self) -> tuple[int, int, int]:
        """H, S and A."""
        horizon, states, actions = self.reward.shape[-3:]
        return horizon, states, actions


@dataclass(frozen=True, eq=False)
class DiscountedMDP:
    """Stationary, discounted; an absorbing state of reward 0 makes episodes.

    Attributes:
        transition: [P?, S, A, S'].
        reward: [P?, S, A].
        gamma: discount in [0, 1]; 1 only where every optimal policy ends.
        start: [S]; uniform if None.
        name: what it is called in tables.

    Raises:
        InputError: shapes that do not fit, rows that are no probabilities, or a discount outside [0, 1].
    """

    transition: Floats
    reward: Floats
    gamma: float
    start: Floats | None = None
    name: str = "discounted"

    def __post_init__(self) -> None:
        transition = law(self.transition, f"{self.name}: transition")
        if transition.ndim not in (3, 4) or transition.shape[-1] != transition.shape[-3]:
            raise InputError(f"{self.name}: transition is {list(transition.shape)}, expected [P?, S, A, S]")
        if not 0.0 <= self.gamma <= 1.0:
            raise InputError(f"{self.name}: gamma is {self.gamma}, expected 0 to 1")
        object.__setattr__(self, "transition", transition)
        object.__setattr__(self, "reward", _rewards(self.reward, transition))
        object.__setattr__(self, "start", _start(self.start, transition.shape[-1]))

    @property
    def first(self) -> Floats:
        """[S], the law of the first state."""
        assert self.start is not None
        return self.start


@dataclass(frozen=True, eq=False)
class AverageMDP:
    """Stationary, judged by its reward per step in the long run.

    Attributes:
        transition: [S, A, S'].
        reward: [S, A].
        name: what it is called in tables.

    Raises:
        InputError: shapes that do not fit, or rows that are no probabilities.
    """

    transition: Floats
    reward: Floats
    name: str = "average"

    def __post_init__(self) -> None:
        transition = law(self.transition, f"{self.name}: transition")
        if transition.ndim != 3 or transition.shape[-1] != transition.shape[-3]:
            raise InputError(f"{self.name}: transition is {list(transition.shape)}, expected [S, A, S]")
        object.__setattr__(self, "transition", transition)
        object.__setattr__(self, "reward", _rewards(self.reward, transition))
