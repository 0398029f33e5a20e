"""``pbrl bench label``: how fast a page turns when several people label at once, and that memory stays bounded.

A page turn is an answer from its sending until its acknowledgement has come with the next pair in it, so it includes
the write to the disk; the clips of that pair were fetched before. Annotators are clients on connections of their own,
which fetch the clips of the pairs to come, as the page does, and then think for a random time. The same clients then
turn pages of a bare endpoint (the same web stack, {"ok": true}), as fast and as many at once: its times are what the
machine and the stack cost. The server is a process of its own, as are the clients and what draws.

Then clips are drawn and thrown away again by the thousand, in a cache that holds a few hundred, and the memory of the
server and of the drawing process is looked at.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import secrets
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
from rich.console import Console
from rich.table import Table

from pbrl.errors import InputError

BOUND = 100.0  # milliseconds for 95 % of the page turns, with 8 annotators on two cores
CACHE = 200  # clips, about, while thousands are drawn


@dataclass(frozen=True)
class LabelOptions:
    """Measure the labelling page: the times of page turns, and memory while clips are drawn."""

    annotators: int = 8
    """People who label at the same time."""
    turns: int = 60
    """Page turns of each."""
    think: float = 0.5
    """Seconds between two answers of one annotator, on average; each time is up to twice as long."""
    clips: int = 2000
    """Clips to draw while memory is watched; 0 for none."""
    segment_length: int = 25
    """Steps of a clip."""
    json: Path | None = None
    """File for the figures as JSON, - for standard output (which then has nothing else)."""

    def __post_init__(self) -> None:
        for name, least in (("annotators", 1), ("turns", 1), ("clips", 0), ("segment_length", 1)):
            if getattr(self, name) < least:
                raise InputError(f"--{name.replace('_', '-')} is {getattr(self, name)}, expected at least {least}")
        if not 0 <= self.think < 60:
            raise InputError(f"--think is {self.think:g}, expected 0 to 60 seconds")
        if self.json is not None and str(self.json) != "-" and not self.json.parent.is_dir():
            raise InputError(f"--json is {self.json}, but {self.json.parent} is not a folder: expected an existing one")


@dataclass(frozen=True)
class Figures:
    """What was measured; times are milliseconds, memory is resident megabytes."""

    annotators: int
    turns: int
    median_ms: float
    p95_ms: float
    slowest_ms: float
    bare_median_ms: float
    bare_p95_ms: float
    ratio_p95: float
    bound_ms: float
    within_bound: bool
    load: float
    cores: int
    clips_drawn: int
    clips_per_second: float
    cache_mb: float
    server_mb_before: float
    server_mb_after: float
    drawing_mb_before: float
    drawing_mb_after: float


def label(options: LabelOptions) -> Figures:
    """Measure, print and return the figures."""
    with tempfile.TemporaryDirectory(prefix="pbrl-bench-label-") as name:
        folder = Path(name)
        _fill(folder, options)
        with _Serving(folder, "serve") as server:
            turns = server.load(options, "label")
        with _Serving(folder, "bare") as server:
            bare = server.load(options, "bare")
        drawn = _drawn(folder, options)
    p95, bare_p95 = (float(np.percentile(times, 95)) for times in (turns, bare))
    figures = Figures(
        annotators=options.annotators,
        turns=len(turns),
        median_ms=round(float(np.median(turns)), 2),
        p95_ms=round(p95, 2),
        slowest_ms=round(max(turns), 2),
        bare_median_ms=round(float(np.median(bare)), 2),
        bare_p95_ms=round(bare_p95, 2),
        ratio_p95=round(p95 / bare_p95, 2),
        bound_ms=BOUND,
        within_bound=p95 < BOUND,
        load=round(os.getloadavg()[0], 1),
        cores=os.cpu_count() or 1,
        **drawn,
    )
    if options.json is None or str(options.json) != "-":
        _print(figures)
    if options.json is not None:
        text = json.dumps(asdict(figures), indent=1)
        if str(options.json) == "-":
            print(text)
        else:
            options.json.write_text(text + "\n")
    return figures


def _print(figures: Figures) -> None:
    table = Table("page turns", "median", "95 %", "slowest", title=f"{figures.annotators} annotators at once, ms")
    table.add_row("answer", f"{figures.median_ms:g}", f"{figures.p95_ms:g}", f"{figures.slowest_ms:g}")
    table.add_row("bare endpoint", f"{figures.bare_median_ms:g}", f"{figures.bare_p95_ms:g}", "")
    console = Console()
    console.print(table)
    verdict = "within" if figures.within_bound else "above"
    load = f"load {figures.load:g} on {figures.cores} cores"
    console.print(f"95 % is {verdict} {BOUND:g} ms; {figures.ratio_p95:g} times the bare endpoint's ({load}).")
    if figures.clips_drawn:
        console.print(
            f"{figures.clips_drawn} clips drawn, {figures.clips_per_second:g} per second, "
            f"{figures.cache_mb:g} MB kept: the asking process went from {figures.server_mb_before:g} "
            f"to {figures.server_mb_after:g} MB, the drawing one from {figures.drawing_mb_before:g} "
            f"to {figures.drawing_mb_after:g} MB."
        )


# --- the folder -------------------------------------------------------------------------------------------------------


def _walk(number: int, length: int) -> tuple[bytes, bytes]:
    draw = np.random.default_rng(number)
    obs = np.cumsum(0.05 * draw.standard_normal((length, 4)), axis=0) + draw.uniform(-0.8, 0.8, 4)
    return obs.astype(np.float32).tobytes(), np.zeros((length, 2), np.float32).tobytes()


def _fill(folder: Path, options: LabelOptions) -> None:
    from .labelling.server import DATABASE
    from .labelling.store import Pair, Segment, Store, pair_id, segment_id

    env, length = "PointMass-v0", options.segment_length
    pairs = (options.turns + 8) * options.annotators
    store = Store(folder / DATABASE, create=True)
    try:
        segments = []
        for i in range(max(2 * pairs, options.clips)):
            obs, act = _walk(i, length)
            segments.append(Segment(segment_id(env, length, obs, act), env, "bench", "", -1, length, obs, act))
        question = "Which comes nearer to the middle?"
        made = []
        for i in range(pairs):
            first, second = segments[2 * i].id, segments[2 * i + 1].id
            made.append(Pair(pair_id(first, second, question), first, second, question, float(i)))
        store.add(segments, made)
    finally:
        store.close()


# --- the server -------------------------------------------------------------------------------------------------------


class _Serving:
    """A server in a process of its own: of the folder, or bare."""

    def __init__(self, folder: Path, what: str) -> None:
        root = Path(__file__).resolve().parents[1]
        path = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "experiments.bench_label", what, str(folder)],
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().strip()

    def __enter__(self) -> _Serving:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def load(self, options: LabelOptions, what: str) -> list[float]:
        """Milliseconds of all page turns."""
        with ThreadPoolExecutor(options.annotators) as pool:
            found = pool.map(lambda who: _person(self.address, what, who, options), range(options.annotators))
            return [time for times in found for time in times]


def _person(address: str, what: str, who: int, options: LabelOptions) -> list[float]:
    parts = urlsplit(address)
    assert parts.hostname is not None
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
    token = parse_qs(parts.query).get("token", [""])[0]
    headers = {"Cookie": f"pbrl_label_{parts.port}={token}", "Origin": f"http://{parts.hostname}:{parts.port}"}
    chance, name = random.Random(who), f"annotator {who}"

    def ask(path: str, body: Any = None) -> tuple[int, bytes]:
        more = {} if body is None else {"Content-Type": "application/json"}
        sent = None if body is None else json.dumps(body).encode()
        connection.request("GET" if body is None else "POST", path, sent, {**headers, **more})
        response = connection.getresponse()
        return response.status, response.read()

    def said(path: str, body: Any = None) -> Any:
        status, content = ask(path, body)
        if status != 200:
            raise RuntimeError(f"{path}: {status} {content[:200]!r}")
        return json.loads(content)

    times, seen = [], set()
    found = said(f"/api/next?annotator={name.replace(' ', '%20')}") if what == "label" else {}
    for _ in range(options.turns):
        if what == "label":
            for url in (url for pair in [found, *found["upcoming"]] for url in (pair["first"], pair["second"])):
                if url not in seen and ask(url)[0] == 200:
                    seen.add(url)
        time.sleep(chance.uniform(0, 2 * options.think))
        answer = chance.choice(["first", "second", "equal", "skip"])
        body = {"pair": found.get("pair"), "annotator": name, "answer": answer, "seconds": 1.0}
        began = time.perf_counter()
        got = said("/api/answer", {**body, "nonce": secrets.token_hex(12)})
        times.append(1000 * (time.perf_counter() - began))
        found = got.get("next", {})
    connection.close()
    return times


# --- memory -----------------------------------------------------------------------------------------------------------


def _drawn(folder: Path, options: LabelOptions) -> dict[str, Any]:
    """Memory of a process that asks for all clips, and of the one that draws them, near the start and at the end."""
    sizes = ("server_mb_before", "server_mb_after", "drawing_mb_before", "drawing_mb_after")
    names = ("clips_drawn", "clips_per_second", "cache_mb", *sizes)
    if not options.clips:
        return dict.fromkeys(names, 0)
    root = Path(__file__).resolve().parents[1]
    path = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))
    words = [sys.executable, "-P", "-m", "experiments.bench_label", "draw", str(folder), str(options.clips)]
    done = subprocess.run(words, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True)
    return dict(zip(names, json.loads(done.stdout)))


def _draw(folder: Path, count: int) -> list[float]:
    from .labelling import clips
    from .labelling.server import DATABASE
    from .labelling.store import Store

    store = Store(folder / DATABASE)
    ids = [segment.id for segment in store.segments()][:count]
    store.close()
    place = folder / "thousands"
    with tempfile.TemporaryDirectory(dir=folder) as probe:
        one = clips.start(probe, folder / DATABASE)
        while (path := one.path(one.name(ids[0]))) is None:
            time.sleep(0.01)
        size = path.stat().st_size
        one.close()
    drawn = clips.start(place, folder / DATABASE, most_bytes=CACHE * size, most_waiting=64)
    before: list[float] = []
    began = time.perf_counter()
    for i in range(0, count, 32):
        drawn.want(ids[i : i + 32])
        while drawn.kept()[2]:
            time.sleep(0.01)
        if not before and i >= min(256, count // 4):
            before = _memory(drawn)
    rate = count / (time.perf_counter() - began)
    after = _memory(drawn)
    kept = drawn.kept()[1] / 2**20
    drawn.close()
    return [count, round(rate, 1), round(kept, 2), before[0], after[0], before[1], after[1]]


def _memory(drawn: Any) -> list[float]:
    """Resident megabytes of this process and of the one that draws."""
    return [round(_resident(pid), 1) for pid in (os.getpid(), drawn.processes()[0])]


def _resident(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return float("nan")


# --- processes --------------------------------------------------------------------------------------------------------


def main(words: list[str]) -> None:
    """What the processes of this module do: serve a folder, serve nothing, or draw."""
    folder = Path(words[1])
    if words[0] == "draw":
        print(json.dumps(_draw(folder, int(words[2]))))
        return
    from .labelling.server import DATABASE, open_socket, serve

    listening = open_socket("127.0.0.1", 0)
    if words[0] == "serve":
        from .labelling import clips

        drawn = clips.start(folder / "clips", folder / DATABASE)
        serve(folder, listening, drawn, ready=lambda address: print(address, flush=True))
        return
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def bare(request: Request) -> JSONResponse:
        await request.json()
        return JSONResponse({"ok": True})

    print(f"http://127.0.0.1:{listening.getsockname()[1]}/", flush=True)
    app = Starlette(routes=[Route("/api/answer", bare, methods=["POST"])])
    uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).run(sockets=[listening])


if __name__ == "__main__":
    main(sys.argv[1:])
