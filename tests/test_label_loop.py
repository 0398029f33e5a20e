"""PEBBLE learns on the point mass from answers that come over HTTP; it and the server stop and go on as they like."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments import cli
from experiments.labelling.desk import PageDesk
from experiments.labelling.server import DATABASE
from experiments.labelling.store import Conflict, Store
from pbrl.data import Pairs, Segments
from pbrl.errors import InputError
from pbrl.labelers.desk import Question
from pbrl.records.run import Run
from pbrl.spec import Spec

from .label_cases import Client, served
from .test_cli_asking import LOOP, SMALL
from .test_cli_online import refused, state
from .test_resume import only_run

SPEC = Spec("PointMass-v0", 4, 2, horizon=100)
WORDS = ["pebble", "--env", "PointMass-v0", "--env-steps", "900", "--queries", "60", "--session-queries", "4"]
WORDS += ["--query-every", "60", "--segment-length", "10", *SMALL, *LOOP]
WORDS[WORDS.index("--fit-updates") + 1] = "100"
WORDS += ["--reward-lr", "0.01"]


def question(number: int, length: int = 3) -> Question:
    obs = torch.full((2, length, 4), float(number)) + torch.arange(2)[:, None, None]
    rows = torch.tensor([-1, -1])
    segments = Segments(obs, torch.zeros(2, length, 2), None, None, None, rows, SPEC.name, "")
    return Question(1000 + number, 0, number, Pairs(segments, torch.tensor([0]), torch.tensor([1])))


def desk(folder: Path, run: str = "run") -> PageDesk:
    return PageDesk(folder / DATABASE, SPEC, 3, run=run)


def test_questions_wait_for_answers_and_nobody_waits_for_them(tmp_path: Path) -> None:
    asked = desk(tmp_path)
    asked.ask([question(0), question(1)])
    assert asked.answers() == []
    people = Store(tmp_path / DATABASE)
    first, second = people.open_pairs("ann")
    people.record("ann", second, "second", 1.0, "nonce-01")
    assert [(answer.name, answer.label) for answer in asked.answers()] == [(1001, 1.0)]
    assert asked.answers() == []
    people.record("ann", first, "skip", 1.0, "nonce-02")
    people.undo("ann", first, "nonce-02")  # not yet taken
    assert asked.answers() == []
    people.record("ann", first, "equal", 1.0, "nonce-03")
    assert [(answer.name, answer.label) for answer in asked.answers()] == [(1000, 0.5)]
    with pytest.raises(Conflict, match="the learner has learned from it"):
        people.undo("ann", first, "nonce-03")
    with pytest.raises(Conflict, match="no longer asked"):
        people.record("bob", first, "first", 1.0, "nonce-04")
    assert people.open_pairs("bob") == {}


def test_an_answer_goes_before_a_skip(tmp_path: Path) -> None:
    asked, people = desk(tmp_path), Store(tmp_path / DATABASE)
    asked.ask([question(0), question(1)])
    first, second = people.open_pairs("ann")
    for pair in (first, second):
        people.record("ann", pair, "skip", 1.0, f"nonce-{pair}")
    people.record("bob", first, "first", 1.0, "nonce-05")
    assert {answer.name: answer.label for answer in asked.answers()} == {1000: 0.0, 1001: None}


def test_after_a_restart_all_answers_come_again_and_questions_only_once(tmp_path: Path) -> None:
    before = desk(tmp_path)
    before.ask([question(0), question(1)])
    people = Store(tmp_path / DATABASE)
    people.record("ann", next(iter(people.open_pairs("ann"))), "first", 1.0, "nonce-01")
    assert len(before.answers()) == 1
    before.close()
    after = desk(tmp_path)
    after.ask([question(1), question(0)])
    assert [(answer.name, answer.label) for answer in after.answers()] == [(1000, 0.0)]
    assert len(people.pairs()) == 2


def test_runs_that_ask_the_same_do_not_get_each_others_answers(tmp_path: Path) -> None:
    one, two = desk(tmp_path, "one"), desk(tmp_path, "two")
    for each in (one, two):
        each.ask([question(0)])
    people = Store(tmp_path / DATABASE)
    people.record("ann", next(iter(people.open_pairs("ann"))), "first", 1.0, "nonce-01")
    assert (len(one.answers()), len(two.answers())) == (1, 0)


def test_when_a_run_has_ended_nobody_is_asked_any_more(tmp_path: Path) -> None:
    asked, people = desk(tmp_path), Store(tmp_path / DATABASE)
    asked.ask([question(0)])
    assert people.about()["more"] == "coming"
    assert list(asked.until_done(iter("ab"))) == ["a", "b"]
    assert people.open_pairs("ann") == {}
    assert people.about()["more"] == ""


def test_a_folder_with_other_segments(tmp_path: Path) -> None:
    desk(tmp_path).ask([question(0)])
    with pytest.raises(InputError, match="has segments of 3 steps of PointMass-v0, expected 5 of PointMass-v0"):
        PageDesk(tmp_path / DATABASE, SPEC, 5, run="other")


class Scripted(threading.Thread):
    """Somebody who likes to be near the goal, and answers over HTTP as soon as there is a question."""

    def __init__(self, client: Client, folder: Path) -> None:
        super().__init__(daemon=True)
        self.client, self.folder, self.over = client, folder, threading.Event()
        self.fault: BaseException | None = None

    def run(self) -> None:
        store = Store(self.folder / DATABASE)
        try:
            while not self.over.is_set():
                found = self.client.next("scripted")
                if found["pair"] is None:
                    time.sleep(0.01)
                    continue
                first, second = (self.distance(store, found[side]) for side in ("first", "second"))
                word = "first" if first < second else "second"
                assert self.client.answer("scripted", found["pair"], word).status in (200, 409)  # 409: just withdrawn
        except BaseException as error:
            self.fault = error

    @staticmethod
    def distance(store: Store, url: str) -> float:
        found = store.segment(url.removeprefix("/clips/").partition(".")[0])
        assert found is not None
        obs = struct.unpack(f"<{len(found.obs) // 4}f", found.obs)
        return float(sum(obs[step] ** 2 + obs[step + 1] ** 2 for step in range(0, len(obs), 4)))


@contextmanager
def answering(folder: Path) -> Iterator[None]:
    """A server of the folder, and somebody who answers."""
    with served(folder) as client:
        person = Scripted(client, folder)
        person.start()
        yield
        person.over.set()
        person.join(20)
        assert person.fault is None


@pytest.fixture
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run goes on when what it asked is answered: what is learned depends on no other work of the machine."""
    ask = PageDesk.ask

    def ask_and_wait(self: PageDesk, questions: Sequence[Question]) -> None:
        ask(self, questions)
        end = time.monotonic() + 60
        while self.store.open_pairs("scripted") and time.monotonic() < end:
            time.sleep(0.01)

    monkeypatch.setattr(PageDesk, "ask", ask_and_wait)


