"""The three things that labelers are made of, as types: a score, an oracle critic, a labeler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from torch import Tensor

from ..data.preferences import Pairs, Preferences
from ..data.segments import Segments

Score = Callable[[Segments], Tensor]
"""Segments to [M]; higher is better."""


@runtime_checkable
class StepScore(Protocol):
    """A score that is a sum over the steps of a segment, as myopic teachers need it."""

    def __call__(self, segments: Segments) -> Tensor:
        """[M], the sum of ``steps`` over time."""

    def steps(self, segments: Segments) -> Tensor:
        """[M, T], what each step adds."""


class Critic(Protocol):
    """The values of an (approximately) optimal policy, in units of the true reward."""

    @property
    def gamma(self) -> float:
        """Discount per step that the values belong to."""

    def q(self, obs: Tensor, act: Tensor) -> Tensor:
        """[..., O], [..., A] -> [...]."""

    def v(self, obs: Tensor) -> Tensor:
        """[..., O] -> [...]."""


class Labeler(Protocol):
    """A function from questions to answers."""

    def __call__(self, pairs: Pairs, key: Tensor) -> Preferences:
        """Answer ``pairs`` with the random numbers of ``key`` (a scalar).

        Pairs that the labeler skips are missing from the result, the others keep their order; ``by.settings`` counts
        both as ``asked`` and ``skipped``.
        """
