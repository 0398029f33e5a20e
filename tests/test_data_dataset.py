import re
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from pbrl.data import Dataset
from pbrl.errors import InputError

from .data_cases import Arrays, arrays, dataset


def put(key: str, index: Any, value: Any) -> Callable[[Arrays], None]:
    def change(given: Arrays) -> None:
        given[key][index] = value

    return change


def replace(**values: Any) -> Callable[[Arrays], None]:
    return lambda given: given.update(values)


BAD: list[tuple[str, Callable[[Arrays], None], str]] = [
    ("nan", put("obs", (7, 1), np.nan), "obs is nan at row 7, expected finite numbers"),
    ("inf", put("act", (2, 0), np.inf), "act is inf at row 2, expected finite"),
    ("nan reward", put("rew", 3, np.nan), "rew is nan at row 3, expected finite"),
    ("nan successor", put("next_obs", (4, 2), -np.inf), "next_obs is -inf at row 4, expected finite"),
    ("beyond float32", replace(rew=np.full(12, 1e300)), "rew is inf at row 0, expected finite"),
    ("obs axes", replace(obs=np.zeros(12)), r"obs has shape \[12\], expected 2 axes"),
    ("rew axes", replace(rew=np.ones((12, 1, 1))), r"rew has shape \[12, 1, 1\], expected 1 or 2 axes"),
    ("act rows", replace(act=np.zeros((11, 2))), "act has 11 rows, expected 12 as obs has"),
    ("rew rows", replace(rew=np.ones(13)), "rew has 13 rows, expected 12 as obs has"),
    ("act columns", replace(act=np.zeros((12, 0))), r"act has shape \[12, 0\], expected at least one column"),
    ("term rows", replace(term=np.zeros(5, bool)), r"term has shape \[5\], expected \[12\]"),
    ("trunc column", replace(trunc=np.zeros((12, 1), bool)), r"trunc has shape \[12, 1\], expected \[12\]"),
    ("next_obs columns", replace(next_obs=np.zeros((12, 4))), r"next_obs has shape \[12, 4\], expected \[12, 3\]"),
    ("act bounds", put("act", (6, 1), 1.01), r"act is 1.01 at row 6, expected \[-1, 1\]: rescale"),
    ("both flags", put("trunc", 4, True), "term and trunc are both set at row 4, expected one"),
    ("float term", replace(term=np.zeros(12)), "term has dtype float64, expected bool"),
    ("int trunc", replace(trunc=np.zeros(12, np.int32)), "trunc has dtype int32, expected bool"),
    ("zero rewards", replace(rew=np.zeros(12)), "rew is 0 in all 12 rows, expected at least one"),
    ("words", replace(obs=np.array([["a"] * 3] * 12)), "obs is not a rectangular array of numbers"),
    ("ragged", replace(act=[[0.0, 1.0], [0.0]]), "act is not a rectangular array of numbers"),
    ("objects", replace(rew=np.array([None] * 12)), "rew is not a rectangular array of numbers"),
    ("empty", replace(obs=np.zeros((0, 3))), "obs has no rows, expected at least one"),
]


