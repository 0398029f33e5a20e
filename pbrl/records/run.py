"""Run: the folder that one invocation leaves behind.

    config.json        everything that was asked for: enough to repeat it
    members.csv        one row per member: member, seed, labels and the swept fields
    metrics.csv        tidy: member, updates, env_steps, name, value
    events.out...      the same for TensorBoard
    checkpoint/        see ``pbrl.records.checkpoint``
    figures/*.png
    environment.json   versions, device, threads, commit

The folder appears with its first three JSON and CSV files at once. ``metrics.csv`` holds nothing that differs from one
execution to the next (no times), so that an interrupted and resumed run ends with the same file as any other.
"""

from __future__ import annotations

import csv
import fcntl
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from ..agent import Learner
from ..data.files import replacing, unwritable
from ..errors import InputError
from . import checkpoint
from .checkpoint import Checkpoint, Restorable
from .environment import describe
from .interrupts import uninterrupted

CONFIG, MEMBERS, METRICS, ENVIRONMENT = "config.json", "members.csv", "metrics.csv", "environment.json"
COLUMNS = ("member", "updates", "env_steps", "name", "value")


@dataclass(frozen=True)
class Run:
    """A run's folder; make one with ``create``, or ``open`` one that is there."""

    folder: Path

    @classmethod
    def create(
        cls, out: Path, experiment: str, name: str, config: Mapping[str, Any], members: Sequence[Mapping[str, Any]]
    ) -> Run:
        """A new folder ``out/experiment/<time>-<name>``.

        Args:
            out: folder of all runs.
            experiment: what was run, e.g. "train".
            name: what tells this run from others.
            config: what JSON can hold; must have "agent". Its part "identity", or all of it, decides whose checkpoint
                fits.
            members: one row per member, all with the same columns.

        Raises:
            InputError: a name that is not one part of a path, or a folder that cannot be written.
        """
        for part in (experiment, name):
            if not part or Path(part).name != part:
                raise InputError(f"run name {part!r} is not one part of a path, expected letters, digits, - and _")
        parent = out / experiment
        time = datetime.now().strftime("%Y%m%d-%H%M%S")
        with unwritable(parent):
            parent.mkdir(parents=True, exist_ok=True)
            folder, number = parent / f"{time}-{name}", 1
            while folder.exists():
                number += 1
                folder = parent / f"{time}-{name}-{number}"
            draft = parent / f".{folder.name}.{os.getpid()}.partial"
            try:
                draft.mkdir()
                _write_json(draft / CONFIG, config)
                _write_json(draft / ENVIRONMENT, describe())
                with (draft / MEMBERS).open("w", newline="", encoding="utf-8") as file:
                    table = csv.DictWriter(file, list(members[0]), lineterminator="\n")
                    table.writeheader()
                    table.writerows(members)
                draft.rename(folder)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
        return cls(folder)

    @classmethod
    def open(cls, folder: str | Path) -> Run:
        """The run in ``folder``.

        Raises:
            InputError: no such folder, or one without an intact ``config.json``.
        """
        run = cls(Path(folder))
        if not run.folder.is_dir():
            raise InputError(f"{folder}: no such folder, expected one that pbrl train has made")
        _ = run.config
        return run

    @cached_property
    def config(self) -> dict[str, Any]:
        """What ``config.json`` holds."""
        path = self.folder / CONFIG
        if not path.is_file():
            raise InputError(f"{self.folder}: not a run, expected a folder with {CONFIG}")
        try:
            config = json.loads(path.read_bytes())
            config["agent"].encode()
        except (ValueError, KeyError, TypeError, AttributeError, OSError):
            raise InputError(f"{path}: damaged, expected the JSON that pbrl train has written") from None
        return config  # type: ignore[no-any-return]

    @cached_property
    def identity(self) -> str:
        """16 hexadecimal characters: the hash of what decides whether a checkpoint fits."""
        subject = self.config.get("identity", self.config)
        return hashlib.sha256(json.dumps(subject, sort_keys=True).encode()).hexdigest()[:16]

    def members(self) -> list[dict[str, str]]:
        """The rows of ``members.csv``."""
        return _read_csv(self.folder / MEMBERS)

    def metrics(self) -> list[dict[str, str]]:
        """The rows of ``metrics.csv``, as they were written."""
        path = self.folder / METRICS
        return _read_csv(path) if path.exists() else []

    def series(self, name: str) -> tuple[list[int], list[list[float]]]:
        """A metric's counts [N], of updates or (where learning went on online) environment steps, and values [P, N]."""
        count, rows = progress([row for row in self.metrics() if row["name"] == name])
        counts = sorted({int(row[count]) for row in rows})
        members = sorted({int(row["member"]) for row in rows})
        value = {(int(row["member"]), int(row[count])): float(row["value"]) for row in rows}
        return counts, [[value.get((member, place), math.nan) for place in counts] for member in members]

    @property
    def count(self) -> str:
        """What ``series`` counts: "updates" or "env_steps"."""
        return progress(self.metrics())[0]

    @property
    def checkpoint(self) -> Path:
        """The folder of the checkpoint."""
        return self.folder / "checkpoint"

    @property
    def figures(self) -> Path:
        """The folder of the figures."""
        return self.folder / "figures"

    def saved(self) -> Checkpoint | None:
        """The checkpoint; None where none is complete yet. See ``pbrl.records.checkpoint.find``."""
        return checkpoint.find(self.checkpoint)

    def save(self, learner: Learner, collected: Mapping[str, Tensor] | None = None, *, env_steps: int = 0) -> None:
        """Write the checkpoint; see ``pbrl.records.checkpoint.save``."""
        checkpoint.save(
            self.checkpoint,
            learner,
            agent=self.config["agent"],
            config=self.identity,
            collected=collected,
            env_steps=env_steps,
        )

    def load(self, learner: Learner) -> int:
        """Restore the learner; see ``pbrl.records.checkpoint.load``."""
        return checkpoint.load(self.checkpoint, learner, agent=self.config["agent"], config=self.identity)

    def load_collected(self, whole: Restorable) -> None:
        """Restore what was collected online; see ``pbrl.records.checkpoint.load_collected``."""
        checkpoint.load_collected(self.checkpoint, whole)

    @contextmanager
    def recording(
        self, names: Sequence[str], *, updates: int, env_steps: int = 0, offline: int = 0
    ) -> Iterator[Record]:
        """A ``Record`` that goes on from a checkpoint: whatever was recorded later than that is cut off.

        Args:
            names: of the members, for TensorBoard.
            updates: of the checkpoint that training goes on from, or 0.
            env_steps: of that checkpoint.
            offline: updates before learning goes on online. TensorBoard's steps are updates up to there, and
                environment steps beyond.

        Raises:
            InputError: the folder cannot be written, or another process is recording into it.
        """
        from torch.utils.tensorboard import SummaryWriter  # half a second, which reading a run need not wait for

        path = self.folder / METRICS
        with _alone(self.folder):
            _cut(path, updates, env_steps)
            with unwritable(self.folder), path.open("a", newline="", encoding="utf-8") as file:
                with uninterrupted():  # a thread of its own writes the events
                    now = offline + env_steps if env_steps else updates
                    events = SummaryWriter(str(self.folder), purge_step=now + 1)
                try:
                    yield Record(file, events, tuple(names), offline)
                finally:
                    with uninterrupted():
                        events.close()


