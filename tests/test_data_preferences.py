import dataclasses
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor

from pbrl import rng
from pbrl.data import By, Pairs, Preferences
from pbrl.errors import InputError

from .data_cases import dataset

BY = By("test", "which?", "2026-01-01", {"beta": 1.0})


def keys(seed: int) -> Tensor:
    return rng.keys([seed])[0]


def preferences(episodes: int, steps: int, count: int, length: int, seed: int = 0) -> Preferences:
    data = dataset((steps,) * episodes, "x" * episodes, seed)
    pairs = Pairs.sample(data, count, length, keys(seed))
    return Preferences(pairs, rng.uniform(keys(seed + 1), count).round(), BY)


def rows(part: Preferences) -> set[int]:
    segments = part.pairs.segments
    return set((segments.row.unsqueeze(1) + torch.arange(segments.length)).flatten().tolist())


def without_rows(part: Preferences) -> Preferences:
    segments = part.pairs.segments
    unknown = dataclasses.replace(segments, row=torch.full_like(segments.row, -1), rew=None, last_obs=None, term=None)
    return dataclasses.replace(part, pairs=dataclasses.replace(part.pairs, segments=unknown))


def steps(part: Preferences) -> set[tuple[float, ...]]:
    return {tuple(step) for step in part.pairs.segments.obs.flatten(0, 1).tolist()}


@pytest.mark.parametrize(
    ("episodes", "length", "count", "rule"),
    [
        (400, 5, 100, "groups"),  # sparse: most pairs stand alone
        (40, 5, 200, "rows"),  # dense: every pair is linked to every other through shared rows
        (40, 50, 200, "rows"),  # whole episodes as segments
    ],
)
@pytest.mark.parametrize("seed", range(5))
def test_no_row_is_on_both_sides(episodes: int, length: int, count: int, rule: str, seed: int) -> None:
    whole = preferences(episodes, 50, count, length, seed)
    train, held = whole.split(0.2, keys(seed + 9))
    assert not rows(train) & rows(held)
    how = held.by.settings["split"]
    assert (how["rule"], how["side"], how["held_out"]) == (rule, "held_out", 0.2)
    assert train.by.settings["split"] == how | {"side": "train"}
    assert len(train) + len(held) + how["dropped"] == len(whole)
    assert train.by.settings["beta"] == 1.0
    assert len(held) >= 0.5 * 0.2 * count
    if rule == "groups":
        assert how["dropped"] == 0
        assert len(held) <= 0.2 * count
    else:
        assert how["dropped"] > 0
        assert len(train) > 0.1 * count


def test_split_keeps_pairs_and_labels_together() -> None:
    whole = preferences(400, 50, 100, 5)
    asked = {}
    for index in range(len(whole)):
        place = (int(whole.pairs.first[index]), int(whole.pairs.second[index]))
        asked[tuple(int(whole.pairs.segments.row[at]) for at in place)] = float(whole.label[index])
    parts = whole.split(0.3, keys(4))
    for part in parts:
        segments = part.pairs.segments
        for first, second, label in zip(segments.row[part.pairs.first], segments.row[part.pairs.second], part.label):
            assert asked.pop((int(first), int(second))) == float(label)
    assert not asked


def test_split_depends_on_the_key_alone() -> None:
    whole = preferences(400, 50, 100, 5)
    one, two, other = (whole.split(0.3, keys(seed))[1].pairs.segments.row for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(("episodes", "count"), [(400, 100), (40, 200)])
def test_without_row_numbers_equal_contents_count_as_shared(episodes: int, count: int) -> None:
    known = preferences(episodes, 50, count, 5)
    unknown = without_rows(known)
    train, held = unknown.split(0.2, keys(1))
    for side, same in zip(known.split(0.2, keys(1)), (train, held)):
        assert torch.equal(side.pairs.segments.obs, same.pairs.segments.obs)
        assert side.by == same.by
    assert not steps(train) & steps(held)


def test_a_split_that_is_impossible_is_refused() -> None:
    whole = preferences(1, 50, 200, 10)
    with pytest.raises(InputError, match="no training pair of 200 is free of the other side's rows"):
        whole.split(0.2, keys(0))


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_split_share(share: float) -> None:
    with pytest.raises(InputError, match=r"held_out is .*, expected a share above 0 and below 1"):
        preferences(40, 50, 10, 5).split(share, keys(0))


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (torch.full((10,), 0.5), "all 10 preferences by test are ties"),
        (torch.tensor([0.0] * 9 + [torch.nan]), r"label is nan at pair 9, expected a probability in \[0, 1\]"),
        (torch.tensor([-1.0] + [0.0] * 9), "label is -1 at pair 0"),
        (torch.tensor([0.0] * 8 + [1.5, 0]), "label is 1.5 at pair 8"),
        (torch.zeros(4), r"label has shape \[4\], expected \[10\]"),
        (torch.zeros(0), "the preferences by test are empty"),
    ],
)
def test_check(label: Tensor, message: str) -> None:
    whole = preferences(40, 50, 10, 5)
    whole.check()
    with pytest.raises(InputError, match=message):
        dataclasses.replace(whole, label=label).check()


