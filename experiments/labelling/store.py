"""Questions and answers in one SQLite file, which any number of processes may use at once. No torch here.

Every change is one transaction and on the disk (write-ahead log, synchronous FULL) when the method returns. Nothing is
ever deleted: an answer that is undone stays, with the time when it was.

- A segment is known by its contents (``segment_id``): the same window is stored once, whoever brings it.
- A pair is known by segments, question and turn. A repeated pair has the same segments as its ``original``, a mirrored
  one has them the other way round; both are only for those who answered the original.
- A ``shared`` pair is for everybody, any other for whoever gets it first; a skipped one is offered to others.
- Pairs of a ``run`` are asked by a learner in its loop. Once it has ``taken`` an answer, that cannot be undone.
"""

from __future__ import annotations

import dataclasses
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from pbrl.errors import InputError

T = TypeVar("T", "Segment", "Pair", "Said")

ANSWERS = {"first": 0.0, "second": 1.0, "equal": 0.5, "skip": None}
"""What annotators say, and the probability that the second is preferred which it stands for."""

_APPLICATION = 0x7062726C
_VERSION = 1
_TABLES = """
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE segment (
    id TEXT PRIMARY KEY, env TEXT NOT NULL, source TEXT NOT NULL, fingerprint TEXT NOT NULL, row INTEGER NOT NULL,
    length INTEGER NOT NULL, obs BLOB NOT NULL, act BLOB NOT NULL, rew BLOB, last_obs BLOB, term INTEGER
);
CREATE TABLE pair (
    id TEXT PRIMARY KEY, first TEXT NOT NULL REFERENCES segment, second TEXT NOT NULL REFERENCES segment,
    question TEXT NOT NULL, position REAL NOT NULL, shared INTEGER NOT NULL, original TEXT REFERENCES pair,
    mirrored INTEGER NOT NULL, run TEXT NOT NULL, taken INTEGER REFERENCES answer, withdrawn INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX pair_by_position ON pair(position);
CREATE INDEX pair_by_original ON pair(original);
CREATE TABLE answer (
    id INTEGER PRIMARY KEY AUTOINCREMENT, pair TEXT NOT NULL REFERENCES pair, annotator TEXT NOT NULL,
    answer TEXT NOT NULL CHECK (answer IN ('first', 'second', 'equal', 'skip')), seconds REAL NOT NULL,
    answered_at TEXT NOT NULL, nonce TEXT NOT NULL, undone_at TEXT, UNIQUE (annotator, nonce)
);
CREATE UNIQUE INDEX one_answer ON answer(pair, annotator) WHERE undone_at IS NULL;
CREATE INDEX answer_by_annotator ON answer(annotator, id);
"""

_OPEN = """
FROM pair WHERE pair.taken IS NULL AND NOT pair.withdrawn
AND NOT EXISTS (SELECT 1 FROM answer WHERE answer.pair = pair.id AND annotator = :who AND undone_at IS NULL)
AND CASE WHEN pair.original IS NOT NULL THEN EXISTS (
        SELECT 1 FROM answer WHERE answer.pair = pair.original AND annotator = :who AND undone_at IS NULL
        AND answer <> 'skip')
    ELSE pair.shared OR NOT EXISTS (
        SELECT 1 FROM answer WHERE answer.pair = pair.id AND undone_at IS NULL AND answer <> 'skip') END
"""
"""What an annotator may still be asked."""


class UnknownPair(InputError):
    """There is no such pair, or nothing of it to undo."""


class Conflict(InputError):
    """It contradicts what is recorded."""


@dataclass(frozen=True)
class Segment:
    """T steps, in float32 bytes of this machine's order, rows one after the other.

    Attributes:
        id: ``segment_id`` of what an annotator sees.
        env: id of the simulator, "" when unknown.
        source: name of the data set or run, ``fingerprint`` of its contents, and ``row`` of the first step, or -1.
        length: T.
        obs: [T, O]; ``act`` [T, A]; ``rew`` [T] or [T, K] and ``last_obs`` [O], None where unknown.
        term: the last step truly ended the episode; None where unknown.
    """

    id: str
    env: str
    source: str
    fingerprint: str
    row: int
    length: int
    obs: bytes
    act: bytes
    rew: bytes | None = None
    last_obs: bytes | None = None
    term: bool | None = None


