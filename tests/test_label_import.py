"""Others' human labels: hand-made files in the formats that are really out there, and what no pickle may do here."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from experiments import cli
from experiments.labelling.safe_pickle import load_integers
from pbrl.data import Preferences, load_d4rl
from pbrl.errors import InputError

OBS, ACT, LONG = 11, 3, 40
HOPPER = "hopper_medium_expert-v2.hdf5"


def d4rl_file(folder: Path) -> Path:
    """Four episodes of 40 rows that end at a time limit, 20 that end at a terminal, as D4RL stores Hopper."""
    lengths, rows = (LONG, LONG, 20, LONG, LONG), 4 * LONG + 20
    obs = np.arange(rows * OBS, dtype=np.float32).reshape(rows, OBS) / 100
    ends = np.cumsum(lengths) - 1
    term, out = np.zeros(rows, dtype=bool), np.zeros(rows, dtype=bool)
    term[ends[2]] = True
    out[np.delete(ends, 2)] = True
    with h5py.File(folder / HOPPER, "w") as file:
        file["observations"], file["actions"] = obs, np.sin(obs[:, :ACT])
        file["rewards"], file["terminals"], file["timeouts"] = obs.sum(1), term, out
    return folder / HOPPER


def by_numpy_1(pickled: bytes) -> bytes:
    """The same with the module's name that numpy 1 wrote, as all published files have it."""
    without_frame = pickled[:2] + pickled[11:] if pickled[2:3] == b"\x95" else pickled
    return without_frame.replace(b"\x8c\x16numpy._core.multiarray", b"\x8c\x15numpy.core.multiarray")


def preference_transformer(folder: Path) -> Path:
    """As their repository has it: protocol 4, a list of labels, int32 rows, of which there are more than labels."""
    made = folder / "hopper-medium-expert-v2"
    made.mkdir()
    first, second = np.array([0, 5, 78, 99, 3, 9], dtype=np.int32), np.array([40, 100, 7, 80, 1, 2], dtype=np.int32)
    contents: dict[str, Any] = {"label_human": [0, 1, -1, 1], "indices_num4": first, "indices_2_num4": second}
    for name, content in contents.items():
        (made / name).write_bytes(by_numpy_1(pickle.dumps(content, protocol=4)))
    return made


def uni_rlhf(folder: Path) -> Path:
    """As Clean-Offline-RLHF has it: int64 arrays, names that tell the length."""
    made = folder / "hopper-medium-v2_human_labels"
    made.mkdir()
    suffix = "domain_mujoco_env_hopper-medium-v2_num_3_len_10.pkl"
    contents = {
        "human_label": np.array([1, 0, -1]),
        "indices_1": np.array([0, 20, 80]),
        "indices_2": np.array([50, 60, 3]),
    }
    for name, content in contents.items():
        (made / f"{name}_{suffix}").write_bytes(pickle.dumps(content.astype(np.int64), protocol=3))
    return made


def imported(*words: object) -> Preferences:
    assert cli.main(["label", "import", *map(str, words)]) == 0
    return Preferences.load(Path(str(words[0])) / "labels.hdf5")


