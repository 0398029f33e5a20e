"""Several pieces of work at the same time, a process of one thread for each.

Small stacks of networks gain little from a second thread, and lose much where something else wants it; so the demo
and the studies give every stack a core of its own. What a piece gives does not depend on how many run at once.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")
Work = Callable[..., Result]
"""``work(name, tick, *shared)``: ``tick`` may be called with whatever is to be told on the way."""


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(
    work: Work[Result],
    names: Sequence[str],
    shared: tuple[Any, ...],
    tick: Callable[..., None],
    *,
    processes: int,
) -> Mapping[str, Result]:
    """``work(name, ..., *shared)`` for every name, in this order, so many at a time; results by name.

    Args:
        work: a function of a module, as other processes have to find it.
        names: of the pieces; the longest first is best.
        shared: what every piece gets; copied by pickle.
        tick: hears, here, what the pieces tell: ``tick(name, ...)``.
        processes: how many at a time; 1 works in this process.

    Raises:
        Exception: whatever a piece raised; the others are stopped then, as they are by Ctrl-C.
        RuntimeError: a process was killed.
    """
    if processes == 1:
        with one_thread():
            return {name: work(name, partial(tick, name), *shared) for name in names}
    context = multiprocessing.get_context("spawn")  # a fork of a process that has used torch's threads may hang
    load = pickle.dumps((work, shared))  # not torch's own way, which needs shared memory
    waiting, results = list(names), {}
    running: dict[Connection, tuple[str, SpawnProcess]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_child, args=(theirs, waiting[0], load), daemon=True)
                process.start()
                theirs.close()
                running[ours] = waiting.pop(0), process
            for ready in wait(list(running)):
                assert isinstance(ready, Connection)
                name, process = running[ready]
                try:
                    kind, content = ready.recv()
                except EOFError:
                    process.join()
                    raise RuntimeError(f"the process for {name} was killed (exit code {process.exitcode})") from None
                if kind == "news":
                    tick(name, *content)
                elif kind == "error":
                    raise content
                else:
                    results[name] = content
                    process.join()
                    del running[ready]
        return results
    finally:
        for _, process in running.values():
            process.kill()
            process.join()


def _child(pipe: Connection, name: str, load: bytes) -> None:
    """What another process does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent tells and kills
    try:
        work, shared = pickle.loads(load)
        with one_thread():
            pipe.send(("result", work(name, lambda *news: pipe.send(("news", news)), *shared)))
    except BrokenPipeError:  # the parent is gone
        return
    except Exception as error:  # is raised again in the parent
        pipe.send(("error", error))


@contextmanager
def one_thread() -> Iterator[None]:
    """torch on one thread: the same bits on any machine of a kind, however many cores it has."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
