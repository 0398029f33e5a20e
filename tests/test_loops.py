"""The offline loop: what it averages, when it prepares, and that it goes on where it stopped."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import agents
from pbrl import rng
from pbrl.agent import Count, Metrics
from pbrl.data import Pairs
from pbrl.data.source import Batch, Source, Wants
from pbrl.labelers.teachers import partial_return_labeler
from pbrl.loops import diverged, offline
from pbrl.members import sweep

from .data_cases import dataset


class Counting(nn.Module):
    """A learner that reports its count of updates, and every third time a second metric."""

    keys: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("keys", rng.keys([0, 1]))
        self.count = Count()
        self.seen: list[Tensor] = []

    @property
    def updates(self) -> int:
        return self.count.value

    def wants(self) -> Wants:
        return {"transitions": 3}

    def update(self, batch: Batch) -> Metrics:
        self.count.value += 1
        self.seen.append(batch["transitions"].rew)
        number = float(self.count.value)
        metrics = {"number": torch.tensor([number, 10 * number])}
        return metrics if self.count.value % 3 else {**metrics, "third": torch.tensor([number, -number])}


class InStages(Counting):
    """The same in stages, each of which replaces the rewards by its number."""

    def __init__(self, boundaries: tuple[int, ...]) -> None:
        super().__init__()
        self.boundaries = boundaries
        self.prepared: list[int] = []

    def prepare(self, source: Source) -> Source:
        assert source is SOURCE  # always the whole data, not what another stage made of them
        self.prepared.append(self.updates)
        assert source.rew is not None
        return source.with_reward(torch.full_like(source.rew, float(self.updates)))


SOURCE = Source.of(dataset())


def run(learner: Counting, updates: int, every: int) -> list[dict[str, list[float]]]:
    return [{name: value.tolist() for name, value in m.items()} for m in offline(learner, SOURCE, updates, every=every)]


# --- metrics ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("updates", "every", "numbers"),
    [
        (6, 2, [1.5, 3.5, 5.5]),
        (5, 2, [1.5, 3.5, 5.0]),  # the rest at the end
        (3, 10, [2.0]),
        (3, 1, [1.0, 2.0, 3.0]),
        (0, 1, []),
    ],
)
def test_metrics_are_means_since_the_last_yield(updates: int, every: int, numbers: list[float]) -> None:
    assert [m["number"] for m in run(Counting(), updates, every)] == [[n, 10 * n] for n in numbers]


def test_a_metric_is_averaged_over_the_updates_that_reported_it() -> None:
    history = run(Counting(), 8, 4)
    assert history[0]["third"] == [3.0, -3.0]
    assert history[1]["third"] == [6.0, -6.0]
    assert "third" not in run(Counting(), 2, 2)[0]


def test_reported_tensors_are_not_changed() -> None:
    """A learner may report one of its own tensors: the sums are the loop's."""
    learner = Counting()
    own = torch.ones(2)

    def update(batch: Batch) -> Metrics:
        learner.count.value += 1
        return {"own": own}

    learner.update = update  # type: ignore[method-assign]
    assert run(learner, 4, 4) == [{"own": [1.0, 1.0]}]
    assert own.tolist() == [1.0, 1.0]


def test_each_update_gets_the_draw_of_its_number() -> None:
    learner = Counting()
    run(learner, 5, 5)
    for number, rew in enumerate(learner.seen):
        assert torch.equal(rew, SOURCE.draw({"transitions": 3}, learner.keys, number)["transitions"].rew)


def test_a_trained_learner_is_left_alone() -> None:
    learner = Counting()
    run(learner, 5, 5)
    assert run(learner, 5, 1) == []
    assert learner.updates == 5


# --- stages -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("boundaries", "prepared"),
    [((), [0]), ((3,), [0, 3]), ((2, 5), [0, 2, 5]), ((0,), [0]), ((3, 3), [0, 3]), ((100,), [0])],
)
def test_data_are_prepared_at_each_boundary(boundaries: tuple[int, ...], prepared: list[int]) -> None:
    learner = InStages(boundaries)
    run(learner, 8, 3)
    assert learner.prepared == prepared
    since = [max(p for p in prepared if p <= update) for update in range(8)]
    assert [float(rew.mean()) for rew in learner.seen] == [float(s) for s in since]


@pytest.mark.parametrize(("stop", "prepared"), [(1, [1, 3]), (3, [3]), (5, [5])])
def test_data_are_prepared_again_after_a_resume(stop: int, prepared: list[int]) -> None:
    first, second = InStages((3,)), InStages((3,))
    run(first, stop, 1)
    second.load_state_dict(first.state_dict())
    run(second, 8, 1)
    assert second.prepared == prepared


# --- resume -----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Resumable:
    """An agent with two stages and dropout, in a few weights."""

    name: str
    settings: dict[str, Any]

    def make(self) -> Callable[[], Any]:
        algorithm = agents.find(self.name)
        return lambda: algorithm.make(
            dataset((8,) * 6, "xxxxxx").spec, sweep(algorithm.config(**self.settings), [0, 1], {"lr": [0.01, 0.02]})
        )


@pytest.mark.parametrize(
    "case",
    [
        Resumable("cpl_kl", {"hidden": (8,), "batch_size": 4, "bc_updates": 4, "warmup": 3}),
        Resumable(
            "p_iql", {"hidden": (8,), "batch_size": 4, "reward_updates": 4, "reward_hidden": (8,), "dropout": 0.25}
        ),
    ],
    ids=lambda case: case.name,
)
@pytest.mark.parametrize("stop", [2, 4, 6])
def test_resumed_at_a_yield_the_bits_are_those_of_an_uninterrupted_run(case: Resumable, stop: int) -> None:
    data = dataset((8,) * 6, "xxxxxx")
    key = rng.keys([3])[0]
    source = Source.of(data, partial_return_labeler()(Pairs.sample(data, 20, 4, key), key))
    make = case.make()
    whole, first, second = make(), make(), make()
    expected = list(offline(whole, source, 10, every=2))
    found = list(offline(first, source, stop, every=2))
    second.load_state_dict({name: value.clone() for name, value in first.state_dict().items()})
    found += list(offline(second, source, 10, every=2))
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    for name, value in whole.state_dict().items():
        assert torch.equal(second.state_dict()[name], value), name


# --- divergence -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "lost"),
    [([0.0, 0.0, 0.0], []), ([0.0, float("nan"), 0.0], [1]), ([float("inf"), 0.0, -float("inf")], [0, 2])],
)
def test_diverged_names_the_members_with_a_weight_that_is_not_finite(values: list[float], lost: list[int]) -> None:
    net = nn.Module()
    net.healthy = nn.Parameter(torch.zeros(3, 4))
    weight = torch.zeros(3, 2, 2)
    weight[:, 1, 0] = torch.tensor(values)
    net.weight = nn.Parameter(weight)
    assert diverged(net, 3) == lost
