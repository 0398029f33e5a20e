"""The desk of ``pbrl train --labels page``: what a learner asks goes into a labelling folder, where people answer.

Server and learner know each other by the database alone, so that either may stop and start again at any time. The
learner never waits: ``answers`` gives what has come. An answer that it took can no longer be undone at the page.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import TypeVar

from pbrl.errors import InputError
from pbrl.labelers.desk import Answer, Question
from pbrl.spec import Spec

from .pairs import sizes_of, stored
from .store import ANSWERS, Pair, Store

T = TypeVar("T")
QUESTION = "Which of the two does better?"


class PageDesk:
    """A ``pbrl.labelers.desk.Desk`` with people behind it."""

    def __init__(self, database: Path, spec: Spec, length: int, *, run: str, question: str = QUESTION) -> None:
        """Open the database, or make it.

        Args:
            database: ``labels.sqlite`` of a labelling folder.
            spec: of the simulator, whose name draws the clips.
            length: steps in a segment.
            run: which learner asks; the same after a restart.
            question: as it is put.

        Raises:
            InputError: not such a file, or one with other segments.
        """
        self.store = Store(database, create=True)
        self.env, self.run, self.question = spec.name, run, question
        known = self.store.any_segment()
        if known is not None and (known.env, *sizes_of(known)) != (spec.name, length, spec.obs_size, spec.act_size):
            self.store.close()
            found = f"{database} has segments of {known.length} steps of {known.env}"
            raise InputError(f"{found}, expected {length} of {spec.name}, or another folder")
        self.store.tell_about(question=question, more="coming")
        self._names: dict[str, int] = {}
        self._after = 0

    def ask(self, questions: Sequence[Question]) -> None:
        """Put questions; those that were put before stay as they are, with their answers."""
        position = self.store.next_position()
        segments, pairs = [], []
        for i, question in enumerate(questions):
            first, second = stored(question.pair.segments, self.env)
            name = blake2b(f"{self.run} {question.name}".encode(), digest_size=6).hexdigest()
            self._names[name] = question.name
            segments += [first, second]
            pairs.append(Pair(name, first.id, second.id, self.question, position + i, run=self.run))
        self.store.ask(self.run, segments, pairs)

    def answers(self) -> Sequence[Answer]:
        """What has come since the last call; after a restart, all of it."""
        self._after, found = self.store.take(self.run, self._after)
        return [Answer(self._names[pair], ANSWERS[answer]) for pair, answer in found if pair in self._names]

    def until_done(self, loop: Iterator[T]) -> Iterator[T]:
        """The loop's own items. When it has come to its end, people are no longer asked."""
        yield from loop
        self.store.withdraw(self.run)
        self.store.tell_about(more="")

    def close(self) -> None:
        """Close the database."""
        self.store.close()
