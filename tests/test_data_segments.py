import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from pbrl import rng
from pbrl.data import Pairs, Segments
from pbrl.errors import InputError

from .data_cases import dataset

KEY = rng.keys([5])[0]


def test_a_segment_is_a_window_of_its_data_set() -> None:
    data = dataset(name="n")
    segments = Segments.sample(data, 50, 3, KEY)
    assert (len(segments), segments.length, segments.source) == (50, 3, "n")
    assert segments.fingerprint == data.fingerprint
    assert segments.rew is not None
    assert segments.last_obs is not None
    assert segments.term is not None
    for index, row in enumerate(segments.row.tolist()):
        assert torch.equal(segments.obs[index], data.obs[row : row + 3])
        assert torch.equal(segments.act[index], data.act[row : row + 3])
        assert torch.equal(segments.rew[index], data.rew[row : row + 3])
        assert torch.equal(segments.last_obs[index], data.next_obs[row + 2])
        assert segments.term[index] == data.term[row + 2]
    assert segments.term.any()
    assert not segments.term.all()


def test_all_valid_windows_are_equally_likely_and_no_others_come() -> None:
    data = dataset((5, 3, 1, 4, 2), "tx.t."[:2] + "xt.")
    segments = Segments.sample(data, 60_000, 3, KEY)
    rows, count = np.unique(segments.row.numpy(), return_counts=True)
    assert rows.tolist() == [0, 1, 2, 5, 9, 10]
    assert chisquare(count).pvalue > 1e-3


def test_same_key_same_segments() -> None:
    data = dataset()
    one, two, other = (Segments.sample(data, 40, 2, rng.keys([seed])[0]) for seed in (1, 1, 2))
    assert torch.equal(one.row, two.row)
    assert not torch.equal(one.row, other.row)


def test_take_and_to() -> None:
    segments = Segments.sample(dataset(), 10, 2, KEY)
    part = segments.take(torch.tensor([3, 1]))
    assert torch.equal(part.row, segments.row[[3, 1]])
    assert part.last_obs is not None
    assert segments.last_obs is not None
    assert torch.equal(part.last_obs, segments.last_obs[[3, 1]])
    assert segments.to("meta").act.device.type == "meta"


@pytest.mark.parametrize(
    ("count", "length", "message"),
    [
        (1, 6, "segment length is 6, expected at most 5, the longest episode of"),
        (1, 0, "segment length is 0, expected at least 1"),
        (0, 2, "count is 0, expected at least 1"),
    ],
)
def test_sample_refuses(count: int, length: int, message: str) -> None:
    for sample in (Segments.sample, Pairs.sample):
        with pytest.raises(InputError, match=message):
            sample(dataset(), count, length, KEY)


def test_sample_wants_one_key() -> None:
    with pytest.raises(InputError, match=r"key has shape \[2\], expected one key"):
        Segments.sample(dataset(), 1, 2, rng.keys([0, 1]))


@pytest.mark.parametrize("row", [3, 7, 10, -1, 12])
def test_at_refuses_windows_that_leave_their_episode(row: int) -> None:
    with pytest.raises(InputError, match=f"from row {row} leaves its episode"):
        Segments.at(dataset(), torch.tensor([0, row]), 3)


def test_pairs_are_of_different_windows_equally_likely() -> None:
    data = dataset()
    pairs = Pairs.sample(data, 30_000, 3, KEY)
    assert len(pairs) == 30_000
    assert torch.cat([pairs.first, pairs.second]).bincount().tolist() == [1] * 60_000
    rows = torch.stack([pairs.segments.row[pairs.first], pairs.segments.row[pairs.second]], 1)
    kinds, count = np.unique(rows.numpy(), axis=0, return_counts=True)
    assert len(kinds) == 6 * 5  # ordered pairs of the windows at rows 0, 1, 2, 5, 8, 9
    assert (kinds[:, 0] != kinds[:, 1]).all()
    assert chisquare(count).pvalue > 1e-3


def test_pairs_need_two_windows() -> None:
    with pytest.raises(InputError, match="has one window of 5 steps, expected at least two"):
        Pairs.sample(dataset(), 1, 5, KEY)


def test_pairs_take_keeps_only_the_segments_in_use() -> None:
    pairs = Pairs.sample(dataset(), 10, 2, KEY)
    part = pairs.take(torch.tensor([7, 2]))
    assert len(part.segments) == 4
    for side in ("first", "second"):
        rows = part.segments.row[getattr(part, side)]
        assert torch.equal(rows, pairs.segments.row[getattr(pairs, side)[[7, 2]]])
