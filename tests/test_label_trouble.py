"""What goes wrong around ``pbrl label``: full disks, folders that cannot be written, other versions, clocks, ports."""

from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from experiments import cli
from experiments.labelling import server, store, supply
from experiments.labelling.exported import preferences
from experiments.labelling.server import DATABASE, open_socket, token
from experiments.labelling.store import Store
from experiments.labelling.turns import Turns
from pbrl.errors import InputError

from .label_cases import ROOT, fill, folder_with, start

DATA = "local/reacher/mixed-v1"


def fails(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert cli.main(["label", *map(str, words)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_a_full_disk_loses_nothing_and_is_over_when_there_is_room(tmp_path: Path) -> None:
    """SQLite's own refusal, in the middle of a transaction and at its end."""
    labels = Store(tmp_path / DATABASE, create=True)
    first, second = fill(labels, 2)
    labels.record("ann", first, "first", 1.0, "nonce-01")
    (pages,) = labels._connection.execute("PRAGMA page_count").fetchone()
    labels._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(sqlite3.OperationalError, match="full"):
        labels.tell_about(question="x" * 100_000)
    assert not labels._connection.in_transaction
    assert "question" not in labels.about()
    labels._connection.execute("PRAGMA max_page_count = 100000")
    labels.record("ann", second, "second", 1.0, "nonce-02")
    assert [said.answer for said in labels.answers()] == ["first", "second"]


def test_a_commit_that_fails_leaves_no_transaction(tmp_path: Path) -> None:
    labels = Store(tmp_path / DATABASE, create=True)
    fill(labels, 1)

    def change() -> None:
        with labels._changing() as run:
            run("PRAGMA defer_foreign_keys = ON")  # so that it is the COMMIT which fails
            run("UPDATE pair SET first = 'none'")

    with pytest.raises(sqlite3.IntegrityError):
        change()
    labels.record("ann", labels.pairs()[0].id, "first", 1.0, "nonce-01")
    assert labels.pairs()[0].first != "none"


def test_the_page_is_told_that_the_disk_is_full_and_may_try_again(tmp_path: Path) -> None:
    """The kernel refuses the server's writes for a while: a limit on the size of its files."""
    running = start(folder_with(tmp_path, 3))
    try:
        client = running.client
        pair = client.next("ann")["pair"]
        soft, hard = resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE, (0, hard))
        refused = client.answer("ann", pair, "first", "nonce-0001")
        assert refused.status == 503
        assert "the server cannot keep answers now" in refused.json["error"]
        assert client.next("ann")["pair"] == pair
        resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE, (soft, hard))
        kept = client.answer("ann", pair, "first", "nonce-0001")
        assert (kept.status, kept.json["replayed"]) == (200, False)
    finally:
        running.process.kill()
        _, err = running.process.communicate()
    assert err.startswith("pbrl: the database cannot be used: ")
    assert "Traceback" not in err
    labels = Store(tmp_path / DATABASE)
    assert [said.answer for said in labels.answers()] == ["first"]


def test_folders_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (DATA, "--pairs", 2, "--segment-length", 5)
    assert "cannot be opened" in fails(capsys, *words, "--out", "/proc/labels")
    (tmp_path / "file").write_text("")
    assert "cannot be opened" in fails(capsys, *words, "--out", tmp_path / "file" / "labels")
    (tmp_path / "odd" / "token").mkdir(parents=True)
    with pytest.raises(InputError, match=r"token: no token can be kept there .* expected a writable folder"):
        token(tmp_path / "odd")
    folder_with(tmp_path, 1)
    (tmp_path / "clips").write_text("")
    assert "clips: cannot be written" in fails(capsys, tmp_path, "--port", 0)


def test_labels_of_a_newer_version(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder_with(tmp_path, 1)
    newer = sqlite3.connect(tmp_path / DATABASE)
    newer.execute("PRAGMA user_version = 2")
    newer.close()
    for words in ((tmp_path, "--port", 0), ("export", tmp_path), ("results", tmp_path)):
        message = fails(capsys, *words)
        assert "labels of version 2, expected 1: use the pbrl that made them, or a newer one" in message


def test_a_port_in_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder_with(tmp_path, 1)
    taken = open_socket("127.0.0.1", 0)
    port = taken.getsockname()[1]
    assert f"port {port} (Address already in use), expected another --port" in fails(capsys, tmp_path, "--port", port)
    taken.close()


def test_other_machines_are_told_an_address_and_what_it_means(tmp_path: Path) -> None:
    """A phone knows no names of machines: the address that is printed is a number, or the best there is."""
    program = "import sys; from experiments.cli import main; sys.exit(main(sys.argv[1:]))"
    words = ["label", str(folder_with(tmp_path, 1)), "--host", "0.0.0.0", "--open-to-network", "--port", "0"]
    process = subprocess.Popen(
        [sys.executable, "-c", program, *words], cwd=ROOT, env={**os.environ}, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    lines: list[str] = []
    while not lines or not lines[-1].startswith("Open "):
        lines.append(process.stdout.readline())
        assert lines[-1], lines
    process.kill()
    process.communicate()
    assert "every machine that reaches this one may connect" in lines[0]
    assert "travels without encryption" in lines[0]
    assert lines[-1].startswith(f"Open http://{server.own_address()}:")


def test_clocks_that_are_set_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers stay in the order in which they came, and the last one is the one that is undone."""
    labels = Store(tmp_path / DATABASE, create=True)
    pairs, now = fill(labels, 4), datetime(2026, 1, 1, tzinfo=UTC)
    times = iter([now, now - timedelta(days=3), now - timedelta(days=2), now - timedelta(days=9)])
    monkeypatch.setattr(store, "_now", lambda: next(times).isoformat())
    for i, pair in enumerate(pairs[:3]):
        labels.record("ann", pair, "first", 1.0, f"nonce-0{i}")
    assert [said.pair for said in labels.answers()] == pairs[:3]
    assert labels.last("ann") == (pairs[2], "nonce-02")
    assert labels.undo("ann", pairs[2], "nonce-02")
    assert preferences(labels).by.when == now.isoformat()


def test_a_data_set_that_changed_brings_no_more_pairs(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pairs that are there go on; the watching thread tells why there are no others, once."""
    from experiments.labelling.choose import main

    labels = Store(tmp_path / DATABASE, create=True)
    fill(labels, 1)
    said = '{"dataset": "local/reacher/mixed-v1", "fingerprint": "0123", "env": "", "query": "disagreement", '
    said += '"question": "?", "pairs": 9, "segment_length": 5, "overlap": 0, "repeat": 0, "seed": 0}'
    labels.tell_about(choice=said, session="9", more="coming")
    assert supply.is_due(labels)
    assert main([str(tmp_path / DATABASE)]) == 2
    assert "expected 0123 as labelled" in capfd.readouterr().err
    monkeypatch.setattr(supply, "LOOK", 0.01)
    monkeypatch.setattr(supply, "_choose", lambda *_: False)
    with supply.choosing(tmp_path / DATABASE):
        while labels.about()["more"]:
            pass
    assert len(labels.open_pairs("ann")) == 1


def test_thousands_of_pairs(tmp_path: Path) -> None:
    labels = Store(tmp_path / DATABASE, create=True)
    pairs = fill(labels, 4000)
    columns, values = "pair, annotator, answer, seconds, answered_at, nonce", "?, 'ann', 'first', 1.0, '', ?"
    with labels._changing() as run:  # a thousand transactions would take as many writes to the disk
        for i, pair in enumerate(pairs[:1000]):
            run(f"INSERT INTO answer ({columns}) VALUES ({values})", (pair, f"nonce-{i}"))
    turns = Turns(labels)
    ann, bob = turns.turn("ann"), turns.turn("bob")
    assert (ann.queue, bob.queue) == (pairs[1000:1005], pairs[1005:1010])
    assert (ann.left, bob.left) == (3000, 3000)
