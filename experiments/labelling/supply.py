"""More pairs while people label: a thread of the server calls ``choose`` in another process when they run short."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .store import Store

LOOK = 1.0
"""Seconds between looks."""


def is_due(store: Store) -> bool:
    """Whether there are more pairs to come, and at most half a session waits for a first answer."""
    about = store.about()
    if about.get("more") != "coming" or "session" not in about:
        return False
    answered = {answer.original or answer.pair for answer in store.answers()}
    originals = store.pairs("WHERE original IS NULL AND run = ''")
    return sum(pair.id not in answered for pair in originals) <= int(about["session"]) // 2


@contextmanager
def choosing(database: Path) -> Iterator[None]:
    """Put more pairs in the background whenever they are due, until the block ends."""
    over = threading.Event()
    thread = threading.Thread(target=_watch, args=(database, over), name="pbrl-choosing", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _watch(database: Path, over: threading.Event) -> None:
    store = Store(database)
    try:
        while store.about().get("more") == "coming" and not over.wait(LOOK):
            if is_due(store) and not _choose(database, over):
                store.tell_about(more="")  # it has told why, and would fail again
                return
    finally:
        store.close()


def _choose(database: Path, over: threading.Event) -> bool:
    """Run ``choose``; False where it failed."""
    words = [sys.executable, "-m", "experiments.labelling.choose", str(database.resolve())]
    # A session of its own, as Ctrl-C is for the server, which then ends it.
    process = subprocess.Popen(words, cwd=Path(__file__).parents[2], start_new_session=True)
    while process.poll() is None:
        if over.wait(0.1):
            process.terminate()
            process.wait()
            return True
    return process.returncode == 0
