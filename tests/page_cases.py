"""A labelling folder with segments that can be drawn, served with real clips, and a real browser that opens it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from experiments.labelling import clips
from experiments.labelling.server import DATABASE, open_socket, serve
from experiments.labelling.store import Pair, Segment, Store, pair_id, segment_id

from .label_cases import ROOT, Client

CHROMIUM = next((path for path in ("/usr/bin/chromium", "/usr/bin/chromium-browser") if Path(path).exists()), None)
FLAGS = (
    "no-sandbox",
    "disable-gpu",
    "disable-quic",
    "no-first-run",
    "disable-background-networking",
    "disable-component-update",
    "disable-sync",
    "disable-dev-shm-usage",
)
SLOWLY = 180_000  # milliseconds: other work may have both cores


def spiral(number: int, length: int) -> NDArray[np.float32]:
    """A point that comes towards the middle, from another side for every number."""
    t = np.linspace(0.0, 1.0, length)
    angle, far = 0.7 * number + 2.0 * t, 1.0 - (0.3 + 0.6 * (number % 5) / 4.0) * t
    place = far[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])
    return np.hstack([place, np.diff(place, axis=0, prepend=place[:1]) * 8.0]).astype(np.float32)


def make_segment(env: str, obs: NDArray[np.float32], act_size: int = 2) -> Segment:
    seen, act = obs.tobytes(), np.zeros((len(obs), act_size), np.float32).tobytes()
    return Segment(segment_id(env, len(obs), seen, act), env, "toy", "abc123", -1, len(obs), seen, act)


def fill_folder(
    folder: Path, pairs: int, *, length: int = 8, question: str = "Which comes nearer to the middle?"
) -> None:
    segments = [make_segment("PointMass-v0", spiral(i, length)) for i in range(2 * pairs)]
    store = Store(folder / DATABASE, create=True)
    made = []
    for i in range(pairs):
        first, second = segments[2 * i].id, segments[2 * i + 1].id
        made.append(Pair(pair_id(first, second, question), first, second, question, float(i), shared=True))
    store.add(segments, made)
    store.close()


class Server:
    """A server of a folder in a process of its own, which can be stopped and started again at the same port."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port, self.address = folder, 0, ""
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        words = [sys.executable, "-m", "tests.page_cases", str(self.folder), str(self.port)]
        self.process = subprocess.Popen(
            words, cwd=ROOT, env={**os.environ}, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()
        assert self.address, "the server did not start"
        self.port = Client(self.address).port

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.communicate()
            self.process = None


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    server = Server(folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def browsing(**options: Any) -> Iterator[Any]:
    """A context of headless Chromium; what goes wrong in a page fails the test."""
    if CHROMIUM is None:
        pytest.skip("no /usr/bin/chromium: install Debian's package chromium to test the page in a real browser")
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="playwright drives the browser: pip install playwright"
    )
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[f"--{flag}" for flag in FLAGS])
        context = browser.new_context(**options)
        context.set_default_timeout(SLOWLY)
        try:
            yield context
        finally:
            context.close()
            browser.close()


def main(folder: Path, port: int) -> int:
    drawn = clips.start(folder / "clips", folder / DATABASE)
    try:
        serve(folder, open_socket("127.0.0.1", port), drawn, ready=lambda address: print(address, flush=True))
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
