"""Deep sea treasure: the deeper, the richer, and every step costs time (Vamplew et al. 2011).

A grid of 11 x 11 cells in which a submarine starts at the upper left and ends an episode by reaching a treasure.
Rewards are [treasure, -1]. The convex map is Yang et al.'s (2019), the concave one Vamplew et al.'s; cells, moves and
rewards are those of mo-gymnasium's ``deep-sea-treasure-v0`` and ``deep-sea-treasure-concave-v0``. An observation tells
row and column by a one each among eleven zeros.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pbrl.spec import Spec

Floats = NDArray[np.float64]

SIZE = 11
DEPTHS = (1, 2, 3, 4, 4, 4, 7, 7, 9, 10, SIZE)  # the row of the sea bed, where the treasures lie, in each column
CONVEX = (0.7, 8.2, 11.5, 14.0, 15.1, 16.1, 19.6, 20.3, 22.4, 23.7)
CONCAVE = (1.0, 2.0, 3.0, 5.0, 8.0, 16.0, 24.0, 50.0, 74.0, 124.0)
MOVES = np.array([[-1, 0], [1, 0], [0, -1], [0, 1]])  # up, down, left, right


@dataclass(frozen=True)
class SeaTreasure:
    """The rules; ``treasures`` are those of the columns from the left."""

    name: str
    treasures: tuple[float, ...]

    @property
    def spec(self) -> Spec:
        """Four moves, 100 steps, treasure and time."""
        return Spec(self.name, obs_size=2 * SIZE, act_size=1, horizon=100, objectives=2, actions=4)

    def start(self) -> Floats:
        """[2] the upper left cell."""
        return np.zeros(2)

    def observe(self, state: Floats) -> Floats:
        """[n, 2] -> [n, 22]."""
        return np.eye(SIZE)[state.astype(np.int64)].reshape(len(state), 2 * SIZE)

    def move(self, state: Floats, act: Floats, chance: Floats) -> tuple[Floats, Floats, NDArray[np.bool_]]:
        """A move into rock or out of the grid leaves the submarine where it is."""
        del chance
        wanted = state.astype(np.int64) + MOVES[act[:, 0].astype(np.int64)]
        depth = np.asarray(DEPTHS)
        inside = ((wanted >= 0) & (wanted < SIZE)).all(1)
        inside &= wanted[:, 0] <= depth[np.clip(wanted[:, 1], 0, SIZE - 1)]
        cell = np.where(inside[:, None], wanted, state.astype(np.int64))
        values = np.append(self.treasures, 0.0)
        found = np.where(cell[:, 0] == depth[cell[:, 1]], values[cell[:, 1]], 0.0)
        return cell.astype(np.float64), np.stack([found, -np.ones(len(cell))], axis=1), found > 0.0

    def front(self, gamma: float) -> Floats:
        """[10, 2] discounted returns of the shortest ways to the treasures; at a low discount some are dominated."""
        steps = np.arange(len(self.treasures)) + np.asarray(DEPTHS[:-1])
        time = steps if gamma == 1.0 else (1.0 - gamma**steps) / (1.0 - gamma)
        return np.stack([np.asarray(self.treasures) * gamma ** (steps - 1.0), -time.astype(np.float64)], axis=1)
