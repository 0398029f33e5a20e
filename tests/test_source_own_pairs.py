"""Members of one stack that learn from labelled pairs of their own: budgets and folds."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

import agents
from pbrl import loops, rng
from pbrl.data.source import Source
from pbrl.errors import InputError
from pbrl.members import sweep

from .test_source import KEYS, dataset, preferences

OWN = [torch.tensor([7]), torch.tensor([0, 11, 4]), torch.arange(12)]
BOTH = Source.of(dataset(), preferences())


def drawn(source: Source, keys: Tensor = KEYS, count: int = 600) -> Tensor:
    """[P, count] the pairs that were drawn: the label of pair i is i / 12."""
    return (source.draw({"pairs": count}, keys, 3)["pairs"].label * 12).round().long()


def test_members_draw_their_own_pairs_alone_and_equally_often() -> None:
    found = drawn(BOTH.with_pairs(OWN), count=6000)
    for mine, allowed in zip(found, OWN):
        assert torch.equal(mine.unique(), allowed.sort().values)
        counts = torch.bincount(mine, minlength=12)[allowed].double()
        expected = 6000 / len(allowed)
        assert ((counts - expected).abs() < 5 * expected**0.5).all()


def test_segments_belong_to_the_pairs() -> None:
    batch, asked = BOTH.with_pairs(OWN).draw({"pairs": 9}, KEYS, 5)["pairs"], preferences().pairs
    number = (batch.label * 12).round().long()
    for side, index in enumerate((asked.first, asked.second)):
        assert torch.equal(batch.obs[:, :, side], asked.segments.obs[index[number]])


def test_all_pairs_in_order_are_as_none_of_ones_own() -> None:
    assert torch.equal(drawn(BOTH.with_pairs([torch.arange(12)] * 3)), drawn(BOTH))


def test_a_member_draws_the_same_alone() -> None:
    together = drawn(BOTH.with_pairs(OWN))
    for place in range(3):
        alone = drawn(BOTH.with_pairs(OWN[place : place + 1]), KEYS[place : place + 1])
        assert torch.equal(together[place], alone[0])


@pytest.mark.parametrize("name", ["cpl", "p_iql"])
def test_a_member_with_a_budget_trains_as_alone(name: str) -> None:
    algorithm = agents.find(name)
    small = {"hidden": (8,), "reward_hidden": (8,), "batch_size": 8, "reward_batch_size": 4, "bc_updates": 3}
    small |= {"reward_updates": 3, "warmup": 2}
    fields = {field.name for field in dataclasses.fields(algorithm.config)}
    config = algorithm.config(**{key: value for key, value in small.items() if key in fields})
    answers = [preferences(), preferences(), preferences(0.25)]
    members = sweep(config, [0, 1, 0], dtype=torch.float64)

    def trained(chosen: list[int]) -> dict[str, Tensor]:
        learner = algorithm.make(dataset().spec, members.take(chosen))
        source = Source.of(dataset(), [answers[i] for i in chosen], dtype=torch.float64)
        for _ in loops.offline(learner, source.with_pairs([OWN[i] for i in chosen]), 8, every=8):
            pass
        assert isinstance(learner, torch.nn.Module)
        return dict(learner.named_parameters())

    together = trained([0, 1, 2])
    for place in range(3):
        for key, alone in trained([place]).items():
            torch.testing.assert_close(together[key][place], alone[0], rtol=0, atol=1e-9)


def test_a_budget_matters() -> None:
    few, many = Source.of(dataset(), preferences()).with_pairs(OWN[:1]), Source.of(dataset(), preferences())
    assert not torch.equal(drawn(few, KEYS[:1]), drawn(many, KEYS[:1]))


def test_users_need_the_same_pairs_for_all() -> None:
    with pytest.raises(InputError, match="cannot be drawn by user"):
        BOTH.with_pairs(OWN).by_user(2)


def test_keys_of_the_members_decide() -> None:
    source = BOTH.with_pairs([torch.arange(12)] * 3)
    assert not torch.equal(drawn(source), drawn(source, rng.keys([5, 6, 7])))