def taken(folder: Path) -> list[tuple[Any, ...]]:
    store = Store(folder / DATABASE)
    return store._rows("SELECT answer FROM pair JOIN answer ON answer.id = taken")


@pytest.mark.usefixtures("_patient")
def test_pebble_learns_from_answers_given_over_http(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both sides are stopped once: the run is interrupted and resumed, and the server is another one then."""
    labels = tmp_path / "labels"
    Store(labels / DATABASE, create=True).close()
    words = [*WORDS, "--labels", f"page:{labels}", "--out", str(tmp_path)]
    threads, saves = torch.get_num_threads(), Run.save

    def stop(self: Run, *parts: Any, **more: Any) -> None:
        saves(self, *parts, **more)
        if more["env_steps"] == 360:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, answering(labels):
        patch.setattr(Run, "save", stop)
        assert cli.main(["train", *words]) == 130
    folder = only_run(tmp_path)
    assert f"people answer with: pbrl label {labels}" in capsys.readouterr().out
    half = int(state(folder)["1 interview.questions.state"].eq(2).sum())
    assert 0 < half <= len(taken(labels))
    with answering(labels):
        assert cli.main(["train", "--resume", str(folder)]) == 0
    torch.set_num_threads(threads)
    end = state(folder)
    learned = int(end["1 interview.questions.state"].eq(2).sum())
    assert half < learned <= 60
    assert learned == len(taken(labels))
    _, accuracy = Run.open(folder).series("reward_accuracy")
    assert accuracy[0][-1] > 0.9
    store = Store(labels / DATABASE)
    assert store.open_pairs("scripted") == {}
    assert {answer.annotator for answer in store.answers()} == {"scripted"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*WORDS, "--labels", "page", "--label-beta", "2"], "--label-beta has no effect: people answer"),
        ([*WORDS, "--labels", "page", "partial_return"], "labels are page and partial_return, expected page alone"),
        (["cpl", "--dataset", "local/reacher/mixed-v1", "--labels", "page"], "expected one that does: pebble"),
        (["iql", "--dataset", "local/reacher/mixed-v1", "--labels", "page"], "expected one that does: pebble"),
    ],
)
def test_what_cannot_work(words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in refused(capsys, tmp_path, *words)