@dataclass(frozen=True)
class Record:
    """An open ``metrics.csv`` and TensorBoard file."""

    file: Any
    events: Any
    names: tuple[str, ...]
    offline: int = 0

    def __call__(self, updates: int, values: Mapping[str, Sequence[float]], *, env_steps: int = 0) -> None:
        """Add one value per member for each metric; they are on the disk when this returns."""
        with uninterrupted():
            rows = csv.writer(self.file, lineterminator="\n")
            now = self.offline + env_steps if env_steps else updates
            for name, column in values.items():
                for member, value in enumerate(column):
                    rows.writerow((member, updates, env_steps, name, repr(float(value))))
                    self.events.add_scalar(f"{name}/{self.names[member]}", float(value), now)
            self.file.flush()
            os.fsync(self.file.fileno())


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Raise InputError if another process is in this block; the lock goes with the process, however it ends."""
    with (folder / CONFIG).open(encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{folder}: another process is training in it, expected it to have ended") from None
        yield


def progress(rows: Sequence[Mapping[str, str]]) -> tuple[str, list[Mapping[str, str]]]:
    """What rows of metrics.csv are counted by, and those of them to draw by it.

    "updates" and all of them; or, where there are environment steps, "env_steps" and the rows from the last offline one
    on, which is at 0 steps.
    """
    if not any(int(row.get("env_steps") or 0) for row in rows):
        return "updates", list(rows)
    last = max((int(row["updates"]) for row in rows if not int(row["env_steps"])), default=0)
    return "env_steps", [row for row in rows if int(row["env_steps"]) or int(row["updates"]) == last]


def _cut(path: Path, updates: int, env_steps: int) -> None:
    """Drop what a killed run recorded after its checkpoint, a line that it did not finish included."""
    kept = [",".join(COLUMNS) + "\n"]
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines(keepends=True)[1:]:
            parts = line.split(",")
            whole = line.endswith("\n") and len(parts) == len(COLUMNS)
            if whole and int(parts[1]) <= updates and int(parts[2]) <= env_steps:
                kept.append(line)
    with replacing(path) as temporary:
        temporary.write_text("".join(kept), encoding="utf-8")


def _read_csv(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except OSError as error:
        raise InputError(f"{path}: unreadable ({error.strerror}), expected a run's {path.name}") from None


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
