"""Pairs drawn user by user, and transitions with numbers of their own; answers that keep their users."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from pbrl import rng
from pbrl.data import Preferences, load_human
from pbrl.data.source import Source
from pbrl.errors import InputError

from .test_source import COUNT, KEYS, dataset, preferences

USER = torch.tensor([7, 3, 7, 7, 3, 9, 9, 9, 3, 7, 9, 7])
"""Who answered the twelve pairs: 3 three, 7 five and 9 four of them."""


def told() -> Preferences:
    return dataclasses.replace(preferences(), user=USER)


def numbers(source: Source, count: int, update: int = 0) -> torch.Tensor:
    """[P, count] which pairs were drawn: their labels are i / 12."""
    return (source.draw({"pairs": count}, KEYS, update)["pairs"].label * 12).round().long()


def test_a_group_is_one_users_and_has_no_pair_twice() -> None:
    drawn = numbers(Source.of(dataset(), told()).by_user(3), 3000).unflatten(1, (1000, 3))
    users = USER[drawn]
    assert (users == users[..., :1]).all()
    assert (
        (drawn[..., 0] != drawn[..., 1]) & (drawn[..., 1] != drawn[..., 2]) & (drawn[..., 0] != drawn[..., 2])
    ).all()


def test_users_and_their_pairs_are_equally_likely_at_every_place_of_a_group() -> None:
    drawn = numbers(Source.of(dataset(), told()).by_user(3), 9000).unflatten(1, (3000, 3)).flatten(0, 1)
    for place in range(3):
        counts = torch.bincount(drawn[:, place], minlength=12).numpy()
        answered = np.array([int((user == USER).sum()) for user in USER])
        assert stats.chisquare(counts, 9000 / 3 / answered).pvalue > 1e-4
    sets = drawn[USER[drawn[:, 0]] == 7].sort(dim=1).values
    _, counts = sets.unique(dim=0, return_counts=True)
    assert len(counts) == 10, "three of five pairs can be chosen in ten ways"
    assert stats.chisquare(counts.numpy()).pvalue > 1e-4


def test_groups_depend_on_key_and_update_alone() -> None:
    source = Source.of(dataset(), told()).by_user(3)
    whole = numbers(source, 12, 5)
    source.draw({"pairs": 6}, KEYS, 40)
    alone = source.draw({"pairs": 12}, KEYS[1:2], 5)["pairs"].label
    assert torch.equal((alone[0] * 12).round().long(), whole[1])
    assert not torch.equal(numbers(source, 12, 6), whole)


def test_nobody_told_apart_is_one_user() -> None:
    drawn = numbers(Source.of(dataset(), preferences()).by_user(12), 12)
    assert torch.equal(drawn.sort(dim=1).values, torch.arange(12).expand(3, -1))


def test_a_user_with_too_few_answers_is_named() -> None:
    with pytest.raises(InputError, match="user 3 has answered 3 pairs, expected at least 4"):
        Source.of(dataset(), told()).by_user(4)
    with pytest.raises(InputError, match="expected preferences and not a data set alone"):
        Source.of(dataset()).by_user(1)


def test_members_must_agree_on_who_answered() -> None:
    other = dataclasses.replace(told(), user=USER.flip(0))
    for one in (other, preferences()):
        with pytest.raises(InputError, match="answer different pairs"):
            Source.of(dataset(), [told(), one, told()])


def test_pairs_bring_the_state_after_each_segment_and_whether_it_ended_there() -> None:
    batch = Source.of(dataset(), preferences()).draw({"pairs": 200}, KEYS, 0)["pairs"]
    assert batch.last_obs is not None
    assert batch.term is not None
    assert torch.equal(batch.last_obs, batch.obs[..., -1, :] + 0.5)
    last_row = (batch.obs[..., -1, 0] / 100).round().long()
    assert torch.equal(batch.term, dataset().term[last_row].float())
    assert batch.term.any()
    assert not batch.term.all()
    human = dataclasses.replace(preferences().pairs.segments, last_obs=None, term=None)
    pairs = dataclasses.replace(preferences().pairs, segments=human)
    silent = Source.of(preferences=dataclasses.replace(preferences(), pairs=pairs)).draw({"pairs": 2}, KEYS, 0)["pairs"]
    assert silent.last_obs is None
    assert silent.term is None


def test_context_follows_both_observations_of_a_transition() -> None:
    plain = Source.of(dataset())
    context = torch.arange(3.0 * 4 * 2).reshape(3, 4, 2)
    group = torch.arange(COUNT) // 10
    ours = plain.with_context(context, group).draw({"transitions": 50}, KEYS, 1)["transitions"]
    theirs = plain.draw({"transitions": 50}, KEYS, 1)["transitions"]
    expected = torch.stack([context[p][group[theirs.rew[p].long()]] for p in range(3)])
    assert torch.equal(ours.obs, torch.cat([theirs.obs, expected], dim=-1))
    assert torch.equal(ours.next_obs, torch.cat([theirs.next_obs, expected], dim=-1))
    assert torch.equal(ours.act, theirs.act)


def test_users_stay_with_their_answers(tmp_path: Path) -> None:
    answers = told()
    answers.save(tmp_path / "crowd.hdf5")
    loaded = Preferences.load(tmp_path / "crowd.hdf5")
    assert loaded.user is not None
    assert torch.equal(loaded.user, USER)
    index = torch.tensor([4, 0, 11])
    for part in (answers.take(index), loaded.to("cpu").take(index)):
        assert part.user is not None
        assert part.user.tolist() == [3, 7, 7]
    for side in answers.split(0.3, rng.keys([1])[0]):
        assert side.user is not None
        assert torch.equal(side.user, USER[(side.label * 12).round().long()])
    preferences().save(tmp_path / "one.hdf5")
    assert Preferences.load(tmp_path / "one.hdf5").user is None
    with pytest.raises(InputError, match=r"user has shape \[3\], expected \[12\]"):
        dataclasses.replace(answers, user=USER[:3]).check()


def test_human_files_may_name_users(tmp_path: Path) -> None:
    arrays: dict[str, Any] = {"obs_1": np.zeros((3, 2, 1)), "obs_2": np.ones((3, 2, 1))}
    arrays |= {"action_1": np.zeros((3, 2, 1)), "action_2": np.zeros((3, 2, 1)), "label": np.array([0.0, 1.0, 0.5])}
    np.savez(tmp_path / "anonymous.npz", **arrays)
    assert load_human(tmp_path / "anonymous.npz").user is None
    np.savez(tmp_path / "named.npz", **arrays, user=np.array([4, 4, 2]))
    user = load_human(tmp_path / "named.npz").user
    assert user is not None
    assert user.tolist() == [4, 4, 2]
    np.savez(tmp_path / "wrong.npz", **arrays, user=np.array([4.0, 4.0, 2.0]))
    with pytest.raises(InputError, match="user has dtype float64, expected integers"):
        load_human(tmp_path / "wrong.npz")