@pytest.mark.parametrize(("change", "message"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_bad_arrays_are_told_in_one_sentence(change: Callable[[Arrays], None], message: str) -> None:
    given = arrays()
    change(given)
    with pytest.raises(InputError, match=message) as caught:
        Dataset.from_arrays(**given)
    assert "\n" not in str(caught.value)


def test_good_arrays_are_kept_and_split_into_episodes() -> None:
    given = arrays()
    data = Dataset.from_arrays(**given, name="n", env="e", info={"horizon": 9})
    for field, value in given.items():
        assert torch.equal(getattr(data, field), torch.from_numpy(value)), field
    assert data.start.tolist() == [0, 5, 8]
    assert data.lengths.tolist() == [5, 3, 4]
    assert len(data) == 12
    sums = [given["rew"][rows].astype(np.float64).sum() for rows in (slice(0, 5), slice(5, 8), slice(8, 12))]
    torch.testing.assert_close(data.episode_returns(), torch.tensor(sums, dtype=torch.float32))


def test_the_callers_arrays_may_change_afterwards() -> None:
    given = arrays()
    data = Dataset.from_arrays(**given)
    before = data.obs.clone()
    given["obs"][:] = 7
    assert torch.equal(data.obs, before)


def test_lists_tensors_and_columns_are_accepted() -> None:
    given = arrays()
    data = Dataset.from_arrays(
        given["obs"].tolist(),
        torch.from_numpy(given["act"]),
        given["rew"][:, None].astype(np.float64),
        given["term"].tolist(),
        torch.from_numpy(given["trunc"]),
        given["next_obs"],
    )
    assert data.rew.shape == (12,)
    assert data.fingerprint == Dataset.from_arrays(**given).fingerprint


def test_actions_within_the_tolerance_are_clipped() -> None:
    given = arrays()
    given["act"][3] = [1 + 9e-5, -1 - 9e-5]
    assert Dataset.from_arrays(**given).act[3].tolist() == [1.0, -1.0]


@pytest.mark.parametrize(
    ("ends", "kept", "term", "trunc"),
    [
        # The terminal episode keeps its 5 rows, the truncated and the cut one lose their last.
        ("tx.", [0, 1, 2, 3, 4, 5, 6, 8, 9, 10], [4], [6]),
        ("xtt", [0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11], [6, 10], [3]),
        ("xxx", [0, 1, 2, 3, 5, 6, 8, 9, 10], [], [3, 5, 8]),
    ],
)
def test_successors_are_shifted_within_episodes(ends: str, kept: list[int], term: list[int], trunc: list[int]) -> None:
    given = arrays(ends=ends)
    true_next = torch.from_numpy(given.pop("next_obs"))[kept]
    data = Dataset.from_arrays(**given)
    assert torch.equal(data.obs, torch.from_numpy(given["obs"])[kept])
    assert data.term.nonzero().squeeze(1).tolist() == term
    assert data.trunc.nonzero().squeeze(1).tolist() == trunc
    inner = ~data.term
    assert torch.equal(data.next_obs[inner], true_next[inner])
    assert torch.equal(data.next_obs[data.term], data.obs[data.term])


def test_an_episode_of_one_truncated_row_vanishes_without_successors() -> None:
    given = arrays((2, 1, 3), "txt")
    del given["next_obs"]
    data = Dataset.from_arrays(**given)
    assert data.lengths.tolist() == [2, 3]
    assert not data.trunc.any()


def test_no_row_with_a_successor_is_an_error() -> None:
    given = arrays((1, 1), "xx")
    del given["next_obs"]
    with pytest.raises(InputError, match="none of the 2 rows has a successor"):
        Dataset.from_arrays(**given)


def test_spec_tells_sizes_and_statistics() -> None:
    data = dataset(name="local/x/y-v1", env="X-v5", info={"horizon": 9})
    spec = data.spec
    assert (spec.name, spec.obs_size, spec.act_size, spec.horizon) == ("local/x/y-v1@X-v5", 3, 2, 9)
    np.testing.assert_allclose(spec.obs_mean or (), data.obs.numpy().mean(0), atol=1e-6)
    np.testing.assert_allclose(spec.obs_std or (), data.obs.numpy().std(0), atol=1e-6)
    assert spec.objectives == 1
    assert dataset().spec.horizon is None


def test_several_objectives() -> None:
    given = arrays()
    given["rew"] = np.stack([given["rew"], 2 * given["rew"]], 1)
    data = Dataset.from_arrays(**given)
    assert data.spec.objectives == 2
    torch.testing.assert_close(data.episode_returns()[:, 1], 2 * dataset().episode_returns())
    assert "; min" in data.describe()


def test_fingerprint_is_of_the_contents_alone() -> None:
    one = dataset()
    assert re.fullmatch("[0-9a-f]{16}", one.fingerprint)
    assert one.fingerprint == dataset(name="other", info={"a": 1}).fingerprint
    for field, value in arrays().items():
        changed = arrays()
        changed[field][0] = ~value[0] if value.dtype == bool else 0.5
        if field in ("term", "trunc"):
            changed["term" if field == "trunc" else "trunc"][0] = False
        assert Dataset.from_arrays(**changed).fingerprint != one.fingerprint, field


@pytest.mark.parametrize(
    ("keep", "rows", "trunc"),
    [
        (torch.tensor([1]), [5, 6, 7], [2]),
        (torch.tensor([True, False, True]), [0, 1, 2, 3, 4, 8, 9, 10, 11], []),
        # The cut episode comes first: its last row must be marked, or it would run on into the next episode.
        (torch.tensor([2, 0]), [8, 9, 10, 11, 0, 1, 2, 3, 4], [3]),
    ],
)
def test_rows_takes_whole_episodes(keep: torch.Tensor, rows: list[int], trunc: list[int]) -> None:
    data = dataset()
    part = data.rows(keep)
    for field in ("obs", "act", "rew", "next_obs", "term"):
        assert torch.equal(getattr(part, field), getattr(data, field)[rows]), field
    assert part.trunc.nonzero().squeeze(1).tolist() == trunc
    same = Dataset.from_arrays(part.obs, part.act, part.rew, part.term, part.trunc, part.next_obs)
    assert same.start.tolist() == part.start.tolist()
    assert data.trunc.nonzero().squeeze(1).tolist() == [7]


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (torch.tensor([3]), "keep has indices 3 to 3, expected 0 to 2"),
        (torch.tensor([-1, 0]), "keep has indices -1 to 0, expected 0 to 2"),
        (torch.tensor([], dtype=torch.long), "keep selects no episode"),
        (torch.tensor([False] * 3), "keep selects no episode"),
        (torch.tensor([True] * 12), r"keep has shape \[12\], expected \[3\]"),
    ],
)
def test_rows_refuses(keep: torch.Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        dataset().rows(keep)


def test_with_reward() -> None:
    data = dataset()
    other = data.with_reward(torch.zeros(12, dtype=torch.float64))
    assert other.rew.dtype == torch.float32
    assert not other.rew.any()
    assert torch.equal(other.obs, data.obs)
    for rew, message in [
        (torch.zeros(3), "rew has 3 rows, expected 12"),
        (torch.full((12,), torch.nan), "rew is nan at row 0"),
        (torch.zeros(12, 1, 1), r"rew has shape \[12, 1, 1\]"),
    ]:
        with pytest.raises(InputError, match=message):
            data.with_reward(rew)


def test_to_moves_every_tensor() -> None:
    moved = dataset().to("meta")
    assert {getattr(moved, field).device.type for field in (*arrays(), "start")} == {"meta"}


def test_describe_is_a_table_of_what_matters() -> None:
    info = {
        "reference": [0, 10],
        "curve": list(range(99)),
        "parts": [{"policy": "poor", "mean_return": -42.24886379}, {"policy": "expert", "mean_return": 1.0}],
    }
    data = dataset(name="local/x/y-v1", env="X-v5", info=info)
    lines = dict(line.split("  ", 1) for line in data.describe().splitlines())
    table = {key.strip(): value.strip() for key, value in lines.items()}
    assert table["data set"] == "local/x/y-v1"
    assert table["transitions"] == "12"
    assert table["episodes"] == "3 (1 terminated, 1 truncated, 1 cut)"
    assert table["truncation rate"] == "33.3% of episodes"
    assert table["episode length"] == "min 3, mean 4, max 5"
    assert table["fingerprint"] == data.fingerprint
    assert table["info reference"] == "[0, 10]"
    assert table["info parts"] == "policy poor, mean_return -42.25; policy expert, mean_return 1"
    assert table["info curve"].startswith("[0, 1, 2,")
    assert table["info curve"].endswith(" ...")
    assert max(map(len, data.describe().splitlines())) < 120


def test_a_million_rows_load_in_seconds() -> None:
    count = 1_000_000
    term = torch.arange(count) % 700 == 699
    rew = torch.arange(count, dtype=torch.float32) % 7
    begin = time.process_time()
    data = Dataset.from_arrays(torch.zeros(count, 11), torch.zeros(count, 3), rew, term, torch.zeros_like(term))
    data.episode_returns()
    assert time.process_time() - begin < 5
    assert len(data.start) == 1429
