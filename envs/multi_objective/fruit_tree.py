"""Fruit tree: a binary tree whose leaves hold six nutrients each (Yang et al. 2019).

Left or right at every node; the reward is the leaf's vector at the last step and 0 before. Every leaf has norm 10, so
each is best for weights proportional to itself: the convex coverage set is all of them. The leaves are those that
mo-gymnasium ships. An observation is the way so far: -1 for left, 1 for right, 0 for what is still to come.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pbrl.spec import Spec

Floats = NDArray[np.float64]


def leaves(depth: int) -> Floats:
    """[2^depth, 6] the nutrients of the leaves from left to right, for depths 5, 6 and 7."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    from mo_gymnasium.envs.fruit_tree.fruit_tree import FRUITS  # brings pygame: only when a tree is asked for

    return np.asarray(FRUITS[str(depth)], dtype=np.float64)


@dataclass(frozen=True)
class FruitTree:
    """The rules of a tree of some depth; a state is the way so far."""

    depth: int
    fruits: Floats = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "fruits", leaves(self.depth))

    @property
    def spec(self) -> Spec:
        """Two moves, as many steps as the tree is deep, six nutrients."""
        name = f"FruitTree{self.depth}-v0"
        return Spec(name, obs_size=self.depth, act_size=1, horizon=self.depth, objectives=6, actions=2)

    def start(self) -> Floats:
        """[depth] no step of the way taken."""
        return np.zeros(self.depth)

    def observe(self, state: Floats) -> Floats:
        """[n, depth] -> the same."""
        return state.copy()

    def move(self, state: Floats, act: Floats, chance: Floats) -> tuple[Floats, Floats, NDArray[np.bool_]]:
        """One node down."""
        del chance
        after, row = state.copy(), np.arange(len(state))
        taken = np.minimum((state != 0.0).sum(1), self.depth - 1)
        after[row, taken] = 2.0 * act[:, 0] - 1.0
        ends = (after != 0.0).all(1)
        leaf = ((after > 0.0) * 2.0 ** np.arange(self.depth)[::-1]).sum(1).astype(np.int64)
        return after, np.where(ends[:, None], self.fruits[leaf], 0.0), ends

    def front(self, gamma: float) -> Floats:
        """[2^depth, 6] the discounted returns of all leaves."""
        return self.fruits * gamma ** (self.depth - 1)
