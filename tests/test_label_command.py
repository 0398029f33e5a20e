"""``pbrl label`` as people type it: from a data set to answers to a file that agents train on, and bad input."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from experiments import cli
from experiments.labelling.exported import preferences
from experiments.labelling.server import DATABASE
from experiments.labelling.store import Store
from pbrl.data import Preferences, load

from .label_cases import ROOT, Client

DATA = "local/reacher/mixed-v1"


def run(*words: object) -> subprocess.Popen[str]:
    """``pbrl label`` in a process of its own."""
    program = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    program += "from experiments.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "label", *map(str, words), "--port", "0"]
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True)


def address(process: subprocess.Popen[str]) -> Client:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("Open "):
            return Client(line.split()[1])
    raise AssertionError(process.communicate()[1])


def fails(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert cli.main(["label", *map(str, words)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_from_a_data_set_to_a_reward_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two sittings with Ctrl-C between them, in real processes; then export and training."""
    folder = tmp_path / "mine"
    words = (DATA, "--pairs", 12, "--segment-length", 10, "--overlap", 0.5, "--repeat", 0.1, "--out", folder)
    process = run(*words)
    client = address(process)
    for turn in range(8):
        client.answer("ann", client.next("ann")["pair"], ("first", "second", "equal", "skip")[turn % 4])
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err.strip()) == (130, "pbrl: stopped"), out

    process = run(folder)
    again = address(process)
    assert again.token == client.token
    assert again.next("ann")["progress"]["done"] == 8
    for _ in range(6):
        again.answer("bob", again.next("bob")["pair"], "first")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)

    assert cli.main(["label", "export", str(folder)]) == 0
    assert "pbrl train reward_model --dataset local/reacher/mixed-v1 --labels" in capsys.readouterr().out
    found = Preferences.load(folder / "preferences.hdf5")
    assert found.by.settings["annotators"] == ["ann", "bob"]
    assert found.label[:6].tolist() == [0.0, 1.0, 0.5, 0.0, 1.0, 0.5]
    assert found.label[6:].tolist() == [0.0] * 6
    assert found.user is not None
    assert found.user.tolist() == [0] * 6 + [1] * 6
    data = load(DATA)
    segments = found.pairs.segments
    steps = segments.row[:, None] + torch.arange(10)
    assert torch.equal(segments.obs, data.obs[steps])
    assert torch.equal(segments.act, data.act[steps])
    assert segments.rew is not None
    assert torch.equal(segments.rew, data.rew[steps])
    assert segments.fingerprint == data.fingerprint
    with (folder / "preferences.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 14
    assert {row["fingerprint"] for row in rows} == {data.fingerprint}
    assert all(row["answered_at"] and float(row["seconds"]) == 1.5 and row["question"] for row in rows)

    threads = torch.get_num_threads()
    training = ["reward_model", "--dataset", DATA, "--labels", str(folder / "preferences.hdf5"), "--updates", "2"]
    training += ["--hidden", "4", "--batch-size", "2", "--held-out", "0", "--episodes", "0", "--threads", "1"]
    assert cli.main(["train", *training, "--out", str(tmp_path / "runs")]) == 0
    torch.set_num_threads(threads)


@pytest.fixture
def answered(tmp_path: Path) -> Path:
    """Three people about four pairs, one of them the other way round, and a second question."""
    from experiments.labelling.pairs import put, uniform
    from experiments.labelling.store import Pair

    folder = tmp_path / "answered"
    store = Store(folder / DATABASE, create=True)
    pairs = uniform(load(DATA), 4, 6, 0)
    put(store, pairs, "Reacher-v5", "Which is nearer?", overlap=1.0)
    first = store.pairs()[0]
    turned = Pair("abc", first.second, first.first, first.question, 9.0, original=first.id, mirrored=True)
    store.add([], [turned])
    for i, pair in enumerate(store.pairs("WHERE original IS NULL")):
        store.record("ann", pair.id, "first", 1.0, f"nonce-{i}")
        store.record("bob", pair.id, "second" if i else "first", 2.0, f"nonce-{i}")
    store.record("ann", "abc", "second", 1.0, "nonce-9")
    store.record("cat", first.id, "skip", 1.0, "nonce-0")
    store.close()
    return folder


def test_export_of_means_and_of_some(answered: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(answered / DATABASE)
    each, mean = preferences(store), preferences(store, rows="mean")
    assert len(each) == 9
    assert mean.label.tolist() == [0.0, 0.5, 0.5, 0.5]  # the mirrored answer agrees with the first two
    assert mean.user is None
    assert (each.by.who, each.by.question) == ("ann, bob", "Which is nearer?")
    ann = preferences(store, annotators=("ann",))
    assert (len(ann), ann.user, ann.by.who) == (5, None, "ann")
    out = answered / "other.hdf5"
    assert cli.main(["label", "export", str(answered), "--rows", "mean", "--out", str(out)]) == 0
    assert torch.equal(Preferences.load(out).label, mean.label)
    assert "4 answers by ann, bob, 3 of them ties" in capsys.readouterr().out


def test_export_takes_one_question(answered: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from experiments.labelling.pairs import put, uniform

    store = Store(answered / DATABASE)
    put(store, uniform(load(DATA), 1, 6, 5), "Reacher-v5", "Which is faster?")
    pair = store.pairs("WHERE question = ?", ("Which is faster?",))[0]
    store.record("ann", pair.id, "second", 1.0, "nonce-77")
    assert "answers to 2 questions, expected one" in fails(capsys, "export", answered)
    assert len(preferences(store, question="Which is faster?")) == 1
    assert "nobody answered 'Why?'" in fails(capsys, "export", answered, "--question", "Why?")


def test_a_name_is_no_formula(tmp_path: Path, answered: Path) -> None:
    store = Store(answered / DATABASE)
    store.record("=1+1", store.pairs()[1].id, "first", 1.0, "nonce-88")
    assert cli.main(["label", "export", str(answered)]) == 0
    with (answered / "preferences.csv").open() as file:
        assert [row["annotator"] for row in csv.DictReader(file)][-1] == "'=1+1"


def test_bad_input_is_one_sentence(tmp_path: Path, answered: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ("--out", tmp_path / "new")
    for words, message in (
        (("local/nothing/v1", *out), "unknown data set"),
        ((DATA, *out, "--pairs", 0), "pairs is 0, expected at least 1"),
        ((DATA, *out, "--segment-length", 0), "segment_length is 0"),
        ((DATA, *out, "--segment-length", 10_000), "segment length is 10000, expected at most"),
        ((DATA, *out, "--overlap", 2), "overlap is 2, expected a share of 0 to 1"),
        ((DATA, *out, "--query", "entropy"), "query is 'entropy', expected uniform, disagreement or a file"),
        ((DATA, *out, "--query", tmp_path / "no.csv", "--segment-length", 5), "cannot be read"),
        ((DATA, *out, "--query", tmp_path / "no.hdf5"), "no such file"),
        ((DATA, *out, "--question", " "), "question is empty"),
        ((DATA, *out, "--env", "Hopper-v5"), "expected 10 and 2 as"),
        ((DATA, *out, "--host", "0.0.0.0"), "expected --open-to-network with it"),
        ((DATA, *out, "--port", "many"), "--port is 'many', expected a whole number"),
        ((answered, "--pairs", 5), "--pairs has no effect on a folder that has its pairs already"),
        (("export", tmp_path), "no labels there"),
        (("export", answered, "--annotator", "dan"), "annotator 'dan' is unknown, expected one of ann, bob, cat"),
        (("export", answered, "--out", tmp_path / "x.txt"), "the name ends in '.txt'"),
        (("export", answered, "--rows", "some"), "expected"),
        (("results", tmp_path), "no labels there"),
        ((tmp_path, *out), "no labels there"),
    ):
        assert message in fails(capsys, *words), words
        assert not (tmp_path / "new").exists()


def test_another_data_set_in_the_same_folder(
    tmp_path: Path, answered: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(answered / DATABASE)
    store.tell_about(fingerprint="0123")
    assert "has labels of a data set 0123" in fails(capsys, DATA, "--segment-length", 6, "--out", answered)
    assert len(store.pairs()) == 5


def test_without_the_extra_it_says_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from importlib.util import find_spec

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "uvicorn" else find_spec(name))
    assert "pbrl label needs uvicorn, expected the extra: pip install 'pbrl[label]'" in fails(capsys, DATA)


def test_results_as_json_and_help(answered: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import json

    assert cli.main(["label", "results", str(answered)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["agreement"][0]["same"] == 1
    assert cli.main(["label", "--help"]) == 0
    assert "export FOLDER" in capsys.readouterr().out
    assert cli.main(["label", DATA, "--help"]) == 0
    assert "--open-to-network" in capsys.readouterr().out