def test_decisive() -> None:
    whole = preferences(40, 50, 3, 5)
    label = torch.tensor([0.5, 0.51, 0.0])
    assert dataclasses.replace(whole, label=label).decisive.tolist() == [False, True, True]


@pytest.mark.parametrize("known", [True, False])
def test_save_and_load(tmp_path: Path, known: bool) -> None:
    whole = preferences(40, 50, 10, 5) if known else without_rows(preferences(40, 50, 10, 5))
    path = tmp_path / "folder" / "p.hdf5"
    whole.save(path)
    loaded = Preferences.load(path)
    assert loaded.by == whole.by
    assert torch.equal(loaded.label, whole.label)
    for noun, same in ((whole.pairs, loaded.pairs), (whole.pairs.segments, loaded.pairs.segments)):
        for field in dataclasses.fields(noun):
            one, two = getattr(noun, field.name), getattr(same, field.name)
            if isinstance(one, Tensor):
                assert torch.equal(one, two), field.name
                assert one.dtype == two.dtype, field.name
            elif not dataclasses.is_dataclass(one):
                assert one == two, field.name
    assert [p.name for p in path.parent.iterdir()] == ["p.hdf5"]


def change(path: Path, key: str, value: Any) -> None:
    with h5py.File(path, "r+") as file:
        if key.startswith("@"):
            file.attrs[key[1:]] = value
            return
        del file[key]
        if value is not None:
            file[key] = value


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("label", None, "key 'label' is missing"),
        ("segments/obs", None, "key 'segments/obs' is missing"),
        ("first", [0, 99], r"first has shape \[2\], expected \[10\]"),
        ("first", [0.0] * 10, "first has dtype float64, expected integers"),
        ("label", [[0.0]] * 10, r"label has shape \[10, 1\], expected 1 axes"),
        ("label", [2.0] * 10, "label is 2 at pair 0, expected a probability"),
        ("label", [float("nan")] * 10, "label is nan at row 0"),
        ("segments/obs", np.zeros((20, 15)), r"segments: obs has shape \[20, 15\], expected 3 axes"),
        ("segments/obs", np.full((20, 5, 3), np.inf), "segments: obs is inf at row 0, expected finite numbers"),
        ("segments/act", np.zeros((20, 4, 2)), r"segments: act has shape \[20, 4, 2\], expected \[20, 5, 2\]"),
        (
            "segments/act",
            np.zeros((20, 5, 0)),
            r"segments: act has shape .*, expected at least one step and one column",
        ),
        ("segments/act", np.full((20, 5, 2), 3.0), r"segments: act is 3 at row 0, expected \[-1, 1\]"),
        ("segments/rew", np.zeros((20, 4)), r"segments: rew has shape \[20, 4\], expected \[20, 5\]"),
        ("segments/last_obs", np.zeros((20, 2)), r"segments: last_obs has shape \[20, 2\], expected \[20, 3\]"),
        ("segments/term", np.zeros(20), "segments: term has dtype float64, expected bool"),
        ("segments/row", np.zeros(19, int), r"segments: row has shape \[19\], expected \[20\]"),
        ("segments/row", np.full(20, -2), "segments: row is -2 at segment 0"),
        ("segments/row", np.zeros(20), "segments: row has dtype float64, expected integers"),
        ("second", [99] * 10, "second points outside the 20 segments"),
        ("@format", "else", "not a file of preferences"),
        ("@by", "{", "the attribute 'by' is damaged"),
        ("@by", '{"nobody": 1}', "the attribute 'by' is damaged"),
    ],
)
def test_load_refuses(tmp_path: Path, key: str, value: Any, message: str) -> None:
    path = tmp_path / "p.hdf5"
    preferences(40, 50, 10, 5).save(path)
    change(path, key, value)
    with pytest.raises(InputError, match=message) as caught:
        Preferences.load(path)
    assert str(path) in str(caught.value)


def test_save_refuses_what_json_cannot_hold(tmp_path: Path) -> None:
    whole = dataclasses.replace(preferences(40, 50, 10, 5), by=By("x", settings={"a": object()}))
    with pytest.raises(InputError, match=r"by\.settings cannot be stored"):
        whole.save(tmp_path / "p.hdf5")
    assert not list(tmp_path.iterdir())
