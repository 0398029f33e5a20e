"""Resource gathering: fetch gold and a diamond past enemies who strike one time in ten (Barrett & Narayanan 2008).

A grid of 5 x 5 cells; an episode ends with the return home or with death. Rewards are [-1 if killed, gold brought home,
diamond brought home]; cells, moves and chances are those of mo-gymnasium's ``resource-gathering-v0``. An observation is
row and column by a one each among five zeros, and whether gold and diamond are aboard.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pbrl.spec import Spec

Floats = NDArray[np.float64]

SIZE, HOME, GOLD, DIAMOND = 5, (4, 2), (0, 2), (1, 4)
ENEMIES = ((0, 3), (1, 2))
STRIKE = 0.1
MOVES = np.array([[-1, 0], [1, 0], [0, -1], [0, 1]])  # up, down, left, right


def _at(cell: NDArray[np.int64], place: tuple[int, int]) -> NDArray[np.bool_]:
    return np.asarray((cell == place).all(-1), dtype=np.bool_)


@dataclass(frozen=True)
class ResourceGathering:
    """The rules; a state is row, column, gold aboard, diamond aboard."""

    @property
    def spec(self) -> Spec:
        """Four moves, 100 steps, death, gold and diamond."""
        return Spec("ResourceGathering-v0", obs_size=2 * SIZE + 2, act_size=1, horizon=100, objectives=3, actions=4)

    def start(self) -> Floats:
        """[4] at home, with nothing."""
        return np.array([*HOME, 0.0, 0.0])

    def observe(self, state: Floats) -> Floats:
        """[n, 4] -> [n, 12]."""
        place = np.eye(SIZE)[state[:, :2].astype(np.int64)].reshape(len(state), 2 * SIZE)
        return np.hstack([place, state[:, 2:]])

    def move(self, state: Floats, act: Floats, chance: Floats) -> tuple[Floats, Floats, NDArray[np.bool_]]:
        """A move out of the grid leaves one where one is."""
        cell = np.clip(state[:, :2].astype(np.int64) + MOVES[act[:, 0].astype(np.int64)], 0, SIZE - 1)
        gold = (state[:, 2] > 0) | _at(cell, GOLD)
        diamond = (state[:, 3] > 0) | _at(cell, DIAMOND)
        killed = (_at(cell, ENEMIES[0]) | _at(cell, ENEMIES[1])) & (chance < STRIKE)
        home = _at(cell, HOME)
        rew = np.stack([-killed.astype(float), home & gold, home & diamond], axis=1)
        return np.column_stack([cell, gold, diamond]).astype(np.float64), rew.astype(np.float64), killed | home
