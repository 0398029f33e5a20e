"""Windows end anywhere, never cross the beginning of an episode, and depend on the member and the update alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pbrl import rng
from pbrl.data.source import Source
from pbrl.errors import InputError

from .test_source import dataset, preferences

KEYS = rng.keys([0, 1, 2])
LENGTH = 4


def rows(obs: Tensor) -> Tensor:
    """The rows of the data set that ``test_source.dataset`` wrote into the observations."""
    return (obs[..., 0] / 100).round().long()


def test_a_window_is_the_last_steps_of_its_history() -> None:
    data = dataset()
    source = Source.of(data, preferences()).with_windows(LENGTH)
    batch = source.draw({"windows": 400}, KEYS, 3)["windows"]
    assert batch.rew is not None
    assert batch.obs.shape == (3, 400, LENGTH, 3)
    assert batch.act.shape == (3, 400, LENGTH, 2)
    last = rows(batch.obs[:, :, -1])
    steps = last.unsqueeze(-1) + torch.arange(1 - LENGTH, 1)
    inside = steps >= (last - last % 10).unsqueeze(-1)  # episodes have ten steps
    assert torch.equal(batch.present, inside)
    for found, column in ((batch.obs, data.obs), (batch.act, data.act), (batch.rew.unsqueeze(-1), data.rew[:, None])):
        expected = torch.where(inside.unsqueeze(-1), column[steps.clamp(min=0)], torch.zeros(()))
        assert torch.equal(found, expected)
    assert set(last.flatten().tolist()) == set(range(len(data))), "every row is the end of some window"
    assert set(batch.present.sum(-1).flatten().tolist()) == {1, 2, 3, 4}


def test_windows_of_a_member_do_not_depend_on_the_others_and_change_with_the_update() -> None:
    source = Source.of(dataset()).with_windows(LENGTH)
    together = source.draw({"windows": 6, "transitions": 4}, KEYS, 5)["windows"]
    alone = source.draw({"windows": 6}, KEYS[1:2], 5)["windows"]
    assert torch.equal(together.obs[1], alone.obs[0])
    assert not torch.equal(together.obs[0], together.obs[1])
    assert not torch.equal(source.draw({"windows": 6}, KEYS, 6)["windows"].obs, together.obs)
    assert torch.equal(source.draw({"windows": 6}, KEYS, 5)["windows"].obs, together.obs)


def test_members_own_rewards_and_rows_reach_windows() -> None:
    data = dataset()
    own = torch.stack([data.rew + 1000 * i for i in range(3)])
    chosen = [torch.tensor([13, 27]), torch.tensor([0]), torch.arange(40)]
    source = Source.of(data).with_windows(LENGTH).with_reward(own).with_rows(chosen)
    batch = source.draw({"windows": 50}, KEYS, 0)["windows"]
    assert batch.rew is not None
    last = rows(batch.obs[:, :, -1])
    assert set(last[0].tolist()) == {13, 27}
    assert set(last[1].tolist()) == {0}
    expected = (rows(batch.obs) + 1000 * torch.arange(3).reshape(3, 1, 1)) * batch.present
    assert torch.equal(batch.rew, expected.float())


def test_without_a_data_set_windows_come_from_the_labelled_segments() -> None:
    answers = preferences()
    segments = answers.pairs.segments  # of four steps
    source = Source.of(preferences=answers).with_windows(3)
    batch = source.draw({"windows": 300}, KEYS, 0)["windows"]
    assert batch.rew is None
    last, known = rows(batch.obs[:, :, -1]), {tuple(row.tolist()) for row in rows(segments.obs)}
    windows = {
        tuple(window[there].tolist())
        for window, there in zip(rows(batch.obs).flatten(0, 1), batch.present.flatten(0, 1))
    }
    cuts = {row[max(0, end - 2) : end + 1] for row in known for end in range(4)}
    assert windows == cuts, "windows stay inside one segment, and every cut of every segment comes"
    assert last.shape == (3, 300)


def test_who_has_not_prepared_its_data_is_told_so() -> None:
    with pytest.raises(InputError, match="windows without having said how long"):
        Source.of(dataset()).draw({"windows": 2}, KEYS, 0)
