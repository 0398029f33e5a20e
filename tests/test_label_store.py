"""Turns, repeated and mirrored pairs, what is left to do; results; and the choice of pairs of a data set."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments.labelling import choose, result_page
from experiments.labelling.choose import Choice, add_session, first_pairs
from experiments.labelling.pairs import put, uniform
from experiments.labelling.results import fleiss, kappa, summary
from experiments.labelling.store import Store
from experiments.labelling.supply import is_due
from experiments.labelling.turns import AHEAD, PATIENCE, Turns
from pbrl.data import Dataset, hdf5
from pbrl.errors import InputError

from .label_cases import QUESTION, fill


def dataset(episodes: int = 6, length: int = 40) -> Dataset:
    """A point that comes nearer in some episodes than in others."""
    steps = torch.arange(length, dtype=torch.float32)
    near = torch.linspace(1.0, 0.2, episodes)[:, None] * (1.0 - steps / 80)
    obs = torch.stack([near, near, -near, near], -1).flatten(0, 1)
    act = torch.zeros(len(obs), 2)
    trunc = (torch.arange(len(obs)) + 1) % length == 0
    return Dataset.from_arrays(
        obs,
        act,
        -obs[:, 0],
        torch.zeros(len(obs), dtype=torch.bool),
        trunc,
        obs.clone(),
        name="toy",
        env="PointMass-v0",
    )


def record(store: Store, who: str, pair: str, answer: str, seconds: float = 2.0) -> None:
    store.record(who, pair, answer, seconds, f"{who}-{pair}")


def test_a_skipped_pair_is_offered_to_others_and_an_answered_one_is_not(tmp_path: Path) -> None:
    store = Store(tmp_path / "labels.sqlite", create=True)
    first, second = fill(store, 2)
    record(store, "ann", first, "skip")
    record(store, "ann", second, "equal")
    assert list(store.open_pairs("ann")) == []
    assert list(store.open_pairs("bob")) == [first]


def test_shared_pairs_are_for_everybody(tmp_path: Path) -> None:
    store = Store(tmp_path / "labels.sqlite", create=True)
    pairs = fill(store, 3, shared=True)
    record(store, "ann", pairs[0], "first")
    assert list(store.open_pairs("bob")) == pairs
    turns = Turns(store)
    assert turns.turn("ann").queue == pairs[1:]
    assert turns.turn("bob").queue == pairs


def test_queues_hold_pairs_back_for_a_while_and_never_for_nothing(tmp_path: Path) -> None:
    store, now = Store(tmp_path / "labels.sqlite", create=True), 0.0
    pairs = fill(store, AHEAD + 3)
    turns = Turns(store, clock=lambda: now)
    assert turns.turn("ann").queue == pairs[: AHEAD + 1]
    assert turns.turn("bob").queue == pairs[AHEAD + 1 :]
    assert turns.turn("cat").queue == [pairs[-1]]  # nothing is free: the last of what others have
    now = PATIENCE + 1
    assert turns.turn("dan").queue == pairs[: AHEAD + 1]  # the others have gone
    assert turns.wanted() == pairs[: AHEAD + 1]


def test_repeated_and_mirrored_pairs_come_later_and_only_to_who_answered(tmp_path: Path) -> None:
    store = Store(tmp_path / "labels.sqlite", create=True)
    put(store, uniform(dataset(), 20, 5, 0), "PointMass-v0", QUESTION, repeat=0.2, overlap=1.0)
    again = store.pairs("WHERE original IS NOT NULL")
    assert [pair.mirrored for pair in again] == [False, True]  # places 4 and 9; 14 and 19 come too late
    for pair in again:
        original = store.pair(pair.original or "")
        assert original is not None
        same = (original.first, original.second)
        assert (pair.first, pair.second) == (same[::-1] if pair.mirrored else same)
        assert pair.position == original.position + 10.5
    turns = Turns(store)
    assert turns.turn("ann").left == 22  # what is to be repeated counts before it may be asked
    assert again[0].id not in store.open_pairs("ann")
    record(store, "ann", again[0].original or "", "first")
    order = list(store.open_pairs("ann"))
    assert order.index(again[0].id) == 14  # after the others up to place 14
    assert again[0].id not in store.open_pairs("bob")
    store.undo("ann", again[0].original or "", f"ann-{again[0].original}")
    assert again[0].id not in store.open_pairs("ann")


def test_the_same_pairs_put_again_are_not_new_and_more_extend_them(tmp_path: Path) -> None:
    store, data = Store(tmp_path / "labels.sqlite", create=True), dataset()
    assert put(store, uniform(data, 10, 5, 3), "PointMass-v0", QUESTION) == 10
    assert put(store, uniform(data, 10, 5, 3), "PointMass-v0", QUESTION) == 0
    assert put(store, uniform(data, 15, 5, 3), "PointMass-v0", QUESTION) == 5
    with pytest.raises(InputError, match=r"segments have 6 steps .* expected 5 steps"):
        put(store, uniform(data, 2, 6, 3), "PointMass-v0", QUESTION)


def test_kappa_of_a_table_by_hand() -> None:
    """20 times both say first, 15 times both second, 5 and 10 times they differ: (0.7 - 0.5) / (1 - 0.5) = 0.4."""
    one = ["first"] * 25 + ["second"] * 25
    other = ["first"] * 20 + ["second"] * 5 + ["first"] * 10 + ["second"] * 15
    found = kappa(one, other)
    assert found.point == pytest.approx(0.4)
    assert found.low < 0.4 < found.high
    assert found == kappa(one, other)  # the same interval every time
    assert (found.high - found.low) / 3.92 == pytest.approx(0.127, rel=0.1)  # Fleiss, Cohen and Everitt's error
    assert kappa(one, one).point == 1.0
    assert np.isnan(kappa(["first"] * 9, ["first"] * 9).point)


def test_kappa_covers_what_it_estimates() -> None:
    """Annotators who both say the truth with probability 0.8, of two words: kappa is (0.68 - 0.5) / 0.5 = 0.36."""
    generator, inside = np.random.default_rng(1), 0
    for trial in range(40):
        truth = generator.integers(2, size=80)
        words = [
            [("first", "second")[i] for i in np.where(generator.random(80) < 0.8, truth, 1 - truth)] for _ in range(2)
        ]
        found = kappa(words[0], words[1], seed=trial)
        inside += found.low <= 0.36 <= found.high
    assert inside >= 34


def test_fleiss_of_two_is_scotts_pi_and_of_many_may_differ_in_number() -> None:
    one, other = ["first", "first", "second", "equal"], ["first", "second", "second", "equal"]
    chance = (3 / 8) ** 2 + (3 / 8) ** 2 + (2 / 8) ** 2
    assert fleiss(list(zip(one, other))).point == pytest.approx((0.75 - chance) / (1 - chance))
    assert fleiss([("first", "first", "first"), ("second", "second")]).point == 1.0


def test_results_tell_agreement_consistency_and_sides(tmp_path: Path) -> None:
    store = Store(tmp_path / "labels.sqlite", create=True)
    put(store, uniform(dataset(), 40, 5, 0), "PointMass-v0", QUESTION, repeat=0.5, overlap=1.0)
    store.tell_about(question=QUESTION)
    while pairs := list(store.open_pairs("ann")):
        pair = store.pair(pairs[0])
        assert pair is not None
        record(store, "ann", pairs[0], "second" if pair.mirrored else "first")  # consistent
    while pairs := list(store.open_pairs("bob")):
        record(store, "bob", pairs[0], "first")  # always the left one
    record(store, "<b>$x", next(iter(store.open_pairs("<b>$x"))), "skip", seconds=9.0)
    found = summary(store)
    json.dumps(found)
    assert found["question"] == QUESTION
    strange, ann, bob = found["annotators"]
    assert (strange["answers"]["skip"], strange["median_seconds"]) == (1, 9.0)
    repeated, mirrored = ann["repeated"]["of"], ann["mirrored"]["of"]
    assert (repeated, mirrored) == (8, 7)
    assert (ann["repeated"]["count"], ann["mirrored"]["count"]) == (8, 7)
    assert (bob["repeated"]["count"], bob["mirrored"]["count"]) == (8, 0)
    assert bob["first"]["share"]["point"] == 1.0
    assert found["agreement"][0]["annotators"] == ["ann", "bob"]
    assert (found["agreement"][0]["pairs"], found["agreement"][0]["same"]) == (40, 40)  # first turns alone
    assert found["agreement"][0]["kappa"] is None  # nobody ever said anything else
    text = result_page.page(found)
    assert "&lt;b&gt;$x" in text
    assert "<b>" not in text
    assert text.count("<svg ") == 3


def test_results_of_nothing(tmp_path: Path) -> None:
    found = summary(Store(tmp_path / "labels.sqlite", create=True))
    assert found["annotators"] == []
    assert "None yet." in result_page.page(found)


def choice(data: Dataset, tmp_path: Path, **changes: object) -> Choice:
    path = tmp_path / "toy.hdf5"
    settings = {"query": "uniform", "pairs": 20, "segment_length": 5, "overlap": 0.0, "repeat": 0.0, "seed": 0}
    settings |= {
        "dataset": str(path),
        "fingerprint": data.fingerprint,
        "env": data.env,
        "question": QUESTION,
        **changes,
    }
    return Choice(**settings)  # type: ignore[arg-type]


def test_pairs_on_which_models_disagree_follow_the_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "UPDATES", 20)
    data = dataset()
    hdf5.save(data, tmp_path / "toy.hdf5")
    store = Store(tmp_path / "labels.sqlite", create=True)
    assert first_pairs(choice(data, tmp_path, query="disagreement"), data)(store) == 4
    assert store.about()["more"] == "coming"
    assert not is_due(store)
    assert add_session(store) == 0
    for round_ in range(4):
        for name in store.open_pairs("ann"):
            record(store, "ann", name, "first" if round_ % 2 else "second")
        assert is_due(store)
        assert add_session(store) == 4
    assert store.about()["more"] == ""
    assert not is_due(store)
    chosen = store.pairs()
    assert [pair.position for pair in chosen] == list(range(20))
    assert len({pair.id for pair in chosen}) == 20


def test_pairs_of_a_file_of_rows(tmp_path: Path) -> None:
    data, path = dataset(), tmp_path / "rows.csv"
    path.write_text("0,40\n10,80\n")
    store = Store(tmp_path / "labels.sqlite", create=True)
    made = choice(data, tmp_path, query=str(path), pairs=None)
    assert first_pairs(made, data)(store) == 2
    assert [segment.row for segment in store.segments()] == [0, 40, 10, 80]
    for text, words in (
        ("0,38\n", "leaves its episode"),
        ("0\n", "no pairs"),
        ("a,b\n", "cannot be read"),
        ("", "no pairs"),
        ("0,99999999999999999999\n", "cannot be read"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=words):
            first_pairs(made, data)
    with pytest.raises(InputError, match="expected uniform, disagreement or a file"):
        first_pairs(choice(data, tmp_path, query="entropy"), data)
