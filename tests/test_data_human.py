import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pbrl import rng
from pbrl.data import load_human
from pbrl.errors import InputError

from .data_cases import SHARED

REAL = SHARED / "human_preferences"


def triple() -> dict[str, Any]:
    """First better, second better, tie: four steps, two observations, one action; every number is its own."""
    obs = np.arange(48, dtype=np.float64).reshape(2, 3, 4, 2)
    act = np.linspace(-1, 1, 24).reshape(2, 3, 4, 1)
    return {
        "obs_1": obs[0],
        "obs_2": obs[1],
        "action_1": act[0],
        "action_2": act[1],
        "label": np.array([0.0, 1.0, 0.5]),
    }


def test_first_better_second_better_tie(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", **triple())
    answers = load_human(tmp_path / "x.npz", who="annotator 7", question="Which walks better?", when="2023-01-01")
    assert answers.label.tolist() == [0.0, 1.0, 0.5]
    assert answers.decisive.tolist() == [True, True, False]
    segments = answers.pairs.segments
    for pair in range(3):
        for side, index in (("1", answers.pairs.first[pair]), ("2", answers.pairs.second[pair])):
            np.testing.assert_array_equal(segments.obs[index], triple()[f"obs_{side}"][pair])
            np.testing.assert_allclose(segments.act[index], triple()[f"action_{side}"][pair], atol=1e-7)
    assert (segments.rew, segments.last_obs, segments.term) == (None, None, None)
    assert segments.row.tolist() == [-1] * 6
    assert segments.source == "x.npz"
    assert (answers.by.who, answers.by.question, answers.by.when) == (
        "annotator 7",
        "Which walks better?",
        "2023-01-01",
    )


def test_the_fingerprint_is_of_the_contents(tmp_path: Path) -> None:
    prints = []
    for name, changes in {"a": {}, "b": {}, "c": {"obs_1": triple()["obs_1"] + 1}}.items():
        np.savez(tmp_path / f"{name}.npz", **triple() | changes)
        prints.append(load_human(tmp_path / f"{name}.npz").pairs.segments.fingerprint)
    assert prints[0] == prints[1] != prints[2]


def drop(key: str) -> Callable[[Path], None]:
    return lambda path: np.savez(path, **{k: v for k, v in triple().items() if k != key})


def put(**changes: Any) -> Callable[[Path], None]:
    return lambda path: np.savez(path, **triple() | changes)


def damage(path: Path) -> None:
    np.savez(path, **triple())
    whole = bytearray(path.read_bytes())
    place = whole.index(np.arange(8.0).tobytes())  # inside the first array, whose checksum then fails
    whole[place] ^= 0xFF
    path.write_bytes(bytes(whole))


BAD: list[tuple[str, Callable[[Path], Any], str]] = [
    ("no file", lambda path: None, "no such file, expected an npz file"),
    ("text", lambda path: path.write_text("label"), "not an npz file, whatever its name says"),
    ("npy", lambda path: path.write_bytes(b"\x93NUMPY\x01\x00"), "not an npz file"),
    ("damaged", damage, "unreadable npz file"),
    ("no label", drop("label"), "key 'label' is missing, found obs_1, obs_2, action_1, action_2"),
    ("no actions", drop("action_2"), "key 'action_2' is missing"),
    ("pickle", put(label=np.array([0, 1, None])), "holds pickled objects, which are never loaded"),
    ("minus one", put(label=np.array([0, 1, -1])), r"label is -1 at pair 2, expected 0 \(first\), 0.5 \(tie\) or 1"),
    ("nan label", put(label=np.array([0, np.nan, 1])), "label is nan at row 1"),
    ("one-hot", put(label=np.eye(3)), r"label has shape \[3, 3\], expected 1 axes"),
    ("all ties", put(label=np.full(3, 0.5)), "all 3 preferences by human are ties"),
    ("labels", put(label=np.zeros(2)), r"label \[2\] do not fit together, expected \[N, T, O\]"),
    ("lengths", put(obs_2=np.zeros((3, 5, 2))), "obs_1 .* and obs_2 .* differ in shape"),
    ("steps", put(action_1=np.zeros((3, 3, 1)), action_2=np.zeros((3, 3, 1))), "do not fit together"),
    ("axes", put(obs_1=np.zeros((3, 8))), r"obs_1 has shape \[3, 8\], expected 3 axes"),
    ("nan", put(obs_1=np.full((3, 4, 2), np.nan)), "obs_1 is nan at row 0"),
    ("bounds", put(action_2=np.full((3, 4, 1), 2.0)), "action_2 is 2 at row 0"),
    ("words", put(obs_1=np.array("abc")), "obs_1 is not a rectangular array of numbers"),
]


@pytest.mark.parametrize(("write", "message"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_bad_files_are_told_in_one_sentence(tmp_path: Path, write: Callable[[Path], None], message: str) -> None:
    path = tmp_path / "x.npz"
    write(path)
    with pytest.raises(InputError, match=message) as caught:
        load_human(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_empty(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", **{key: value[:0] for key, value in triple().items()})
    with pytest.raises(InputError, match="the preferences by human are empty"):
        load_human(tmp_path / "x.npz")


def test_suffix(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the name ends in '.pkl', expected \.npz"):
        load_human(tmp_path / "x.pkl")


@pytest.mark.skipif(not REAL.is_dir(), reason="the real files are not on this machine")
@pytest.mark.parametrize(
    ("task", "counts", "obs", "act"),
    [("hopper-medium-expert-v2", [32, 28, 40], 11, 3), ("walker2d-medium-expert-v2", [30, 24, 46], 17, 6)],
)
def test_real_files(task: str, counts: list[int], obs: int, act: int) -> None:
    answers = load_human(REAL / task / "num100_human_train.npz")
    values, found = np.unique(answers.label.numpy(), return_counts=True)
    assert values.tolist() == [0.0, 0.5, 1.0]
    assert found.tolist() == counts
    assert answers.pairs.segments.obs.shape == (200, 100, obs)
    assert answers.pairs.segments.act.shape == (200, 100, act)
    script = load_human(REAL / task / "num100_script_train.npz")
    assert script.pairs.segments.fingerprint == answers.pairs.segments.fingerprint  # the same pairs
    train, held = answers.split(0.2, rng.keys([0])[0])
    sides = [
        {hashlib.sha256(step.tobytes()).digest() for step in part.pairs.segments.obs.flatten(0, 1).numpy()}
        for part in (train, held)
    ]
    assert not sides[0] & sides[1]
    assert torch.equal(torch.tensor([len(train), len(held)]), torch.tensor([80, 20]))
