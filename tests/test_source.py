"""Batches: a draw depends on the member's key and the update alone, and brings what belongs together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pbrl import rng
from pbrl.data import Dataset, Pairs, Preferences, Segments
from pbrl.data.preferences import By
from pbrl.data.source import Batch, Source, Wants
from pbrl.errors import InputError

COUNT = 40
WANTS: Wants = {"transitions": 7, "pairs": 5}
KEYS = rng.keys([0, 1, 2])


def dataset(obs_size: int = 3) -> Dataset:
    """Rows whose numbers tell which row they are: obs = 100 row + column, next_obs 0.5 more, reward = row."""
    row = torch.arange(float(COUNT))
    obs = 100 * row[:, None] + torch.arange(float(obs_size))
    act = torch.stack([row, -row], dim=1) / COUNT
    end = torch.arange(COUNT) % 10 == 9
    term = end & (torch.arange(COUNT) % 20 == 19)
    return Dataset.from_arrays(obs, act, row, term, end & ~term, obs + 0.5, name="rows")


def preferences(label: float | None = None, who: str = "a test") -> Preferences:
    """12 pairs of 4-step segments; without a label, that of pair i is i / 12."""
    segments = Segments.sample(dataset(), 24, 4, rng.keys([9])[0])
    order = torch.arange(24)
    labels = torch.arange(12) / 12 if label is None else torch.full((12,), label)
    return Preferences(Pairs(segments, order[:12], order[12:].flip(0)), labels, By(who))


BOTH = Source.of(dataset(), preferences())


def flat(batch: Batch) -> list[Tensor]:
    """All tensors of a batch."""
    return [value for part in batch.values() for value in vars(part).values() if value is not None]


def drawn_rows(source: Source, update: int = 0, count: int = 500) -> Tensor:
    """[P, count] the rows that were drawn."""
    steps = source.draw({"transitions": count}, KEYS, update)["transitions"]
    return (steps.obs[..., 0] / 100).round().long()


# --- what belongs together --------------------------------------------------------------------------------------------


def test_transitions_are_rows_of_the_data_set() -> None:
    steps = BOTH.draw(WANTS, KEYS, 3)["transitions"]
    row = (steps.obs[..., 0] / 100).long()
    data = dataset()
    assert row.shape == (3, 7)
    for found, column in (
        (steps.obs, data.obs),
        (steps.act, data.act),
        (steps.rew, data.rew),
        (steps.next_obs, data.next_obs),
        (steps.term, data.term.float()),
    ):
        assert torch.equal(found, column[row])


def test_pairs_bring_their_segments_and_label() -> None:
    batch = BOTH.draw(WANTS, KEYS, 3)["pairs"]
    answers = preferences()
    asked = answers.pairs
    number = (batch.label * 12).round().long()
    assert batch.obs.shape == (3, 5, 2, 4, 3)
    for side, index in enumerate((asked.first, asked.second)):
        assert torch.equal(batch.obs[:, :, side], asked.segments.obs[index[number]])
        assert torch.equal(batch.act[:, :, side], asked.segments.act[index[number]])


def test_only_what_is_wanted_is_drawn() -> None:
    assert set(BOTH.draw({"pairs": 2}, KEYS, 0)) == {"pairs"}
    assert set(BOTH.draw({"transitions": 2}, KEYS, 0)) == {"transitions"}


def test_batches_have_the_sources_dtype() -> None:
    batch = Source.of(dataset(), preferences(), dtype=torch.float64).draw(WANTS, KEYS, 0)
    assert {tensor.dtype for tensor in flat(batch)} == {torch.float64}


# --- what a draw depends on -------------------------------------------------------------------------------------------


def test_a_member_draws_the_same_alone_and_whatever_was_drawn_before() -> None:
    together = BOTH.draw(WANTS, KEYS, 8)
    for place in range(3):
        alone = BOTH.draw(WANTS, KEYS[place : place + 1], 8)
        for ours, lone in zip(flat(together), flat(alone), strict=True):
            assert torch.equal(ours[place], lone[0])


def test_draws_of_one_kind_do_not_depend_on_the_other() -> None:
    alone = BOTH.draw({"pairs": 5}, KEYS, 8)["pairs"]
    assert torch.equal(alone.label, BOTH.draw(WANTS, KEYS, 8)["pairs"].label)


def test_draws_of_two_kinds_are_independent() -> None:
    batch = BOTH.draw({"transitions": 3000, "pairs": 3000}, KEYS, 8)
    for row, label in zip(batch["transitions"].rew, batch["pairs"].label):
        assert abs(float(torch.corrcoef(torch.stack([row, label]))[0, 1])) < 5 / 3000**0.5


@pytest.mark.parametrize("other", [(KEYS, 9), (KEYS + 1, 8), (KEYS.flip(0), 8)])
def test_another_key_or_update_draws_others(other: tuple[Tensor, int]) -> None:
    for ours, theirs in zip(flat(BOTH.draw(WANTS, KEYS, 8)), flat(BOTH.draw(WANTS, *other)), strict=True):
        assert ours.shape == theirs.shape
    assert not torch.equal(drawn_rows(BOTH, 8)[0], BOTH.draw({"transitions": 500}, *other)["transitions"].rew[0].long())


def test_all_rows_and_pairs_are_drawn_equally_often() -> None:
    counts = torch.bincount(drawn_rows(BOTH, count=20_000).flatten(), minlength=COUNT).double()
    assert ((counts - 1500).abs() < 5 * 1500**0.5).all()
    label = BOTH.draw({"pairs": 4000}, KEYS, 0)["pairs"].label
    counts = torch.bincount((label * 12).round().long().flatten(), minlength=12).double()
    assert ((counts - 1000).abs() < 5 * 1000**0.5).all()


# --- each member's own ------------------------------------------------------------------------------------------------


def test_members_may_have_rewards_of_their_own() -> None:
    own = torch.arange(COUNT) + 1000.0 * torch.arange(3)[:, None]
    source = BOTH.with_reward(own)
    steps = source.draw(WANTS, KEYS, 0)["transitions"]
    plain = BOTH.draw(WANTS, KEYS, 0)["transitions"]
    assert torch.equal(steps.rew, plain.rew + 1000.0 * torch.arange(3)[:, None])
    assert torch.equal(steps.obs, plain.obs)
    everyone = BOTH.with_reward(own[2]).draw(WANTS, KEYS, 0)["transitions"]
    assert torch.equal(everyone.rew, plain.rew + 2000.0)


def test_members_may_have_labels_of_their_own() -> None:
    own = Source.of(dataset(), [preferences(), preferences(0.25), preferences(1.0)])
    batch, plain = own.draw(WANTS, KEYS, 0)["pairs"], BOTH.draw(WANTS, KEYS, 0)["pairs"]
    assert torch.equal(batch.obs, plain.obs)
    assert torch.equal(batch.label[0], plain.label[0])
    assert batch.label[1:].tolist() == [[0.25] * 5, [1.0] * 5]


def test_members_may_draw_from_rows_of_their_own() -> None:
    own = [torch.tensor([3]), torch.tensor([0, 39]), torch.arange(10, 30)]
    row = drawn_rows(BOTH.with_rows(own))
    for found, allowed in zip(row, own):
        assert torch.equal(found.unique(), allowed)
    counts = torch.bincount(row[2], minlength=COUNT)[10:30].double()
    assert ((counts - 25).abs() < 5 * 25**0.5).all()


def test_few_rows_are_looked_up_for_several_updates_at_once_and_many_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = torch.arange(COUNT) + 1000.0 * torch.arange(3)[:, None]
    source = BOTH.with_rows([torch.arange(10), torch.arange(5, 30), torch.arange(COUNT)]).with_reward(own)
    updates = (3, 17, 16, 15, 3)
    few = [source.draw({"transitions": 7}, KEYS, update) for update in updates]
    monkeypatch.setattr("pbrl.data.source._AT_ONCE", 0)
    for batch, update in zip(few, updates):
        for one, other in zip(flat(batch), flat(source.draw({"transitions": 7}, KEYS, update)), strict=True):
            assert torch.equal(one, other)
        rows = (batch["transitions"].obs[..., 0] / 100).round()
        assert torch.equal(batch["transitions"].rew, rows + 1000.0 * torch.arange(3)[:, None])


# --- what is refused --------------------------------------------------------------------------------------------------


def other_pairs() -> Preferences:
    one = preferences(1.0, "the other")
    return dataclasses.replace(one, pairs=dataclasses.replace(one.pairs, first=one.pairs.first.flip(0)))


def other_segments() -> Preferences:
    one = preferences(1.0, "the other")
    segments = dataclasses.replace(one.pairs.segments, obs=one.pairs.segments.obs + 1)
    return dataclasses.replace(one, pairs=dataclasses.replace(one.pairs, segments=segments))


def other_actions() -> Dataset:
    return dataclasses.replace(dataset(), act=dataset().act[:, :1])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Source.of(), "nothing to learn from"),
        (lambda: Source.of(preferences=preferences(0.5)), "tie"),
        (lambda: Source.of(preferences=preferences(1.5)), r"label"),
        (lambda: Source.of(preferences=[preferences(), other_pairs()]), "by the other and by a test answer different"),
        (lambda: Source.of(preferences=[preferences(), other_segments()]), "answer different pairs"),
        (lambda: Source.of(dataset(4), preferences()), "observations of 3 numbers, expected 4 as rows has"),
        (lambda: Source.of(other_actions(), preferences()), "actions of 2 numbers, expected 1 as rows has"),
        (lambda: Source.of(dataset().with_reward(torch.zeros(COUNT, 2))), "2 rewards per step, expected one"),
        (lambda: Source.of(dataset()).draw({"pairs": 1}, KEYS, 0), "expected preferences and not a data set alone"),
        (
            lambda: Source.of(preferences=preferences()).draw({"transitions": 1}, KEYS, 0),
            "expected a data set and not preferences alone",
        ),
    ],
)
def test_what_cannot_be_learned_from_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_preferences_alone_are_enough_for_pairs() -> None:
    assert Source.of(preferences=preferences()).draw({"pairs": 5}, KEYS, 3)["pairs"].obs.shape == (3, 5, 2, 4, 3)
