"""Preferences that no reward explains: majorities that go round in circles, and tastes for a whole trajectory.

``General`` makes a labeler of any function that says how probable it is that the second segment of a pair is preferred.
Noisy preferences that a reward does explain are teachers' (``teachers.Teacher`` with ``beta`` or ``mistake``).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .. import rng
from ..data.preferences import By, Pairs, Preferences
from ..data.segments import Segments, scalar
from ..errors import InputError
from .protocols import Score

PreferenceFunction = Callable[[Pairs], Tensor]
"""Pairs to [N], P(second preferred)."""


@dataclass(frozen=True)
class General:
    """A labeler that goes by a preference function.

    Attributes:
        prefers: the function.
        mistake: probability that an answer is turned round.
        soft: give the probability (after mistakes) instead of drawing an answer.

    Raises:
        InputError: a mistake rate outside [0, 1]; when called, a function whose values are no probabilities [N].
    """

    prefers: PreferenceFunction
    mistake: float = 0.0
    soft: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.mistake <= 1:
            raise InputError(f"General.mistake is {self.mistake}, expected between 0 and 1")

    def __str__(self) -> str:
        return f"{self.prefers}" + (f" with mistake={self.mistake:g}" if self.mistake else "")

    def __call__(self, pairs: Pairs, key: Tensor) -> Preferences:
        """Answer; an exact 1/2 is a tie. The draws depend on ``key`` and on a pair's position alone."""
        p2 = self.prefers(pairs)
        if p2.shape != (len(pairs),) or not bool(((p2 >= 0) & (p2 <= 1)).all()):
            raise InputError(f"{self.prefers} gives {list(p2.shape)} numbers, expected {len(pairs)} in [0, 1]")
        if self.soft:
            label = (1 - self.mistake) * p2 + self.mistake * (1 - p2)
        else:
            key = scalar(key).to(p2.device)
            draw, slip = rng.uniform(torch.stack([rng.fold(key, "answer"), rng.fold(key, "mistake")]), len(p2))
            label = torch.where(p2 == 0.5, 0.5, (draw < p2).to(p2.dtype))
            label = torch.where(slip < self.mistake, 1 - label, label)
        settings = {"mistake": self.mistake, "soft": self.soft, "asked": len(pairs), "skipped": 0}
        return Preferences(
            pairs=pairs,
            label=label.float(),
            by=By(who=str(self), question=f"Which segment is preferred by {self.prefers}?", when="", settings=settings),
        )


@dataclass(frozen=True)
class Majority:
    """Preferred is what is better by most of several scores: no reward explains it, for it may go round in circles.

    With three scores and A = (3, 1, 2), B = (2, 3, 1), C = (1, 2, 3), A beats B, B beats C and C beats A (Condorcet).

    Attributes:
        scores: by which segments are compared.
        rule: "decided": the majority's, always. "share": with the probability that is the share of the scores.
    """

    scores: tuple[Score, ...]
    rule: Literal["decided", "share"] = "decided"

    def __post_init__(self) -> None:
        if not self.scores:
            raise InputError("Majority has no scores, expected at least one")

    def __str__(self) -> str:
        return f"majority({', '.join(map(str, self.scores))}; {self.rule})"

    def __call__(self, pairs: Pairs) -> Tensor:
        """[N] P(second preferred)."""
        worth = torch.stack([score(pairs.segments).double() for score in self.scores])  # [scores, M]
        votes = (worth[:, pairs.second] - worth[:, pairs.first]).sign().mean(0)
        return 0.5 + 0.5 * (votes.sign() if self.rule == "decided" else votes)


@dataclass(frozen=True)
class Mean:
    """The mean of one column of a segment's observations or actions, as a score."""

    column: int
    of: Literal["obs", "act"] = "obs"
    sign: float = 1.0

    def __str__(self) -> str:
        return f"{self.sign:g} * mean {self.of}[{self.column}]"

    def __call__(self, segments: Segments) -> Tensor:
        """[M] float64."""
        part = segments.obs if self.of == "obs" else segments.act
        return self.sign * part[..., self.column].double().mean(1)


@dataclass(frozen=True)
class SlowThenFast:
    """A score of whole trajectories: speed counts in the second half, if the first half was slow.

    With m the mean speed of the first half, the score is the mean speed of the second half where m <= limit, and
    limit - m (below 0) elsewhere. What a step is worth depends on steps long before, so no reward of states and
    actions gives it.

    Attributes:
        speed: [M, T] from segments.
        limit: of the first half's mean speed.
    """

    speed: Callable[[Segments], Tensor]
    limit: float

    def __post_init__(self) -> None:
        if not 0 <= self.limit < math.inf:
            raise InputError(f"SlowThenFast.limit is {self.limit}, expected at least 0")

    def __str__(self) -> str:
        return f"slow_then_fast({self.limit:g})"

    def __call__(self, segments: Segments) -> Tensor:
        """[M] float64."""
        speed = self.speed(segments).double()
        half = speed.shape[1] // 2
        early, late = speed[:, :half].mean(1), speed[:, half:].mean(1)
        return torch.where(early <= self.limit, late, self.limit - early)