def fails(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert cli.main(["label", "import", *map(str, words)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_preference_transformer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, folder = d4rl_file(tmp_path), preference_transformer(tmp_path)
    found = imported(folder, "--dataset", source, "--segment-length", 10)
    told = capsys.readouterr().out
    assert "4 answers about segments of 10 steps, 1 of them ties" in told
    assert found.label.tolist() == [0.0, 1.0, 0.5, 1.0]
    rows = load_d4rl(source, compat=True)
    starts = [0, 40, 5, 100, 78, 7, 99, 80]
    assert found.pairs.segments.row.tolist() == starts
    for place, start in enumerate(starts):
        assert torch.equal(found.pairs.segments.obs[place], rows.obs[start : start + 10])
        assert torch.equal(found.pairs.segments.act[place], rows.act[start : start + 10])
    assert (found.pairs.first.tolist(), found.pairs.second.tolist()) == ([0, 2, 4, 6], [1, 3, 5, 7])
    assert found.by.settings["files"] == ["label_human", "indices_num4", "indices_2_num4"]
    assert found.by.who == "human"


def test_pairs_that_leave_their_episode_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, folder = d4rl_file(tmp_path), preference_transformer(tmp_path)
    found = imported(folder, "--dataset", source, "--segment-length", 20)
    told = capsys.readouterr().out
    # Without the rows at time limits, episodes begin at 0, 39, 78, 98 and 137: 80 and twenty steps leave theirs.
    assert found.pairs.segments.row.tolist() == [0, 40, 5, 100, 78, 7]
    assert "3 answers about segments of 20 steps, 1 of them ties; left out, as a segment leaves its episode: 1" in told


def test_uni_rlhf_and_training_on_it(tmp_path: Path) -> None:
    source, folder = d4rl_file(tmp_path), uni_rlhf(tmp_path)
    found = imported(folder, "--dataset", source, "--who", "crowd", "--question", "Which hops better?")
    assert found.pairs.segments.length == 10
    assert found.label.tolist() == [1.0, 0.0, 0.5]
    assert (found.by.who, found.by.question) == ("crowd", "Which hops better?")
    words = ["--labels", str(folder / "labels.hdf5"), "--updates", "2", "--hidden", "4", "--batch-size", "2"]
    words += ["--held-out", "0", "--episodes", "0", "--out", str(tmp_path / "runs"), "--threads", "1"]
    threads = torch.get_num_threads()
    assert cli.main(["train", "reward_model", *words]) == 0
    torch.set_num_threads(threads)


def test_npz_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps = np.random.default_rng(0).uniform(-1, 1, (4, 3, 5, 2))
    names = ("obs_1", "obs_2", "action_1", "action_2")
    np.savez(tmp_path / "num3.npz", **dict(zip(names, steps)), label=np.array([0.0, 1.0, 0.5]))
    assert cli.main(["label", "import", str(tmp_path / "num3.npz"), "--who", "crowd"]) == 0
    found = Preferences.load(tmp_path / "num3.hdf5")
    assert found.label.tolist() == [0.0, 1.0, 0.5]
    assert found.by.who == "crowd"
    assert torch.equal(found.pairs.segments.obs[:3], torch.from_numpy(steps[0]).float())
    assert "exists already" in fails(capsys, tmp_path / "num3.npz")
    assert "has no effect" in fails(capsys, tmp_path / "num3.npz", "--segment-length", 5)


class Evil:
    """A pickle of it would run a command."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, (f"touch {self.target}",)


def test_pickles_run_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, folder = d4rl_file(tmp_path), preference_transformer(tmp_path)
    (folder / "label_human").write_bytes(pickle.dumps([0, 1, Evil(tmp_path / "owned")]))
    line = fails(capsys, folder, "--dataset", source, "--segment-length", 10)
    assert "names posix.system, expected a pickle of whole numbers alone" in line
    assert not (tmp_path / "owned").exists()
    assert not (folder / "labels.hdf5").exists()


@pytest.mark.parametrize("name", ["builtins.eval", "builtins.getattr", "numpy.load", "pathlib.PosixPath", "os.system"])
def test_pickles_name_nothing_else(name: str, tmp_path: Path) -> None:
    module, _, word = name.rpartition(".")
    (tmp_path / "label").write_bytes(b"c" + module.encode() + b"\n" + word.encode() + b"\n(I1\ntR.")
    with pytest.raises(InputError, match=f"names {name}"):
        load_integers(tmp_path / "label")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "unreadable pickle"),
        (b"not a pickle", "unreadable pickle|holds or names"),
        (pickle.dumps([1, 2, 3])[:-4], "unreadable pickle|holds or names"),
        (pickle.dumps({"a": 1}), "holds a dict"),
        (pickle.dumps(["a"]), "other things than numbers"),
        (pickle.dumps([0.5]), "expected whole numbers"),
        (pickle.dumps(np.zeros((2, 2))), "expected whole numbers"),
        (pickle.dumps(np.array([1, None], dtype=object)), "expected whole numbers"),
        (pickle.dumps(np.array(["a"])), "expected whole numbers"),
        (b"\x80\x04Pelsewhere\n.", "kept elsewhere"),
    ],
)
def test_pickles_of_something_else(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "label").write_bytes(content)
    with pytest.raises(InputError, match=words):
        load_integers(tmp_path / "label")


@pytest.mark.parametrize("protocol", range(2, 6))
def test_every_protocol_is_read(protocol: int, tmp_path: Path) -> None:
    for content in (
        [0, 1, -1],
        np.array([0, 1, -1]),
        [np.int64(0), np.int64(1), np.int64(-1)],
        np.array([[0], [1], [-1]]),
    ):
        (tmp_path / "label").write_bytes(pickle.dumps(content, protocol=protocol))
        assert load_integers(tmp_path / "label").tolist() == [0, 1, -1]


def test_bad_files_are_told_in_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, folder = d4rl_file(tmp_path), preference_transformer(tmp_path)
    whole = ("--dataset", source, "--segment-length", 10)
    assert "import has no files" in fails(capsys)
    assert "--dataset is missing" in fails(capsys, folder)
    assert "--segment-length is missing" in fails(capsys, folder, "--dataset", source)
    assert "the file of second is none" in fails(capsys, folder / "label_human", folder / "indices_num4", *whole)
    assert "expected those of" in fails(capsys, folder, "--dataset", source, "--segment-length", 90)
    labels = folder / "label_human"
    labels.write_bytes(pickle.dumps([0, 2, 1, 0]))
    assert "label 2 at 1, expected 0 (first), 1 (second) or -1" in fails(capsys, folder, *whole)
    labels.write_bytes(pickle.dumps([0] * 7))
    assert "6 rows for 7 labels" in fails(capsys, folder, *whole)
    labels.write_bytes(pickle.dumps([-1] * 4))
    assert "are ties" in fails(capsys, folder, *whole)
    assert not (folder / "labels.hdf5").exists()


def test_rows_of_an_imported_copy_are_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PBRL_DATA_DIR", str(tmp_path / "kept"))
    source, folder = d4rl_file(tmp_path), preference_transformer(tmp_path)
    assert cli.main(["data", "import", str(source), "--name", "mine"]) == 0
    line = fails(capsys, folder, "--dataset", "mine", "--segment-length", 10)
    assert "keeps rows that d4rl drops, expected the D4RL file" in line
