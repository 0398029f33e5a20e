"""Labelling folders, servers and scripted annotators for tests. No torch: servers must start quickly."""

from __future__ import annotations

import http.client
import json
import os
import secrets
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from experiments.labelling.server import DATABASE, open_socket, serve
from experiments.labelling.store import Pair, Segment, Store, pair_id, segment_id

ROOT = Path(__file__).parents[1]
QUESTION = "Which one?"


@dataclass
class StillClips:
    """Clips that are there, or not; nothing is drawn."""

    folder: Path
    ready: bool = True
    wanted: list[str] = field(default_factory=list)
    closed: bool = False

    def name(self, segment: str) -> str:
        return f"{segment}.webp"

    def path(self, name: str) -> Path | None:
        place = self.folder / name
        return place if self.ready and place.is_file() else None

    def problem(self, name: str) -> str | None:
        return "cannot be drawn" if name.startswith("f00") else None

    def want(self, segments: Sequence[str]) -> None:
        self.wanted = list(segments)

    def close(self) -> None:
        self.closed = True


def segment(number: int, env: str = "PointMass-v0", length: int = 3) -> Segment:
    obs = struct.pack(f"<{2 * length}f", *(number + i for i in range(2 * length)))
    act = struct.pack(f"<{length}f", *(0.1,) * length)
    name = segment_id(env, length, obs, act)
    return Segment(name, env, "toy", "abc123", number, length, obs, act)


def fill(store: Store, pairs: int, *, shared: bool = False, question: str = QUESTION) -> list[str]:
    """Pairs of two segments each; their ids."""
    segments = [segment(i) for i in range(2 * pairs)]
    made = []
    for i in range(pairs):
        first, second = segments[2 * i].id, segments[2 * i + 1].id
        made.append(Pair(pair_id(first, second, question), first, second, question, float(i), shared))
    store.add(segments, made)
    return [pair.id for pair in made]


def folder_with(path: Path, pairs: int, *, shared: bool = False) -> Path:
    """A labelling folder."""
    store = Store(path / DATABASE, create=True)
    fill(store, pairs, shared=shared)
    store.close()
    return path


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Client:
    """Speaks to a server as a browser does: with its cookie, and with its origin where it changes something."""

    address: str
    timeout: float = 60.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.address)
        assert parts.hostname is not None
        assert parts.port is not None
        self.host, self.port = parts.hostname, parts.port
        self.token = parse_qs(parts.query)["token"][0]

    @property
    def origin(self) -> str:
        return f"http://{self.host}:{self.port}"

    def request(self, method: str, path: str, body: bytes | None = None, **headers: str | None) -> Reply:
        """Header names have _ for -; None leaves out what would be sent by itself."""
        sent: dict[str, str | None] = {"Cookie": f"pbrl_label_{self.port}={self.token}"}
        if method == "POST":
            sent |= {"Origin": self.origin, "Content-Type": "application/json"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection(self.host, self.port, timeout=self.timeout)
        try:
            given = {name: value for name, value in sent.items() if value is not None}
            connection.request(method, path, body, given)
            found = connection.getresponse()
            return Reply(found.status, dict(found.getheaders()), found.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str | None) -> Reply:
        return self.request("GET", path, None, **headers)

    def post(self, path: str, content: Any, **headers: str | None) -> Reply:
        return self.request("POST", path, json.dumps(content).encode(), **headers)

    def next(self, annotator: str) -> Any:
        return self.get(f"/api/next?annotator={quote(annotator)}").json

    def answer(self, annotator: str, pair: str, answer: str, nonce: str = "", seconds: float = 1.5) -> Reply:
        nonce = nonce or secrets.token_hex(8)
        content = {"pair": pair, "annotator": annotator, "answer": answer, "seconds": seconds, "nonce": nonce}
        return self.post("/api/answer", content)


@dataclass
class Served:
    process: subprocess.Popen[str]
    client: Client


def start(folder: Path, port: int = 0) -> Served:
    """A server of a folder in a process of its own."""
    words = [sys.executable, "-m", "tests.label_cases", str(folder), str(port)]
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    process = subprocess.Popen(
        words,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    if not address:
        raise RuntimeError(process.communicate()[1])
    return Served(process, Client(address))


@contextmanager
def served(folder: Path) -> Iterator[Client]:
    """A server until the block ends, by Ctrl-C; it must end well then."""
    running = start(folder)
    try:
        yield running.client
    finally:
        running.process.send_signal(signal.SIGINT)
        out, err = running.process.communicate(timeout=20)
        assert (running.process.returncode, err) == (130, ""), (out, err)


def main(folder: Path, port: int) -> int:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which jobs in the background ignore
    clips = StillClips(folder / "clips")
    try:
        serve(folder, open_socket("127.0.0.1", port), clips, ready=lambda address: print(address, flush=True))
    except KeyboardInterrupt:
        return 130
    finally:
        assert clips.closed
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
