"""Rates of several pieces of work that take turns in short blocks, so that whatever else the machine does hits all."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Work = Callable[[], None]
"""One block of a piece of work."""


@dataclass(frozen=True)
class Rate:
    """Seconds of a block: medians of what the clock on the wall shows, and of the time that processors spent on it.

    The second hardly depends on what else runs; it counts all threads, also those that wait by spinning.
    """

    wall: float
    cpu: float


def in_turns(pieces: Mapping[str, Work], seconds: float, *, warm: int = 2) -> dict[str, Rate]:
    """Blocks of each piece in turns, for about ``seconds`` each and at least once, after ``warm`` blocks of each."""
    for work in pieces.values():
        for _ in range(warm):
            work()
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in pieces}
    end = time.perf_counter() + seconds * len(pieces)
    while time.perf_counter() < end or not all(times.values()):
        for name, work in pieces.items():
            wall, cpu = time.perf_counter(), time.process_time()
            work()
            times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {name: Rate(*(statistics.median(column) for column in zip(*blocks))) for name, blocks in times.items()}
