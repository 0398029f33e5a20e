"""Rollouts: what P members did in N environment copies each, for learners that learn from what they have just done."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Rollout:
    """T steps of N copies. Episodes follow one another in a copy; ``next_obs`` is always the true one, not a new start.

    Attributes:
        obs: [P, T, N, O].
        act: [P, T, N, A] as drawn; the environment got them clipped to [-1, 1]. A choice is a whole number, A being 1.
        rew: [P, T, N, K].
        next_obs: [P, T, N, O] what followed, the last observation of an episode included.
        term: [P, T, N] 1 where the episode truly ended, so that nothing is to come.
        trunc: [P, T, N] 1 where it was cut: what would have come is still worth something.
    """

    obs: Tensor
    act: Tensor
    rew: Tensor
    next_obs: Tensor
    term: Tensor
    trunc: Tensor

    @property
    def ended(self) -> Tensor:
        """[P, T, N] 1 where the episode was over, for whichever reason."""
        return torch.maximum(self.term, self.trunc)