@dataclass(frozen=True)
class Pair:
    """A question; see the module.

    Attributes:
        id: tells it from all others.
        first: id of the segment on the left, ``second`` of the one on the right.
        question: as it is put.
        position: pairs are asked in this order.
        shared: for every annotator, not for one of them.
        original: id of the pair that this one repeats, or None.
        mirrored: the original the other way round.
        run: which learner asks, "" for none.
    """

    id: str
    first: str
    second: str
    question: str
    position: float
    shared: bool = False
    original: str | None = None
    mirrored: bool = False
    run: str = ""


@dataclass(frozen=True)
class Said:
    """An answer with all that is known of it, the data set's fingerprint included; ``answer`` is one of ``ANSWERS``."""

    id: int
    pair: str
    annotator: str
    answer: str
    seconds: float
    answered_at: str
    question: str
    first: str
    second: str
    original: str | None
    mirrored: bool
    fingerprint: str


def segment_id(env: str, length: int, obs: bytes, act: bytes) -> str:
    """32 hexadecimal digits that tell a segment from others, by the simulator and what happens in it."""
    content = blake2b(f"{env}\0{length}\0{len(obs)}\0".encode(), digest_size=16)
    content.update(obs)
    content.update(act)
    return content.hexdigest()


def pair_id(first: str, second: str, question: str, turn: int = 0) -> str:
    """12 hexadecimal digits of a pair; ``turn`` tells repetitions apart."""
    return blake2b(f"{first}\0{second}\0{question}\0{turn}".encode(), digest_size=6).hexdigest()


