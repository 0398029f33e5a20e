import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import h5py
import numpy as np
import pytest
import torch

from pbrl.data import Dataset, load_minari, save_minari
from pbrl.data.minari import DATA, METADATA
from pbrl.errors import InputError

from .data_cases import arrays, dataset

FIELDS = ("obs", "act", "rew", "next_obs", "term", "trunc", "start")


@pytest.fixture(autouse=True)
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    return tmp_path


def assert_same(one: Dataset, two: Dataset) -> None:
    for field in FIELDS:
        assert torch.equal(getattr(one, field), getattr(two, field)), field


@pytest.mark.parametrize("by", ["id", "path"])
def test_save_and_load(datasets: Path, by: str) -> None:
    data = dataset(env="Hopper-v5", info={"reference": [-1.0, 9.0]})
    folder = save_minari(data, "group/sub/test-v3")
    assert folder == datasets / "group/sub/test-v3"
    assert os.listdir(folder.parent) == ["test-v3"]
    loaded = load_minari("group/sub/test-v3" if by == "id" else folder)
    assert_same(data, loaded)
    assert (loaded.name, loaded.env) == ("group/sub/test-v3", "Hopper-v5")
    assert loaded.info["reference"] == [-1.0, 9.0]
    assert loaded.spec.horizon == 1000


def test_episodes_come_in_the_order_of_their_numbers() -> None:
    data = dataset((2,) * 12, "t" * 12)
    save_minari(data, "many-v0")
    assert_same(load_minari("many-v0"), data)


def test_actions_are_rescaled_both_ways(datasets: Path) -> None:
    data = dataset()
    folder = save_minari(data, "scaled-v0", act_low=[-2.0, 0.0], act_high=[2.0, 1.0])
    with h5py.File(folder / DATA) as file:
        stored = file["episode_0/actions"][()]
    np.testing.assert_allclose(stored, data.act[:5].numpy() * [2, 0.5] + [0, 0.5], atol=1e-6)
    torch.testing.assert_close(load_minari("scaled-v0").act, data.act)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_minari_opens_what_we_write() -> None:
    minari = pytest.importorskip("minari")
    data = dataset(env="Hopper-v5", info={"reference": [-1.0, 9.0]})
    save_minari(data, "group/test-v0", act_low=-2.0, act_high=2.0)
    opened = minari.load_dataset("group/test-v0")
    assert (opened.total_episodes, opened.total_steps) == (3, 12)
    assert opened.action_space == gymnasium.spaces.Box(-2, 2, (2,), np.float32)
    assert opened.observation_space.shape == (3,)
    assert opened.env_spec.id == "Hopper-v5"
    assert minari.get_normalized_score(opened, np.array([9.0])) == 1.0
    assert list(minari.list_local_datasets()) == ["group/test-v0"]
    ends = np.append(data.start.numpy()[1:], 12)
    for episode, begin, end in zip(opened.iterate_episodes(), data.start.tolist(), ends.tolist(), strict=True):
        np.testing.assert_array_equal(episode.observations[:-1], data.obs[begin:end])
        np.testing.assert_array_equal(episode.observations[1:], data.next_obs[begin:end])
        np.testing.assert_array_equal(episode.actions, 2 * data.act[begin:end])
        np.testing.assert_array_equal(episode.rewards, data.rew[begin:end])
        np.testing.assert_array_equal(episode.terminations, data.term[begin:end])
        np.testing.assert_array_equal(episode.truncations, data.trunc[begin:end])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")  # minari: no author, no permalink, ...
def test_we_read_what_minari_writes() -> None:
    minari = pytest.importorskip("minari")
    from minari.data_collector.episode_buffer import EpisodeBuffer

    ends = "tx.b" * 3  # twelve, so that episode_10 sorts before episode_2; b: both flags
    episodes = [arrays((3 + number % 4,), end if end != "b" else "t", number) for number, end in enumerate(ends)]
    buffers = [
        EpisodeBuffer(
            id=number,
            observations=np.concatenate([given["obs"], given["next_obs"][-1:]]).astype(np.float64),
            actions=3 * given["act"],
            rewards=given["rew"].tolist(),
            terminations=given["term"].tolist(),
            truncations=(given["term"] if end == "b" else given["trunc"]).tolist(),
            infos={},
        )
        for number, (given, end) in enumerate(zip(episodes, ends))
    ]
    minari.create_dataset_from_buffers(
        "theirs/test-v2",
        buffers,
        observation_space=gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float64),
        action_space=gymnasium.spaces.Box(-3, 3, (2,), np.float32),
        algorithm_name="random",
    )
    loaded = load_minari("theirs/test-v2")
    expected = {key: torch.from_numpy(np.concatenate([given[key] for given in episodes])) for key in episodes[0]}
    last = loaded.start[1:] - 1
    expected["trunc"][last] = ~expected["term"][last]  # an episode cut in the middle counts as truncated
    for field in ("obs", "rew", "next_obs", "term", "trunc"):
        assert torch.equal(getattr(loaded, field), expected[field]), field
    torch.testing.assert_close(loaded.act, expected["act"])
    assert loaded.lengths.tolist() == [3, 4, 5, 6] * 3
    assert loaded.info["algorithm_name"] == "random"


