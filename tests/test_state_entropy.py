"""k-nearest-neighbour state entropy: against scipy's tree, and against what it estimates."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import special
from scipy.spatial import cKDTree
from torch import Tensor

from pbrl import rng
from pbrl.asking.state_entropy import RunningScale, nearest, state_entropy

DOUBLE = torch.float64


def gaussian(members: int, count: int, size: int) -> Tensor:
    return rng.normal(rng.fold(rng.keys(range(members)), "states"), count, size, dtype=DOUBLE)


@pytest.mark.parametrize("rows", [3, 64, 1000])
@pytest.mark.parametrize("k", [1, 5])
def test_it_is_the_trees_kth_neighbour_whatever_the_chunks(k: int, rows: int) -> None:
    states = gaussian(3, 200, 4)
    found = state_entropy(states[:, 20:60], states, k, rows=rows)
    for member in range(3):
        distance, _ = cKDTree(states[member].numpy()).query(states[member, 20:60].numpy(), k=k + 1)
        np.testing.assert_allclose(found[member].numpy(), np.log(distance[:, -1]), rtol=1e-12)


def test_the_slope_in_log_sigma_is_one() -> None:
    """E[log d_k] of a Gaussian with deviation sigma is log sigma plus a constant."""
    states = gaussian(1, 2000, 2)
    sigma = torch.tensor([0.01, 0.1, 1.0, 10.0], dtype=DOUBLE)
    mean = state_entropy(sigma[:, None, None] * states, sigma[:, None, None] * states, 5).mean(1)
    slope = np.polyfit(np.log(sigma.numpy()), mean.numpy(), 1)[0]
    assert slope == pytest.approx(1.0, abs=1e-9)


def test_it_estimates_the_entropy_of_a_gaussian() -> None:
    """Kozachenko & Leonenko: H = digamma(N) - digamma(k) + log(pi) + 2 E[log d_k] in the plane; here log(2 pi e)."""
    count, k = 4000, 5
    mean = float(state_entropy(gaussian(1, count, 2), gaussian(1, count, 2), k).mean())
    estimate = special.digamma(count) - special.digamma(k) + math.log(math.pi) + 2.0 * mean
    assert estimate == pytest.approx(math.log(2.0 * math.pi * math.e), abs=0.05)


def test_the_new_is_worth_more_than_the_known() -> None:
    crowd = 0.1 * gaussian(1, 50, 2)
    states = torch.cat([crowd, torch.tensor([[[3.0, 3.0]]], dtype=DOUBLE)], dim=1)
    reward = state_entropy(states, states, 5)[0]
    assert int(reward.argmax()) == 50


def test_copies_of_a_state_are_worth_little_and_finite() -> None:
    states = torch.zeros(1, 9, 2, dtype=DOUBLE)
    assert state_entropy(states, states, 5).tolist() == [[math.log(1e-6)] * 9]


def test_fewer_states_than_neighbours() -> None:
    states = torch.tensor([[[0.0], [1.0], [5.0]]], dtype=DOUBLE)
    assert nearest(states, states, 6).tolist() == [[5.0, 4.0, 5.0]]


def test_members_are_their_own() -> None:
    states = gaussian(4, 300, 3).float()
    together = state_entropy(states[:, :32], states, 5)
    for member in range(4):
        row = slice(member, member + 1)
        assert torch.equal(together[row], state_entropy(states[row, :32], states[row], 5))


def test_the_running_scale_is_the_deviation_of_all_that_was_seen() -> None:
    seen = torch.tensor([1.0, 10.0], dtype=DOUBLE)[:, None] * gaussian(2, 100, 1).squeeze(-1) + 1e3
    scale = RunningScale(2)
    assert scale.std.tolist() == [1.0, 1.0]
    for first, last in ((0, 7), (7, 8), (8, 100)):
        given = scale(seen[:, first:last])
        std = seen[:, :last].std(1, correction=0)
        torch.testing.assert_close(scale.std, std, rtol=1e-9, atol=0.0)
        torch.testing.assert_close(given, seen[:, first:last] / std[:, None])


def test_the_running_scale_is_saved_and_survives_what_does_not_vary() -> None:
    scale = RunningScale(2)
    assert torch.equal(scale(torch.full((2, 4), 3.0)), torch.full((2, 4), 3.0))
    scale(gaussian(2, 10, 1).squeeze(-1))
    other = RunningScale(2)
    other.load_state_dict(scale.state_dict())
    x = gaussian(2, 5, 1).squeeze(-1)
    assert torch.equal(scale(x), other(x))