class Store:
    """The file; safe to use from several threads, one at a time."""

    def __init__(self, path: str | Path, *, create: bool = False) -> None:
        """Open the file, or make it.

        Raises:
            InputError: no such file, not one of ours, of another version, or not writable.
        """
        self.path = Path(path)
        if not create and not self.path.is_file():
            raise InputError(f"{self.path}: no such file, expected one that pbrl label made")
        self._lock = threading.RLock()
        try:
            if create:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(self.path, isolation_level=None, timeout=20, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise InputError(f"{self.path}: cannot be opened ({error}), expected a writable folder") from error
        try:
            self._prepare()
        except sqlite3.OperationalError as error:  # it may well be ours, and cannot be written or read now
            self._connection.close()
            raise InputError(f"{self.path}: cannot be used ({error}), expected a writable folder") from None
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise InputError(
                f"{self.path}: not a file of labels ({error}), expected one that pbrl label made"
            ) from None
        except InputError:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "cache_size = -8000"):
            self._connection.execute(f"PRAGMA {pragma}")
        with self._changing() as run:
            ours = run("PRAGMA application_id").fetchone()[0], run("PRAGMA user_version").fetchone()[0]
            if ours == (0, 0) and not run("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                for statement in _TABLES.split(";\n"):
                    run(statement)
                run(f"PRAGMA application_id = {_APPLICATION}")
                run(f"PRAGMA user_version = {_VERSION}")
            elif ours[0] != _APPLICATION:
                raise InputError(f"{self.path}: not a file of labels, expected one that pbrl label made")
            elif ours[1] != _VERSION:
                raise InputError(
                    f"{self.path}: labels of version {ours[1]}, expected {_VERSION}: use the pbrl that made them, or a "
                    "newer one"
                )

    @contextmanager
    def _changing(self) -> Iterator[Callable[..., sqlite3.Cursor]]:
        """A transaction: all of it is on the disk at the end, or nothing."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection.execute
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # a full disk may have ended it already
                    self._connection.execute("ROLLBACK")
                raise

    def _rows(self, query: str, values: Sequence[object] | Mapping[str, object] = ()) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._connection.execute(query, values).fetchall()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def about(self) -> dict[str, str]:
        """What is known of the whole, such as the data set and the question."""
        return dict(map(tuple, self._rows("SELECT key, value FROM about")))

    def tell_about(self, **values: str) -> None:
        """Add to ``about``, or change it."""
        with self._changing() as run:
            for key, value in values.items():
                run(
                    "INSERT INTO about VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                    (key, value),
                )

    def add(self, segments: Iterable[Segment], pairs: Iterable[Pair]) -> int:
        """Put segments and pairs of them; those that are there already stay as they are. How many pairs are new."""
        new = 0
        with self._changing() as run:
            for s in segments:
                run(f"INSERT OR IGNORE INTO segment VALUES ({', '.join('?' * 11)})", dataclasses.astuple(s))
            for p in pairs:
                new += run(
                    f"INSERT OR IGNORE INTO pair VALUES ({', '.join('?' * 9)}, NULL, 0)", dataclasses.astuple(p)
                ).rowcount
        return new

    def segment(self, name: str) -> Segment | None:
        """The segment of this id."""
        found = _made(Segment, self._rows("SELECT * FROM segment WHERE id = ?", (name,)))
        return found[0] if found else None

    def segments(self) -> list[Segment]:
        """All segments, in the order in which they came."""
        return _made(Segment, self._rows("SELECT * FROM segment ORDER BY rowid"))

    def any_segment(self) -> Segment | None:
        """One of them; None without any."""
        found = _made(Segment, self._rows("SELECT * FROM segment LIMIT 1"))
        return found[0] if found else None

    def pair(self, name: str) -> Pair | None:
        """The pair of this id."""
        found = self.pairs("WHERE id = ?", (name,))
        return found[0] if found else None

    def pairs(self, where: str = "", values: Sequence[object] = ()) -> list[Pair]:
        """Pairs in the order in which they are asked."""
        return _made(Pair, self._rows(f"SELECT * FROM pair {where} ORDER BY position, rowid", values))

    def open_pairs(self, annotator: str) -> dict[str, int]:
        """The pairs that this annotator may be asked, in order: their ids, and how many pairs wait to repeat each."""
        repeats = "(SELECT count(*) FROM pair AS again WHERE again.original = pair.id)"
        rows = self._rows(f"SELECT id, {repeats} {_OPEN} ORDER BY position, rowid", {"who": annotator})
        return {row[0]: row[1] for row in rows}

    def next_position(self) -> float:
        """After all pairs."""
        found = self._rows("SELECT coalesce(max(position), -1.0) FROM pair")
        return 1.0 + float(found[0][0])

    def done(self, annotator: str) -> int:
        """How many pairs this annotator has answered (or skipped)."""
        found = self._rows("SELECT count(*) FROM answer WHERE annotator = ? AND undone_at IS NULL", (annotator,))
        return sum(row[0] for row in found)

    def pace(self, annotator: str) -> float | None:
        """Median seconds of the annotator's last answers, of anybody's where there are none; None without any."""
        for where, values in (("WHERE annotator = ?", (annotator,)), ("", ())):
            found = self._rows(f"SELECT seconds FROM answer {where} ORDER BY id DESC LIMIT 50", values)
            if found:
                return float(median(row[0] for row in found))
        return None

    def last(self, annotator: str) -> tuple[str, str] | None:
        """Pair and nonce of the annotator's last answer, which may be undone."""
        found = self._rows(
            "SELECT pair, nonce, pair.taken FROM answer JOIN pair ON pair.id = answer.pair "
            "WHERE annotator = ? AND undone_at IS NULL ORDER BY answer.id DESC LIMIT 1",
            (annotator,),
        )
        return (found[0][0], found[0][1]) if found and found[0][2] is None else None

    def record(self, annotator: str, pair: str, answer: str, seconds: float, nonce: str) -> bool:
        """Keep an answer; False where it was kept already, under the same nonce.

        Raises:
            UnknownPair: there is no such pair.
            Conflict: the nonce belongs to another answer, the pair is no longer asked, or it was answered already.
        """
        with self._changing() as run:
            known = run(
                "SELECT pair, answer FROM answer WHERE annotator = ? AND nonce = ?", (annotator, nonce)
            ).fetchone()
            if known is not None:
                if known != (pair, answer):
                    raise Conflict("this nonce was used for another answer, expected a new one")
                return False
            found = run("SELECT taken IS NOT NULL OR withdrawn FROM pair WHERE id = ?", (pair,)).fetchone()
            if found is None:
                raise UnknownPair(f"unknown pair {pair!r}, expected one from /api/next")
            if found[0]:
                raise Conflict(f"pair {pair} is no longer asked, expected one from /api/next")
            own = "SELECT 1 FROM answer WHERE pair = ? AND annotator = ? AND undone_at IS NULL"
            if run(own, (pair, annotator)).fetchone() is not None:
                raise Conflict(f"{annotator} has answered pair {pair} already, expected it to be undone before")
            values = (pair, annotator, answer, seconds, _now(), nonce)
            columns = "pair, annotator, answer, seconds, answered_at, nonce"
            run(f"INSERT INTO answer ({columns}) VALUES (?, ?, ?, ?, ?, ?)", values)
        return True

    def undo(self, annotator: str, pair: str, nonce: str) -> bool:
        """Take back the annotator's last answer; False where it was taken back already.

        Raises:
            UnknownPair: there is no such answer.
            Conflict: it is not the annotator's last one, or a learner has learned from it.
        """
        with self._changing() as run:
            query = "SELECT id, undone_at FROM answer WHERE annotator = ? AND pair = ? AND nonce = ?"
            found = run(query, (annotator, pair, nonce)).fetchone()
            if found is None:
                raise UnknownPair(f"{annotator} has no such answer to pair {pair!r}, expected one to undo")
            if found[1] is not None:
                return False
            later = "SELECT 1 FROM answer WHERE annotator = ? AND id > ? AND undone_at IS NULL"
            if run(later, (annotator, found[0])).fetchone() is not None:
                raise Conflict(f"the answer to pair {pair} is not the last one, expected the last to be undone first")
            if run("SELECT taken FROM pair WHERE id = ?", (pair,)).fetchone()[0] is not None:
                raise Conflict(f"the answer to pair {pair} stays, as the learner has learned from it")
            run("UPDATE answer SET undone_at = ? WHERE id = ?", (_now(), found[0]))
        return True

    def answers(self) -> list[Said]:
        """All answers that were not undone, in the order in which they came."""
        rows = self._rows(
            "SELECT answer.id, pair.id, annotator, answer, seconds, answered_at, question, first, second, original, "
            "mirrored, fingerprint FROM answer JOIN pair ON pair.id = answer.pair JOIN segment ON segment.id = first "
            "WHERE undone_at IS NULL ORDER BY answer.id"
        )
        return _made(Said, rows)

    def take(self, run: str, after: int) -> tuple[int, list[tuple[str, str]]]:
        """The answers to a run's pairs, as (pair, answer), that it takes now, or took later than number ``after``.

        Of several answers to a pair it takes the first that is no skip. Returns also the number to go on from.
        """
        with self._changing() as execute:
            latest = int(execute("SELECT coalesce(max(id), 0) FROM answer").fetchone()[0])
            execute(
                "UPDATE pair SET taken = (SELECT id FROM answer WHERE answer.pair = pair.id AND undone_at IS NULL "
                "ORDER BY answer = 'skip', id LIMIT 1) WHERE run = ? AND taken IS NULL",
                (run,),
            )
            found = execute(
                "SELECT pair.id, answer FROM pair JOIN answer ON answer.id = taken WHERE run = ? AND taken > ? "
                "ORDER BY taken",
                (run, after),
            ).fetchall()
        return latest, [(pair, answer) for pair, answer in found]

    def ask(self, run: str, segments: Iterable[Segment], pairs: Iterable[Pair]) -> None:
        """Put a run's pairs; those that it withdrew before are asked again."""
        pairs = list(pairs)
        self.add(segments, pairs)
        with self._changing() as execute:
            for pair in pairs:
                execute("UPDATE pair SET withdrawn = 0 WHERE id = ? AND run = ?", (pair.id, run))

    def withdraw(self, run: str) -> None:
        """A run no longer wants to know: its unanswered pairs are not asked any more."""
        with self._changing() as execute:
            execute("UPDATE pair SET withdrawn = 1 WHERE run = ? AND taken IS NULL", (run,))


def _made(kind: type[T], rows: Iterable[Sequence[Any]]) -> list[T]:
    """Dataclasses from rows whose first columns are their fields; numbers that stand for bool become such."""
    fields = dataclasses.fields(kind)
    made = []
    for row in rows:
        values: dict[str, Any] = {
            item.name: bool(value) if "bool" in str(item.type) and value is not None else value
            for item, value in zip(fields, row)
        }
        made.append(kind(**values))
    return made


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
