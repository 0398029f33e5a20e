"""A desk: questions are put there and answers are picked up, at once or days later. Nobody waits at it.

``loops.query_and_learn`` asks through a desk. At ``AtOnce`` sits a labeler that answers immediately. A desk
with people behind it keeps questions and answers in a store of its own, and may outlive the process, or come later:

- ``ask`` may bring a question again (after a restart of the run), which must change nothing: its name is the same;
- ``answers`` may give an answer again, or to a question that the run does not remember: the run ignores it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from .. import rng
from ..data.preferences import Pairs
from .protocols import Labeler
from .teachers import Teacher


@dataclass(frozen=True, eq=False)
class Question:
    """Which of two segments is better?

    Attributes:
        name: a whole number below 2 to the power of 48 that tells it from all others, by its contents.
        member: whose question it is.
        number: how many questions the member asked before.
        pair: one pair. Its true rewards are there for scripted teachers; a question that is asked again has none.
        margin: what a segment of the member has lately been worth, for scripted teachers, too (``labelers.margin``).
    """

    name: int
    member: int
    number: int
    pair: Pairs
    margin: float | None = None


@dataclass(frozen=True)
class Answer:
    """What somebody said.

    Attributes:
        name: of the question.
        label: probability that the second segment is preferred, 0.5 for a tie; None: it was skipped.
    """

    name: int
    label: float | None


class Desk(Protocol):
    """Where questions go and answers come from; neither method waits for anybody."""

    def ask(self, questions: Sequence[Question]) -> None:
        """Put questions; those that were put before are known by their names."""
        ...

    def answers(self) -> Sequence[Answer]:
        """The answers that have come since the last call, in any order."""
        ...


class AtOnce:
    """A desk at which a labeler answers immediately, or one for each member.

    An answer depends on the member's key, on how many questions the member asked before and on the pair alone, so that
    it is the same in every population.
    """

    def __init__(self, labeler: Labeler | Sequence[Labeler], keys: Tensor) -> None:
        """``keys`` [P] are the members'."""
        self.labelers = tuple(labeler) if isinstance(labeler, Sequence) else (labeler,) * len(keys)
        self.keys = keys
        self._told: list[Answer] = []

    def ask(self, questions: Sequence[Question]) -> None:
        """Let the labeler answer."""
        for question in questions:
            key = rng.fold(self.keys[question.member], "answer", question.number)
            labeler = self.labelers[question.member]
            if isinstance(labeler, Teacher):
                labeler = labeler.at(question.margin)
            label = labeler(question.pair, key).label.tolist()
            self._told.append(Answer(question.name, label[0] if label else None))

    def answers(self) -> Sequence[Answer]:
        """What the labeler said."""
        told, self._told = self._told, []
        return told
