"""Slopes of networks: those of autograd, and trainable."""

from __future__ import annotations

import pytest
import torch

from pbrl import rng
from pbrl.nets.mlp import StackedMLP
from pbrl.nets.slopes import value_and_slope

DOUBLE = torch.float64
KEYS = rng.keys([1, 2])


@pytest.mark.parametrize("hidden", [(), (5,), (6, 7, 5)])
@pytest.mark.parametrize("ensemble", [None, 3])
def test_values_slopes_and_their_gradients_are_autograds(hidden: tuple[int, ...], ensemble: int | None) -> None:
    net = StackedMLP(KEYS, (4, *hidden, 1), ensemble=ensemble, dtype=DOUBLE)
    x = rng.normal(KEYS, 9, 4, dtype=DOUBLE)
    own = x if ensemble is None else x.unsqueeze(1).expand(-1, ensemble, -1, -1)
    own = own.clone().requires_grad_()
    y = net(own).squeeze(-1)
    (expected,) = torch.autograd.grad(y.sum(), [own], create_graph=True)
    value, slope = value_and_slope(net, x)
    torch.testing.assert_close(value, y, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(slope, expected, rtol=1e-12, atol=1e-12)
    weights = [p for p in net.parameters() if p.dim() > 1][::2]
    pairs = [torch.autograd.grad(s.pow(3).sum(), weights) for s in (slope, expected)]
    for ours, theirs in zip(*pairs, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
