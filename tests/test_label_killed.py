"""``kill -9`` of the server at random moments under eight annotators: nothing acknowledged is lost, nothing doubled."""

from __future__ import annotations

import http.client
import random
import secrets
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from experiments.labelling.server import DATABASE

from .label_cases import Client, folder_with, start

ANNOTATORS = 8
Key = tuple[str, str, str, str]


class Annotator(threading.Thread):
    """Answers for ever, as the page does: it keeps the nonce of an answer and tries again until it is acknowledged."""

    def __init__(self, client: Client, name: str, over: threading.Event) -> None:
        super().__init__(daemon=True)
        self.client, self.who, self.over = client, name, over
        self.acknowledged: dict[Key, bool] = {}
        self.draw = random.Random(name)
        self.fault: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.over.is_set():
                self._one()
        except BaseException as error:
            self.fault = error

    def _one(self) -> None:
        found = self._until("GET", f"/api/next?annotator={self.who}", None)
        if found is None or found["pair"] is None:
            return
        word = self.draw.choice(("first", "second", "equal", "skip"))
        nonce = secrets.token_hex(8)
        content = {"pair": found["pair"], "annotator": self.who, "answer": word, "seconds": 0.1, "nonce": nonce}
        told = self._until("POST", "/api/answer", content)
        if told is None:
            return
        key = (found["pair"], self.who, word, nonce)
        self.acknowledged[key] = True
        if self.draw.random() < 0.1:
            undo = {"annotator": self.who, "pair": found["pair"], "nonce": nonce}
            if self._until("POST", "/api/undo", undo) is not None:
                self.acknowledged[key] = False
            else:
                del self.acknowledged[key]  # nobody knows whether it was

    def _until(self, method: str, path: str, content: object) -> dict[str, Any] | None:
        """What the server says as soon as it is there; None where the test is over."""
        while not self.over.is_set():
            try:
                reply = self.client.get(path) if content is None else self.client.post(path, content)
            except (OSError, http.client.HTTPException):
                time.sleep(0.02)
                continue
            assert reply.status == 200, reply.body
            return dict(reply.json)
        return None


def _wait_for_answers(people: list[Annotator]) -> None:
    """Until the server is at work, however busy the machine is."""
    before, end = sum(len(person.acknowledged) for person in people), time.monotonic() + 60
    while sum(len(person.acknowledged) for person in people) < before + ANNOTATORS:
        assert time.monotonic() < end, [person.fault for person in people]
        time.sleep(0.005)


def check_killed(folder: Path, kills: int, seed: int) -> int:
    """Kill a server so many times; how many answers were acknowledged."""
    folder_with(folder, 3000, shared=True)
    draw = random.Random(seed)
    running = start(folder)
    port, over = running.client.port, threading.Event()
    people = [Annotator(running.client, f"person-{i}", over) for i in range(ANNOTATORS)]
    for person in people:
        person.start()
    for _ in range(kills):
        _wait_for_answers(people)
        time.sleep(draw.uniform(0.0, 0.3))
        running.process.kill()
        running.process.communicate()
        running = start(folder, port)
        assert running.client.address == people[0].client.address  # the same token: pages that are open go on
    _wait_for_answers(people)
    over.set()
    for person in people:
        person.join(20)
    running.process.kill()
    running.process.communicate()
    assert [person.fault for person in people if person.fault is not None] == []
    connection = sqlite3.connect(folder / DATABASE)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    rows = connection.execute("SELECT pair, annotator, answer, nonce, undone_at IS NULL FROM answer").fetchall()
    connection.close()
    kept = {(pair, who, word, nonce): bool(stands) for pair, who, word, nonce, stands in rows}
    assert len(kept) == len(rows)
    for person in people:
        lost = {key: stands for key, stands in person.acknowledged.items() if kept.get(key) is not stands}
        assert lost == {}, person.who
    nonces = [(who, nonce) for _, who, _, nonce, _ in rows]
    assert len(nonces) == len(set(nonces))
    standing = [(pair, who) for pair, who, _, _, stands in rows if stands]
    assert len(standing) == len(set(standing))
    # What was not acknowledged may have been kept, too: at most the last request of each annotator.
    assert len(rows) <= sum(len(person.acknowledged) for person in people) + 2 * ANNOTATORS
    return sum(len(person.acknowledged) for person in people)


def test_nothing_acknowledged_is_lost_when_the_server_is_killed(tmp_path: Path) -> None:
    assert check_killed(tmp_path, kills=3, seed=0) > 10


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_when_the_server_is_killed_20_times(tmp_path: Path) -> None:
    assert check_killed(tmp_path, kills=20, seed=1) > 100
