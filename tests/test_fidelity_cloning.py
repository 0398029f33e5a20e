"""BC, SFT and percentile BC: closed forms, and the cases in which one is the other."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from agents.offline.bc import BC, BCConfig
from agents.offline.percent_bc import PercentBC, PercentBCConfig
from agents.preference.sft import SFT, SFTConfig
from pbrl import rng
from pbrl.data import Dataset, Pairs
from pbrl.data.source import LabelledPairs, Source, Transitions
from pbrl.labelers.teachers import partial_return_labeler
from pbrl.loops import offline
from pbrl.members import sweep
from pbrl.nets.heads import Kind
from pbrl.spec import Spec

DOUBLE = torch.float64


def source(lengths: tuple[int, ...] = (8,) * 6, reward: Tensor | None = None) -> Source:
    """Episodes of these lengths with pairs of 4-step segments."""
    key = rng.keys([50])[0]
    count = sum(lengths)
    obs, act = rng.normal(rng.fold(key, "obs"), count, 3), 2 * rng.uniform(rng.fold(key, "act"), count, 2) - 1
    trunc = torch.zeros(count, dtype=torch.bool)
    trunc[torch.tensor(lengths).cumsum(0) - 1] = True
    rew = act.sum(1) if reward is None else reward
    data = Dataset.from_arrays(obs, act, rew, torch.zeros(count, dtype=torch.bool), trunc, obs + 1)
    pairs = Pairs.sample(data, 30, 4, rng.fold(key, "pairs"))
    return Source.of(data, partial_return_labeler()(pairs, key))


# --- SFT --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["deterministic", "gaussian", "tanh_gaussian"])
def test_sft_of_ties_is_bc_of_the_pairs_bit_for_bit(head: Kind) -> None:
    """Batch and segment are powers of two, so that the order in which means are taken does not matter."""
    settings: dict[str, Any] = {"lr": 1e-2, "dropout": 0.25, "hidden": (16, 16), "batch_size": 8, "head": head}
    data = source()
    assert data.label is not None
    ties = dataclasses.replace(data, label=torch.full_like(data.label, 0.5))
    sft = SFT(Spec("test", 3, 2), sweep(SFTConfig(**settings, bc_updates=5, init="uniform"), [0, 1]))
    bc = BC(Spec("test", 3, 2), sweep(BCConfig(**settings, on="pairs"), [0, 1]))
    for learner in (sft, bc):
        assert len(list(offline(learner, ties, 20, every=10))) == 2
    for ours, theirs in zip(sft.policy.parameters(), bc.policy.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    for _ in offline(sft, data, 21, every=1):  # with the real labels they part
        pass
    for _ in offline(bc, data, 21, every=1):
        pass
    assert not torch.equal(
        sft.policy.net.get_parameter("layers.0.weight"), bc.policy.net.get_parameter("layers.0.weight")
    )


def bandit(label: list[float]) -> LabelledPairs:
    """Two one-hot states, four pairs of one step each; both segments of a pair are in the same state."""
    state = torch.eye(2, dtype=DOUBLE)[[0, 0, 1, 1]]
    obs = state[None, :, None, None].expand(1, 4, 2, 1, 2)
    act = torch.tensor([[0.1, 0.5], [-0.3, 0.3], [-0.6, 0.2], [0.4, -0.2]], dtype=DOUBLE)
    return LabelledPairs(obs, act[None, :, :, None, None], torch.tensor([label], dtype=DOUBLE))


@pytest.mark.parametrize(
    ("bc_updates", "label", "expected"),
    [
        (0, [1.0, 1.0, 0.0, 0.0], [(0.5 + 0.3) / 2, (-0.6 + 0.4) / 2]),
        (0, [1.0, 0.0, 0.5, 1.0], [(0.5 - 0.3) / 2, (-0.6 + 0.2 - 0.2) / 3]),  # both segments of the tie
        (0, [0.9, 0.2, 0.0, 1.0], [(0.5 - 0.3) / 2, (-0.6 - 0.2) / 2]),  # probabilities count as their likelier side
        (10**6, [1.0, 1.0, 0.0, 0.0], [(0.1 + 0.5 - 0.3 + 0.3) / 4, (-0.6 + 0.2 + 0.4 - 0.2) / 4]),  # first stage: all
    ],
)
def test_sft_on_a_bandit_is_the_mean_of_the_preferred_actions(
    bc_updates: int, label: list[float], expected: list[float]
) -> None:
    config = SFTConfig(hidden=(), dropout=0.0, lr=0.01, bc_updates=bc_updates, batch_size=4)
    learner = SFT(Spec("bandit", 2, 1), sweep(config, [0], dtype=DOUBLE))
    for _ in range(1500):
        learner.update({"pairs": bandit(label)})
    found = learner.act(torch.eye(2, dtype=DOUBLE)[None])[0, :, 0]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=DOUBLE), rtol=0.0, atol=1e-4)


# --- BC ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on", ["transitions", "pairs"])
def test_bc_on_a_bandit_is_the_mean_of_all_actions(on: Any) -> None:
    learner = BC(Spec("bandit", 2, 1), sweep(BCConfig(hidden=(), lr=0.01, on=on), [0], dtype=DOUBLE))
    pairs = bandit([1.0] * 4)
    obs, act = pairs.obs.flatten(1, 3), pairs.act.flatten(1, 3)
    steps = Transitions(obs, act, torch.zeros(1, 8), obs, torch.zeros(1, 8))
    for _ in range(1500):
        learner.update({"pairs": pairs} if on == "pairs" else {"transitions": steps})
    found = learner.act(torch.eye(2, dtype=DOUBLE)[None])[0, :, 0]
    torch.testing.assert_close(found, torch.tensor([0.15, -0.05], dtype=DOUBLE), rtol=0.0, atol=1e-4)


def test_bcs_loss_is_the_mean_log_likelihood() -> None:
    learner = BC(Spec("test", 3, 2), sweep(BCConfig(hidden=(8,), head="gaussian", batch_size=4), [0, 1]))
    batch = source().draw(learner.wants(), learner.keys, 0)
    steps = batch["transitions"]
    expected = -learner.policy(steps.obs).log_prob(steps.act).mean(1).detach()
    torch.testing.assert_close(learner.update(batch)["loss"], expected)


# --- percentile BC ----------------------------------------------------------------------------------------------------


def rows(percents: list[float], lengths: tuple[int, ...], returns: list[float]) -> list[list[int]]:
    """The rows that members with these percentages may draw."""
    reward = torch.cat([torch.full((n,), total / n) for n, total in zip(lengths, returns)])
    members = sweep(PercentBCConfig(hidden=(4,)), [0], {"percent": percents})
    prepared = PercentBC(Spec("test", 3, 2), members).prepare(source(lengths, reward))
    assert prepared.rows is not None
    assert prepared.counts is not None
    return [row[:count].tolist() for row, count in zip(prepared.rows, prepared.counts)]


@pytest.mark.parametrize(
    ("percent", "expected"),
    [
        (1.0, range(12, 16)),  # at least one episode
        (20.0, range(12, 16)),  # 4 of 20 rows are just enough
        (21.0, [*range(4), *range(12, 16)]),
        (40.0, [*range(4), *range(12, 16)]),
        (41.0, [*range(4), *range(12, 20)]),
        (100.0, range(20)),
    ],
)
def test_percent_bc_takes_the_best_episodes_until_they_hold_the_share(percent: float, expected: Any) -> None:
    """Returns 5, -2, 9, 4: the best are rows 12-15, then 0-3, then 16-19, then 4-11."""
    assert rows([percent], (4, 8, 4, 4), [5.0, -2.0, 9.0, 4.0]) == [list(expected)]


def test_percent_bc_counts_rows_without_rounding_errors() -> None:
    """7 / 100 * 100 is 7.000000000000001 in floating point, which would take an eighth row."""
    returns = [float(i) for i in range(25)]
    assert rows([4.0 * k for k in range(1, 26)], (4,) * 25, returns) == [
        list(range(100 - 4 * k, 100)) for k in range(1, 26)
    ]
    assert rows([0.1 * k for k in range(1, 4)], (4,) * 1000, [float(i) for i in range(1000)]) == [
        list(range(4000 - 4 * k, 4000)) for k in range(1, 4)
    ]


def test_percent_bc_ranks_by_return_and_not_by_mean_reward() -> None:
    assert rows([50.0], (4, 12, 8), [4.0, 9.0, 5.0]) == [list(range(4, 16))]


def test_members_of_percent_bc_clone_different_shares() -> None:
    best, everything = rows([10.0, 100.0], (4, 8, 4, 4), [5.0, -2.0, 9.0, 4.0])
    assert best == list(range(12, 16))
    assert everything == list(range(20))


def test_percent_bc_of_everything_is_bc() -> None:
    settings: dict[str, Any] = {"hidden": (8,), "batch_size": 8, "lr": 1e-2}
    whole = PercentBC(Spec("test", 3, 2), sweep(PercentBCConfig(**settings, percent=100.0), [0]))
    bc = BC(Spec("test", 3, 2), sweep(BCConfig(**settings), [0]))
    for learner in (whole, bc):
        for _ in offline(learner, source(), 10, every=10):
            pass
    for ours, theirs in zip(whole.policy.parameters(), bc.policy.parameters(), strict=True):
        assert torch.equal(ours, theirs)
