"""The delivery domain: a grid world in which people's preferences were asked for (Knox et al., TMLR 2024).

A car drives to a goal. Every step costs gas; mud costs more, roadblocks extra, coins give a little each time they are
entered, sheep and the goal end the episode. The rules are the paper's; the board below is this library's own, with as
many objects of each kind. The authors' board has no licence and does not ship: who has its file can pass it.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .mdps import DiscountedMDP

FREE, GOAL, HOUSE, SHEEP, COIN, ROADBLOCK = range(6)
MUD = 6
"""Added to a code: the same object on mud."""
GAS_COST, GOAL_REWARD, SHEEP_REWARD, COIN_REWARD, ROADBLOCK_REWARD, MUD_COST = -1.0, 50.0, -50.0, 1.0, -1.0, -2.0
MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))
"""Up, down, left, right: changes of (row, column)."""

BOARD = """
. . . . . . c . . .
. m m . s . . . h .
. m c . . r . . . .
. . . h . . . m m .
r . . . . s . m m .
. . c . . . . . c .
. s . . m m r . . .
. . . . m M . . s .
c . h . m m . r . G
. . . r m m . . . m
"""
_CODES = {".": FREE, "G": GOAL, "h": HOUSE, "s": SHEEP, "c": COIN, "r": ROADBLOCK, "m": MUD, "M": MUD + COIN}


def board(path: Path | None = None) -> NDArray[np.int64]:
    """[rows, columns] the cells' codes: of this library's board, or of a JSON file of the authors' form.

    Raises:
        InputError: the file is not a grid of codes 0 to 11.
    """
    if path is None:
        return np.array([[_CODES[cell] for cell in line.split()] for line in BOARD.strip().splitlines()])
    try:
        cells = np.array(json.loads(path.read_text(encoding="utf-8")), dtype=np.float64)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no board can be read ({error}), expected JSON, a list of rows of codes") from None
    codes: NDArray[np.int64] = cells.astype(np.int64)
    if codes.ndim != 2 or not np.array_equal(codes, cells) or codes.min() < 0 or codes.max() >= 2 * MUD:
        raise InputError(
            f"{path}: a board of shape {list(cells.shape)}, expected rows of codes from 0 to {2 * MUD - 1}"
        )
    return codes


def delivery_grid(codes: NDArray[np.int64] | None = None, gamma: float = 1.0) -> DiscountedMDP:
    """The board as an MDP: a state for each cell in which a car can stand, row by row, and one absorbing end.

    Actions are ``MOVES``. Episodes start in every cell with equal probability. A move off the board or into a house
    stays and pays the surface; entering a cell pays its surface and its object; the goal and sheep pay only themselves.
    """
    cells = board() if codes is None else codes
    kind, mud = cells % MUD, cells >= MUD
    surface = np.where(mud, MUD_COST, GAS_COST)
    stands = ~np.isin(kind, (GOAL, HOUSE, SHEEP))
    number = np.where(stands, np.cumsum(stands).reshape(stands.shape) - 1, -1)
    count = int(stands.sum())
    transition, reward = np.zeros((count + 1, 4, count + 1)), np.zeros((count + 1, 4))
    transition[count, :, count] = 1.0
    for row, column in np.argwhere(stands):
        state = number[row, column]
        for action, (down, right) in enumerate(MOVES):
            to = (row + down, column + right)
            inside = 0 <= to[0] < cells.shape[0] and 0 <= to[1] < cells.shape[1]
            if not inside or kind[to] == HOUSE:
                transition[state, action, state], reward[state, action] = 1.0, surface[row, column]
            elif kind[to] in (GOAL, SHEEP):
                transition[state, action, count] = 1.0
                reward[state, action] = GOAL_REWARD if kind[to] == GOAL else SHEEP_REWARD
            else:
                extra = {COIN: COIN_REWARD, ROADBLOCK: ROADBLOCK_REWARD}.get(int(kind[to]), 0.0)
                transition[state, action, number[to]], reward[state, action] = 1.0, surface[to] + extra
    start = np.where(np.arange(count + 1) < count, 1.0 / count, 0.0)
    return DiscountedMDP(transition, reward, gamma, start, name="delivery grid")