def remove(key: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        with h5py.File(folder / DATA, "r+") as file:
            del file[key]

    return change


def put(key: str, value: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        remove(key)(folder)
        with h5py.File(folder / DATA, "r+") as file:
            file[key] = value

    return change


def metadata(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        old = json.loads((folder / METADATA).read_text())
        (folder / METADATA).write_text(json.dumps(old | changes))

    return change


def text(name: Path, words: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_text(words)


def box(**changes: Any) -> str:
    return json.dumps({"type": "Box", "dtype": "float32", "shape": [2], "low": [-1, -1], "high": [1, 1]} | changes)


BROKEN: list[tuple[str, Callable[[Path], Any], str]] = [
    ("no metadata", lambda folder: (folder / METADATA).unlink(), "no such file, expected the metadata of a Minari"),
    ("no json", text(METADATA, "{"), "not readable as a JSON object"),
    ("list", text(METADATA, "[]"), "not readable as a JSON object"),
    ("arrow", metadata(data_format="arrow"), "data_format is 'arrow', expected 'hdf5'"),
    ("no space", metadata(action_space=None), "action_space is missing or damaged"),
    ("damaged space", metadata(observation_space="{"), "observation_space is missing or damaged"),
    ("discrete", metadata(action_space='{"type": "Discrete", "n": 3}'), "action_space is a Discrete of shape None"),
    ("image", metadata(observation_space=box(shape=[2, 2])), r"observation_space is a Box of shape \[2, 2\]"),
    ("half bounds", metadata(action_space=box(low=[-1])), "action_space has 1 lower and 2 upper bounds, expected 2"),
    ("unbounded", metadata(action_space=box(high=[1, float("inf")])), "expected finite bounds"),
    ("env_spec", metadata(env_spec="Hopper"), "env_spec is missing or damaged"),
    ("no HDF5", text(DATA, "x"), "not an HDF5 file"),
    ("no key", remove("episode_1/rewards"), "key 'episode_1/rewards' is missing"),
    (
        "no episodes",
        lambda folder: [remove(f"episode_{n}")(folder) for n in range(3)] and None,
        "has no episode_<number>",
    ),
    ("array", put("episode_1", [1.0]), "episode_1 is an array, expected a group"),
    (
        "T rows",
        put("episode_1/observations", np.zeros((3, 3))),
        r"episode_1/observations has shape \[3, 3\], expected \[4, 3\]",
    ),
    ("sizes", put("episode_1/actions", np.zeros((3, 5))), r"episode_1/actions has shape \[3, 5\], expected \[3, 2\]"),
    ("nan", put("episode_1/rewards", np.full(3, np.nan)), "rew is nan at row 5"),
    ("bounds", put("episode_1/actions", np.full((3, 2), 2.0)), "act is 2 at row 5"),
]


@pytest.mark.parametrize(("change", "message"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_broken_data_sets_are_told_in_one_sentence(
    datasets: Path, change: Callable[[Path], None], message: str
) -> None:
    folder = save_minari(dataset(), "test-v0")
    change(folder)
    with pytest.raises(InputError, match=message) as caught:
        load_minari("test-v0")
    assert str(caught.value).startswith(str(folder))
    assert "\n" not in str(caught.value)


def test_an_unknown_id() -> None:
    with pytest.raises(InputError, match="no such file, expected the metadata of a Minari data set"):
        load_minari("nothing-v0")


def test_empty_episodes_are_passed_over(datasets: Path) -> None:
    folder = save_minari(dataset(), "test-v0")
    for key, shape in {"observations": (1, 3), "actions": (0, 2)}.items():
        put(f"episode_1/{key}", np.zeros(shape))(folder)
    for key in ("rewards", "terminations", "truncations"):
        put(f"episode_1/{key}", np.zeros(0))(folder)
    assert load_minari("test-v0").lengths.tolist() == [5, 4]


def several_objectives() -> Dataset:
    given = arrays()
    return Dataset.from_arrays(**given | {"rew": np.stack([given["rew"]] * 2, 1)})


def jumping() -> Dataset:
    given = arrays()
    given["next_obs"][6] += 1
    return Dataset.from_arrays(**given, name="n")


@pytest.mark.parametrize(
    ("make", "dataset_id", "bounds", "message"),
    [
        (dataset, "test", {}, "Minari id 'test' is malformed"),
        (dataset, "../test-v0", {}, "Minari id '../test-v0' is malformed"),
        (several_objectives, "test-v0", {}, "has 2 rewards per step, expected one"),
        (jumping, "test-v0", {}, "next_obs at row 6 of n is not obs of row 7"),
        (dataset, "test-v0", {"act_low": 1.0}, "act_low is 1.0 and act_high is 1.0, expected low below high"),
        (dataset, "test-v0", {"act_high": [1.0, 1.0, 1.0]}, "act_high is .*, expected one finite number or 2"),
    ],
)
def test_save_refuses(
    datasets: Path, make: Callable[[], Dataset], dataset_id: str, bounds: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        save_minari(make(), dataset_id, **bounds)
    assert not list(datasets.iterdir())


def test_save_does_not_overwrite(datasets: Path) -> None:
    save_minari(dataset(), "test-v0")
    with pytest.raises(InputError, match="test-v0: exists already"):
        save_minari(dataset(seed=1), "test-v0")
    assert_same(load_minari("test-v0"), dataset())


def test_a_failed_write_leaves_nothing(datasets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(InputError, match=r"cannot be written \(No space left on device\)"):
        save_minari(dataset(), "test-v0")
    assert not list(datasets.iterdir())
