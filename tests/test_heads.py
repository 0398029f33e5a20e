"""Heads against torch.distributions: densities, samples, modes; and policies: how heads are read off a network."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch import distributions as D

from pbrl import rng
from pbrl.nets.heads import Categorical, Deterministic, Gaussian, Kind, StackedPolicy, TanhGaussian

DOUBLE = torch.float64
KEY = rng.keys([21])[0]
MANY = 100_000


def normal(word: str, *shape: int) -> Tensor:
    return rng.normal(rng.fold(KEY, word), *shape, dtype=DOUBLE)


MEAN = normal("mean", 2, 5, 3).tanh()
LOG_STD = 0.3 * normal("std", 2, 1, 3) - 0.5  # broadcast over the batch, as a state-independent one is
ACT = normal("act", 2, 5, 3).tanh()


def wide(*values: float) -> Tensor:
    """[1, MANY, len(values)]: the same parameters in every row."""
    return torch.tensor(values, dtype=DOUBLE).expand(1, MANY, -1)


def assert_moments(drawn: Tensor, mean: Tensor, variance: Tensor) -> None:
    """The first two moments over MANY rows, within five standard errors (bounded actions: fourth moment <= 1)."""
    error = 5.0 * variance.clamp_min(1e-4).sqrt() / MANY**0.5
    assert ((drawn.mean(1) - mean).abs() <= error).all()
    assert ((drawn.var(1) - variance).abs() <= 5.0 * drawn.pow(2).var(1).sqrt() / MANY**0.5 + 1e-3 * variance).all()


# --- densities --------------------------------------------------------------------------------------------------------


def test_gaussian_density_is_torchs() -> None:
    expected = D.Normal(MEAN, LOG_STD.exp()).log_prob(ACT).sum(-1)
    torch.testing.assert_close(Gaussian(MEAN, LOG_STD).log_prob(ACT), expected, rtol=1e-12, atol=1e-12)


def test_gaussian_entropy_is_torchs() -> None:
    expected = D.Normal(MEAN, LOG_STD.exp().expand_as(MEAN)).entropy().sum(-1)
    torch.testing.assert_close(Gaussian(MEAN, LOG_STD).entropy(), expected, rtol=1e-12, atol=1e-12)


def squashed(mean: Tensor, log_std: Tensor) -> D.TransformedDistribution:
    return D.TransformedDistribution(D.Normal(mean, log_std.exp()), [D.TanhTransform(cache_size=1)])


def test_tanh_gaussian_density_is_torchs() -> None:
    expected = squashed(MEAN, LOG_STD).log_prob(ACT).sum(-1)
    torch.testing.assert_close(TanhGaussian(MEAN, LOG_STD).log_prob(ACT), expected, rtol=1e-10, atol=1e-10)


def test_tanh_gaussian_density_of_its_own_samples_is_torchs() -> None:
    act, log_prob = TanhGaussian(MEAN, LOG_STD).sample_with_log_prob(rng.keys([0, 1]))
    torch.testing.assert_close(log_prob, squashed(MEAN, LOG_STD).log_prob(act).sum(-1), rtol=1e-8, atol=1e-8)
    assert torch.equal(act, TanhGaussian(MEAN, LOG_STD).sample(rng.keys([0, 1])))


@pytest.mark.parametrize("mean", [-30.0, 30.0])
def test_tanh_gaussian_density_is_finite_where_tanh_rounds_to_one(mean: float) -> None:
    head = TanhGaussian(torch.full((1, 1, 1), mean, requires_grad=True), torch.zeros(1, 1, 1))
    act, log_prob = head.sample_with_log_prob(rng.keys([0]))
    assert act.abs().item() == 1.0
    assert log_prob.isfinite().all()
    assert torch.autograd.grad(log_prob.sum(), head.mean)[0].isfinite().all()
    assert head.log_prob(torch.sign(act)).isfinite().all()


def test_deterministic_density_is_the_squared_distance() -> None:
    head = Deterministic(torch.tensor([[[0.5, -0.5]]]))
    assert head.log_prob(torch.tensor([[[0.0, 0.5]]])).tolist() == [[-1.25]]


def test_deterministic_density_is_a_gaussian_of_variance_one_half_up_to_a_constant() -> None:
    gaussian = Gaussian(MEAN, torch.full_like(LOG_STD, 0.5 * math.log(0.5)))
    gap = gaussian.log_prob(ACT) - Deterministic(MEAN).log_prob(ACT)
    torch.testing.assert_close(gap, gap[0, 0].expand_as(gap), rtol=1e-12, atol=1e-12)


def test_categorical_density_and_entropy_are_torchs() -> None:
    logits, act = normal("logits", 2, 5, 4), rng.indices(rng.keys([0, 1]), 5, 4)
    expected = D.Categorical(logits=logits)
    torch.testing.assert_close(Categorical(logits).log_prob(act), expected.log_prob(act), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(Categorical(logits).entropy(), expected.entropy(), rtol=1e-12, atol=1e-12)


# --- samples and modes ------------------------------------------------------------------------------------------------


def test_gaussian_samples() -> None:
    mean, log_std = wide(0.1, -0.2), wide(math.log(0.1), math.log(0.05))
    drawn = Gaussian(mean, log_std).sample(rng.keys([0]))
    assert_moments(drawn, mean[:, 0], log_std[:, 0].exp().square())


def test_gaussian_samples_and_mode_are_clipped() -> None:
    head = Gaussian(wide(0.9, -1.5), wide(0.0, 0.0))
    drawn = head.sample(rng.keys([0]))
    assert (float(drawn.min()), float(drawn.max())) == (-1.0, 1.0)
    assert head.mode()[0, 0].tolist() == [0.9, -1.0]


def test_tanh_gaussian_samples() -> None:
    head = TanhGaussian(wide(0.3, -1.0), wide(-0.5, 0.5))
    drawn = head.sample(rng.keys([0]))
    # Moments of tanh of a normal by Gauss-Hermite quadrature: an independent way to the same numbers.

    nodes, weights = (torch.from_numpy(x) for x in np.polynomial.hermite_e.hermegauss(120))
    value = torch.tanh(head.mean[0, 0, :, None] + head.log_std[0, 0, :, None].exp() * nodes)
    mean = (value * weights).sum(-1) / weights.sum()
    variance = (value.square() * weights).sum(-1) / weights.sum() - mean.square()
    assert_moments(drawn, mean[None], variance[None])
    torch.testing.assert_close(head.mode()[0, 0], torch.tensor([0.3, -1.0], dtype=DOUBLE).tanh())


def test_tanh_gaussian_samples_follow_the_parameters() -> None:
    """Samples are differentiable: the reparameterisation trick."""
    mean = torch.zeros(1, 4, 2, dtype=DOUBLE, requires_grad=True)
    act, _ = TanhGaussian(mean, torch.zeros_like(mean)).sample_with_log_prob(rng.keys([0]))
    slope = torch.autograd.grad(act.sum(), mean)[0]
    torch.testing.assert_close(slope, 1.0 - act.detach().square())


def test_deterministic_samples() -> None:
    mean = wide(0.0)
    inside = Deterministic(mean).sample(rng.keys([0]))
    noise = rng.normal(rng.keys([0]), MANY, 1, dtype=DOUBLE) * 0.5**0.5
    torch.testing.assert_close(inside, noise.clamp(-1.0, 1.0))
    assert torch.equal(Deterministic(mean).mode(), mean)


def test_categorical_samples() -> None:
    logits = torch.tensor([0.0, 1.0, -2.0, 3.0], dtype=DOUBLE).expand(1, MANY, -1)
    drawn = Categorical(logits).sample(rng.keys([0]))
    counts = torch.bincount(drawn[0], minlength=4)
    p = logits[0, 0].softmax(-1)
    assert ((counts - MANY * p).abs() <= 5.0 * (MANY * p * (1 - p)).sqrt()).all()
    assert Categorical(logits).mode()[0, 0] == 3


@pytest.mark.parametrize("kind", [Gaussian, TanhGaussian, Deterministic])
def test_a_members_sample_is_its_own(kind: type[Any]) -> None:
    parameters = (MEAN,) if kind is Deterministic else (MEAN, LOG_STD)
    together = kind(*parameters).sample(rng.keys([4, 5]))
    alone = kind(*(x[1:] for x in parameters)).sample(rng.keys([5]))
    torch.testing.assert_close(together[1:], alone, rtol=1e-12, atol=1e-12)
    assert not torch.equal(together[1:], kind(*(x[1:] for x in parameters)).sample(rng.keys([6])))


# --- policies ---------------------------------------------------------------------------------------------------------


def policy(kind: Kind, **settings: Any) -> StackedPolicy:
    return StackedPolicy(rng.keys([0, 1]), 3, 2, kind=kind, hidden=(8,), dtype=DOUBLE, **settings)


OBS = normal("obs", 2, 5, 3)


def test_deterministic_policy_is_tanh_of_its_net() -> None:
    made = policy("deterministic")
    head = made(OBS)
    assert isinstance(head, Deterministic)
    torch.testing.assert_close(head.mean, torch.tanh(made.net(OBS)))


def test_gaussian_policy_has_a_state_independent_deviation_in_bounds() -> None:
    made = policy("gaussian")
    assert made.log_std is not None
    with torch.no_grad():
        made.log_std.copy_(torch.tensor([[[-9.0, 0.5]], [[1.0, 9.0]]]))
    head = made(OBS)
    assert isinstance(head, Gaussian)
    torch.testing.assert_close(head.mean, torch.tanh(made.net(OBS)))
    assert head.log_std.tolist() == [[[-5.0, 0.5]], [[1.0, 2.0]]]


def test_tanh_gaussian_policy_reads_mean_and_deviation_off_its_net() -> None:
    made = policy("tanh_gaussian")
    with torch.no_grad():
        made.net.get_parameter("layers.1.bias")[0, 0] = torch.tensor([0.0, 0.0, 99.0, -99.0], dtype=DOUBLE)
    head = made(OBS)
    assert isinstance(head, TanhGaussian)
    out = made.net(OBS)
    assert out.shape == (2, 5, 4)
    assert torch.equal(head.mean, out[..., :2])
    assert (head.log_std[0, :, 0] == 2.0).all()
    assert (head.log_std[0, :, 1] == -20.0).all()
    assert torch.equal(head.log_std[1], out[1, :, 2:])


@pytest.mark.parametrize("kind", ["deterministic", "gaussian", "tanh_gaussian"])
def test_choose_is_the_mode_or_a_sample_without_gradient_or_dropout(kind: Kind) -> None:
    made = policy(kind, dropout=torch.tensor([0.5, 0.5]))
    assert torch.equal(made.choose(OBS), made(OBS).mode())
    assert torch.equal(made.choose(OBS, rng.keys([2, 3])), made(OBS).sample(rng.keys([2, 3])))
    assert not made.choose(OBS).requires_grad
    assert not torch.equal(made(OBS, rng.keys([2, 3])).mode(), made(OBS).mode())  # a key in forward means dropout
