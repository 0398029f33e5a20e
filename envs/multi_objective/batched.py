"""Copies of a small problem stepped as one array, from rules that are pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pbrl.errors import InputError
from pbrl.spec import Spec

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


class Rules(Protocol):
    """A problem with several objectives whose episodes all begin in one state."""

    @property
    def spec(self) -> Spec:
        """Sizes, time limit and objectives."""

    def start(self) -> Floats:
        """[S] the state that episodes begin in."""

    def observe(self, state: Floats) -> Floats:
        """States [n, S] -> observations [n, O]."""

    def move(self, state: Floats, act: Floats, chance: Floats) -> tuple[Floats, Floats, Flags]:
        """States [n, S], actions [n, A] and uniform draws [n] -> next states, rewards [n, K], true ends [n]."""


class Batched:
    """n independent copies; no auto-reset: a finished copy is frozen, with reward 0, until it is restarted.

    What chance does to a copy is drawn from its own seed at its start, so it does not depend on the other copies.

    Attributes:
        copies: n, how many.
        rules: the problem.
        spec: sizes, time limit and objectives.

    Raises:
        InputError: less than one copy.
    """

    def __init__(self, rules: Rules, copies: int) -> None:
        if copies < 1:
            raise InputError(f"copies is {copies}, expected at least 1")
        self.copies, self.rules, self.spec = copies, rules, rules.spec
        assert self.spec.horizon is not None  # ours all have one
        self._horizon: int = self.spec.horizon
        self._steps = np.zeros(copies, dtype=np.int64)
        self._over = np.zeros(copies, dtype=bool)
        self._state: Floats | None = None
        self._chance = np.zeros((self._horizon, copies))

    def reset(self, seeds: Sequence[int]) -> Floats:
        """Start a new episode in every copy, each from its own seed: [n, O].

        Raises:
            InputError: not one seed per copy.
        """
        if len(seeds) != self.copies:
            raise InputError(f"{len(seeds)} seeds for {self.copies} copies of {self.spec.name}, expected one each")
        self._state = np.tile(self.rules.start(), (self.copies, 1))
        return self.restart(np.ones(self.copies, dtype=bool), seeds)

    def restart(self, chosen: Flags, seeds: Sequence[int]) -> Floats:
        """Start a new episode in the ``chosen`` [n] copies, one seed for each of them; obs [n, O] of all copies.

        Raises:
            InputError: not one seed per chosen copy, or no reset before.
        """
        if self._state is None:
            raise InputError(f"{self.spec.name} was restarted before it was reset, expected reset(seeds) first")
        if len(seeds) != chosen.sum():
            raise InputError(
                f"{len(seeds)} seeds for {chosen.sum()} chosen copies of {self.spec.name}, expected one each"
            )
        self._state[chosen] = self.rules.start()
        for i, seed in zip(np.flatnonzero(chosen), seeds):
            self._chance[:, i] = np.random.default_rng(int(seed)).random(self._horizon)
        self._steps[chosen], self._over[chosen] = 0, False
        return self.rules.observe(self._state)

    def step(self, act: ArrayLike) -> tuple[Floats, Floats, Flags, Flags]:
        """One step of every unfinished copy with actions [n, A]: obs [n, O], rew [n, K], term [n], trunc [n].

        Raises:
            InputError: actions of another shape, choices that there are not, or no reset before.
        """
        if self._state is None:
            raise InputError(f"{self.spec.name} was stepped before it was reset, expected reset(seeds) first")
        given = self._checked(np.asarray(act, dtype=np.float64))
        cut = self._steps >= self._horizon
        going = ~(self._over | cut)
        chance = self._chance[np.minimum(self._steps, self._horizon - 1), np.arange(self.copies)]
        after, rew, ends = self.rules.move(self._state, given, chance)
        self._state = np.where(going[:, None], after, self._state)
        self._over |= going & ends
        self._steps += going
        cut = (self._steps >= self._horizon) & ~self._over
        return self.rules.observe(self._state), np.where(going[:, None], rew, 0.0), self._over.copy(), cut

    def _checked(self, act: Floats) -> Floats:
        if act.shape != (self.copies, self.spec.act_size):
            raise InputError(f"act has shape {act.shape}, expected {(self.copies, self.spec.act_size)}")
        if self.spec.actions is None:
            return np.clip(act, -1.0, 1.0)
        known = (act == np.round(act)) & (act >= 0) & (act < self.spec.actions)
        if not known.all():
            expected = f"whole numbers from 0 to {self.spec.actions - 1}: {self.spec.name} has a choice of actions"
            raise InputError(f"act is {act[~known][0]:g}, expected {expected}")
        return act

    def close(self) -> None:
        """Nothing to free."""
