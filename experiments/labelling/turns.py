"""Whose turn a pair is: each annotator has a short queue of pairs that the others do not get while it lasts.

Queues are kept in memory alone. After a restart two annotators may be asked the same pair, which costs a little work
and no answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from .store import Store

AHEAD = 4
PATIENCE = 600.0


@dataclass(frozen=True)
class Turn:
    """The next pairs of an annotator, and how many are left in all, those and their repetitions included."""

    queue: list[str]
    left: int


class Turns:
    """Queues of one pair to answer and up to ``AHEAD`` more to preload."""

    def __init__(self, store: Store, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.store = store
        self.clock = clock
        self._queues: dict[str, list[str]] = {}
        self._seen: dict[str, float] = {}
        self._for_all: dict[str, bool] = {}

    def turn(self, annotator: str, first: str | None = None) -> Turn:
        """Ids of the pairs that come next, ``first`` (where it is open) and those that were in the queue before others.

        Pairs in the queues of others, who were here less than ``PATIENCE`` seconds ago, come last.
        """
        now = self.clock()
        self._seen[annotator] = now
        for other in [who for who, then in self._seen.items() if now - then > PATIENCE]:
            del self._seen[other]
            self._queues.pop(other, None)
        pairs = self.store.open_pairs(annotator)
        theirs = {pair for who, queue in self._queues.items() if who != annotator for pair in queue}
        theirs = {pair for pair in theirs if not self._is_for_all(pair)}
        mine = [pair for pair in self._queues.get(annotator, []) if pair in pairs]
        if first is not None and first in pairs:
            mine = [first, *(pair for pair in mine if pair != first)]
        own = set(mine)
        free = [pair for pair in pairs if pair not in own and pair not in theirs]
        mine += free[: max(0, 1 + AHEAD - len(mine))]
        if not mine:  # what others have in their queues, rather than nothing: the last ones first
            mine = [pair for pair in reversed(pairs) if pair in theirs][:1]
        self._queues[annotator] = mine[: 1 + AHEAD]
        return Turn(self._queues[annotator], len(pairs) + sum(pairs.values()))

    def _is_for_all(self, name: str) -> bool:
        if name not in self._for_all:
            pair = self.store.pair(name)
            self._for_all[name] = pair is not None and (pair.shared or pair.original is not None)
        return self._for_all[name]

    def wanted(self) -> list[str]:
        """Ids of the pairs in all queues, the next of each annotator first."""
        queues = list(self._queues.values())
        ranks = range(1 + AHEAD)
        return list(dict.fromkeys(queue[rank] for rank in ranks for queue in queues if rank < len(queue)))
