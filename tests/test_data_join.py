"""Data sets joined to one, and what was collected appended to what was there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from experiments import cli
from pbrl.data import Dataset, hdf5, registry
from pbrl.data.join import joined
from pbrl.errors import InputError
from tests.cli_cases import point_mass

from .data_cases import dataset


def test_all_episodes_in_order() -> None:
    one, two = dataset((5, 3), "tx", seed=0, name="one"), dataset((4, 2), "x.", seed=1, name="two")
    both = joined([one, two], "both")
    for field in ("obs", "act", "rew", "next_obs", "term", "trunc"):
        assert torch.equal(getattr(both, field), torch.cat([getattr(one, field), getattr(two, field)]))
    assert both.start.tolist() == [0, 5, 8, 12]
    assert both.lengths.tolist() == [5, 3, 4, 2]
    assert both.name == "both"
    assert [each["name"] for each in both.info["joined"]] == ["one", "two"]
    again = Dataset.from_arrays(both.obs, both.act, both.rew, both.term, both.trunc, both.next_obs)
    assert torch.equal(again.start, both.start)


def test_a_cut_recording_does_not_run_into_the_next() -> None:
    one, two = dataset((5, 3), "t.", seed=0), dataset((4,), "x", seed=1)
    both = joined([one, two], "both")
    assert both.trunc.nonzero().flatten().tolist() == [7, 11]
    assert one.trunc.nonzero().flatten().tolist() == []  # the original is as it was
    assert joined([two, one], "other").trunc.nonzero().flatten().tolist() == [3]


def test_what_does_not_fit_is_refused() -> None:
    one = dataset(name="one", env="A-v0")
    with pytest.raises(InputError, match="two is of B-v0, expected A-v0 as one is"):
        joined([one, dataset(name="two", env="B-v0")], "both")
    with pytest.raises(InputError, match=r"two has rew of shape \[2\], expected \[\] as one has"):
        joined([one, dataset(name="two", env="A-v0").with_reward(torch.ones(12, 2))], "both")
    with pytest.raises(InputError, match="no data sets to join"):
        joined([], "both")


def test_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PBRL_DATA_DIR", str(tmp_path / "kept"))
    first = point_mass(tmp_path)
    second = tmp_path / "more.hdf5"
    hdf5.save(hdf5.load(first), second)
    words = ["data", "join", str(first), str(second), "--name", "local/both-v1"]
    assert cli.main(words) == 0
    assert "240" in capsys.readouterr().out
    assert len(registry.load("local/both-v1")) == 240
    assert cli.main(words) == 2
    assert "exists already, expected another --name, or --overwrite" in capsys.readouterr().err
    assert cli.main([*words, "--overwrite"]) == 0
    assert cli.main(["data", "join", str(first)]) == 2
