"""Clips of segments, drawn in the background by processes of their own and kept in a folder, both within bounds.

    clips = start(folder, database)
    clips.want(segments)             # ids, the most urgent first: draws those that are not there
    clips.path(clips.name(segment))  # where the file is, None while it is not ready

Nothing here waits for a clip. A process that dies is started again, and what it was drawing is tried once more.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pbrl.errors import InputError

from .store import Segment, Store

MOST_BYTES = 512 * 2**20
MOST_WAITING = 512
PATIENCE = 120.0  # seconds that a clip may take
MOST_PROBLEMS = 1000
_NAME = re.compile(r"([0-9a-f]{32})\.clip")
_MISSING = (
    "MuJoCo's renderer does not work here ({why}); install libegl1 and libgl1-mesa-dri, or libosmesa6 "
    "(apt-get install libosmesa6), or leave the drawing to pbrl, which needs neither"
)


def start(
    folder: str | Path,
    database: str | Path,
    *,
    renderer: str = "drawing",
    most_bytes: int = MOST_BYTES,
    most_waiting: int = MOST_WAITING,
    workers: int = 1,
) -> Clips:
    """Begin to draw.

    Args:
        folder: a cache of files, which may be deleted at any time.
        database: where ``Store`` keeps the segments.
        renderer: ``drawing``, which works everywhere, or ``mujoco``: its own renderer, by EGL or by OSMesa.
        most_bytes: of the files kept; those not asked for longest go first.
        most_waiting: segments that wait to be drawn; the least urgent are forgotten.
        workers: processes.

    Raises:
        InputError: an unknown renderer or one that does not work here, or a folder that is not writable.
    """
    if renderer not in ("drawing", "mujoco"):
        raise InputError(f"renderer is {renderer!r}, expected drawing or mujoco")
    return Clips(Path(folder), Path(database), working(renderer), most_bytes, most_waiting, workers)


def working(renderer: str) -> str:
    """``drawing``, ``egl`` or ``osmesa``: what draws.

    Raises:
        InputError: MuJoCo's renderer is wanted and none of its libraries works.
    """
    if renderer == "drawing":
        return renderer
    reasons = []
    for library in ("egl", "osmesa"):
        worker = Worker(library)
        reason = worker.problem
        worker.close()
        if reason is None:
            return library
        reasons.append(f"{library}: {reason}")
    raise InputError(_MISSING.format(why="; ".join(reasons)))


class Worker:
    """A process that draws one clip after the other.

    Attributes:
        problem: why it cannot work, or None.
        process: its id.
    """

    def __init__(self, renderer: str) -> None:
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        if renderer != "drawing":
            environment["MUJOCO_GL"] = environment["PYOPENGL_PLATFORM"] = renderer
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", f"{__package__}.clip_worker", renderer],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        self.process = self._process.pid
        try:
            self.problem = self._answer()["error"]
        except (OSError, EOFError) as error:
            self.problem = f"{error}"

    def draw(self, path: Path, segment: Segment) -> str | None:
        """Draw a clip into a file; a sentence if that cannot be done.

        Raises:
            OSError: the process died or took too long.
        """
        job = {"path": str(path), "env": segment.env, "rows": segment.length, "bytes": len(segment.obs)}
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(job).encode() + b"\n" + segment.obs)
            self._process.stdin.flush()
            error = self._answer()["error"]
        except EOFError as ended:
            raise OSError(str(ended)) from ended
        return None if error is None else str(error)

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], PATIENCE)[0]:
            self._process.kill()
            raise OSError(f"no answer within {PATIENCE:g} seconds")
        line = self._process.stdout.readline()
        if not line:
            raise EOFError("the drawing process ended")
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        """End the process, at once if it is in the middle of something."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):  # what was written and not read
                    stream.close()


