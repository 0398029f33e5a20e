"""A progress bar with member-updates per second and the last metrics; nothing where nobody watches."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import monotonic

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pbrl.records.interrupts import uninterrupted

Watch = Callable[[int, Mapping[str, Sequence[float]]], None]
_SHOWN = ("score", "return", "held_out_accuracy", "accuracy", "loss")


@contextmanager
def bar(
    screen: Console, agent: str, members: int, since: int, total: int, unit: str = "member-updates/s"
) -> Iterator[Watch]:
    """A function to call with the count of updates and new metrics, which it shows as means over the members."""
    shown = screen.is_terminal and sys.stdout.isatty()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[speed]}"),
        TextColumn("{task.fields[last]}", style="cyan"),
    )
    begun, last = monotonic(), {}  # type: tuple[float, dict[str, float]]
    with Progress(*columns, console=screen, disable=not shown, transient=True) as progress:
        task = progress.add_task(agent, total=total, completed=since, speed="", last="")

        def watch(updates: int, values: Mapping[str, Sequence[float]]) -> None:
            speed = (updates - since) * members / max(monotonic() - begun, 1e-9)
            for name, value in values.items():
                last[name] = float(np.mean(value))
            names = [name for name in _SHOWN if name in last] or list(last)
            words = [f"{name} {last[name]:.3g}" for name in names]
            with uninterrupted():  # a thread of its own draws the bar
                now = f"{speed:,.0f} {unit}"
                progress.update(task, completed=updates, speed=now, last=" ".join(words[:2]))

        yield watch