class Clips:
    """What ``app.Clips`` describes.

    Attributes:
        renderer: ``drawing``, ``egl`` or ``osmesa``.
        sentence: which one draws, to be printed.
    """

    def __init__(
        self, folder: Path, database: Path, renderer: str, most_bytes: int, most_waiting: int, workers: int
    ) -> None:
        self.renderer = renderer
        self.sentence = {
            "drawing": "Clips are drawn by pbrl itself from each task's kinematics, which needs no graphics driver.",
            "egl": "Clips are rendered by MuJoCo through EGL.",
            "osmesa": "Clips are rendered by MuJoCo through OSMesa.",
        }[renderer]
        # Pictures of one renderer are not those of another.
        self._folder = folder if renderer == "drawing" else folder / "mujoco"
        self._most_bytes, self._most_waiting = most_bytes, most_waiting
        self._store = Store(database)
        self._files: OrderedDict[str, int] = OrderedDict()  # name -> bytes, the one asked for longest ago first
        self._waiting: OrderedDict[str, None] = OrderedDict()  # ids, the most urgent first
        self._busy: set[str] = set()
        self._problems: OrderedDict[str, str] = OrderedDict()
        self._processes: dict[int, int] = {}  # thread -> process
        self._changed = threading.Condition()
        self._closed = False
        self._scan()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(workers)]
        for thread in self._threads:
            thread.start()

    def name(self, segment: str) -> str:
        """The file name of a segment's clip."""
        return f"{segment}.clip"

    def path(self, name: str) -> Path | None:
        """Where that clip is; None while it is not ready. One that is missing is drawn before all others."""
        found = _NAME.fullmatch(name)
        if found is None:
            return None
        path = self._folder / name
        with self._changed:
            if name in self._files:
                if path.is_file():
                    self._files.move_to_end(name)
                    return path
                del self._files[name]
            self._put([found[1]])
        return None

    def problem(self, name: str) -> str | None:
        """Why there will be no such clip, or None."""
        with self._changed:
            return self._problems.get(name)

    def want(self, segments: Sequence[str]) -> None:
        """Draw these before all others, in this order."""
        with self._changed:
            self._put(segments)

    def kept(self) -> tuple[int, int, int]:
        """Files, their bytes, and how many segments wait."""
        with self._changed:
            return len(self._files), sum(self._files.values()), len(self._waiting)

    def processes(self) -> list[int]:
        """Ids of the processes that draw."""
        return list(self._processes.values())

    def close(self) -> None:
        """Stop drawing."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(timeout=PATIENCE)
        self._store.close()

    def _put(self, segments: Sequence[str]) -> None:
        names = ((segment, self.name(segment)) for segment in segments)
        new = [s for s, name in names if name not in self._files and name not in self._problems and s not in self._busy]
        for segment in reversed(new):
            self._waiting[segment] = None
            self._waiting.move_to_end(segment, last=False)
        while len(self._waiting) > self._most_waiting:
            self._waiting.popitem()
        if new:
            self._changed.notify_all()

    def _scan(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for part in self._folder.glob("*.part"):
                part.unlink(missing_ok=True)
            there = [(path, path.stat()) for path in self._folder.iterdir() if _NAME.fullmatch(path.name)]
        except OSError as error:
            raise InputError(f"{self._folder}: cannot be written ({error}), expected a folder for clips") from error
        for path, stat in sorted(there, key=lambda found: found[1].st_mtime):
            self._files[path.name] = stat.st_size
        self._forget()

    def _forget(self) -> None:
        """Delete what is too much, but not the last file."""
        total = sum(self._files.values())
        while total > self._most_bytes and len(self._files) > 1:
            name, size = self._files.popitem(last=False)
            (self._folder / name).unlink(missing_ok=True)
            total -= size

    def _work(self) -> None:
        worker: Worker | None = None
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or bool(self._waiting))
                if self._closed:
                    break
                chosen, _ = self._waiting.popitem(last=False)
                self._busy.add(chosen)
            segment, problem = None, None
            try:
                segment = self._store.segment(chosen)
                if segment is not None:
                    worker, problem = self._draw(worker, segment)
            except Exception as error:  # such as a disk that cannot be read: the next clip may do
                problem = f"the clip cannot be drawn: {error}"
            self._note(chosen, problem, there=segment is not None)
        if worker is not None:
            worker.close()

    def _draw(self, worker: Worker | None, segment: Segment) -> tuple[Worker | None, str | None]:
        """One clip, twice if need be; the process that is there for the next one, and what is wrong or None."""
        path, reason = self._folder / self.name(segment.id), ""
        for _ in range(2):
            if worker is None:
                worker = Worker(self.renderer)
                self._processes[threading.get_ident()] = worker.process
            try:
                if worker.problem is not None:
                    raise OSError(worker.problem)
                problem = worker.draw(path, segment)
            except OSError as error:
                worker.close()
                worker, reason = None, str(error)
                time.sleep(0.2)  # a process that cannot start is not started without end
                continue
            return worker, None if problem is None else f"the clip cannot be drawn: {problem}"
        return None, f"the clip cannot be drawn: {reason}"

    def _note(self, segment: str, problem: str | None, *, there: bool) -> None:
        name = self.name(segment)
        with self._changed:
            self._busy.discard(segment)
            if problem is None and there:
                with contextlib.suppress(OSError):  # deleted already
                    self._files[name] = (self._folder / name).stat().st_size
                self._forget()
            elif problem is not None:
                self._problems[name] = problem
                while len(self._problems) > MOST_PROBLEMS:
                    self._problems.popitem(last=False)
            self._changed.notify_all()
