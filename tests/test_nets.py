"""Stacked networks against torch.nn, one member and copy at a time."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pbrl import rng
from pbrl.compiler import available, compiled
from pbrl.nets.mlp import Activation, Init, Normalizer, StackedLinear, StackedMLP, dropout, freeze, linear
from pbrl.spec import Spec

DOUBLE = torch.float64
KEYS = rng.keys([0, 1, 2])
SIZES = (5, 16, 8, 2)
MODULES: dict[Activation, type[nn.Module]] = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "tanh": nn.Tanh}


def inputs(*shape: int) -> Tensor:
    return rng.normal(rng.fold(rng.keys([30])[0], "inputs"), *shape, dtype=DOUBLE)


def torch_mlp(stack: StackedMLP, *place: int) -> nn.Sequential:
    """The torch.nn network with the weights of one member (and copy)."""
    parts: list[nn.Module] = []
    for layer in stack.layers:
        assert isinstance(layer, StackedLinear)
        weight, bias = layer.weight.detach()[place], layer.bias.detach()[place]
        single = nn.Linear(weight.shape[0], weight.shape[1], dtype=DOUBLE)
        with torch.no_grad():
            single.weight.copy_(weight.T)
            single.bias.copy_(bias[0])
        parts += [single, MODULES[stack.activation]()]
    return nn.Sequential(*parts[:-1])


def gradients(stack: StackedMLP, *place: int) -> list[Tensor]:
    """One member's gradients, in the order and layout of its torch.nn network."""
    found = []
    for layer in stack.layers:
        assert isinstance(layer, StackedLinear)
        assert layer.weight.grad is not None
        assert layer.bias.grad is not None
        found += [layer.weight.grad[place].T, layer.bias.grad[place][0]]
    return found


def assert_gradients_like_torch(stack: StackedMLP, x: Tensor, *place: int) -> None:
    """The gradients of sum(out^2) on ``x`` [B, in] are those of torch.nn."""
    alone = torch_mlp(stack, *place)
    alone(x).square().sum().backward()
    for ours, theirs in zip(gradients(stack, *place), alone.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs.grad, rtol=1e-10, atol=1e-10)


ROWS = [1, 7, 1500]  # beyond 1024 rows a CPU takes one product per member


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("activation", MODULES)
def test_a_stack_is_a_loop_of_torch_networks(activation: Activation, rows: int) -> None:
    stack = StackedMLP(KEYS, SIZES, activation=activation, dtype=DOUBLE)
    x = inputs(3, rows, 5)
    out = stack(x)
    out.square().sum().backward()
    for member in range(3):
        torch.testing.assert_close(out[member], torch_mlp(stack, member)(x[member]), rtol=1e-10, atol=1e-10)
        assert_gradients_like_torch(stack, x[member], member)


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("shared_input", [True, False])
def test_an_ensemble_is_a_loop_over_its_copies(shared_input: bool, rows: int) -> None:
    stack = StackedMLP(KEYS, SIZES, ensemble=2, dtype=DOUBLE)
    x = inputs(3, rows, 5) if shared_input else inputs(3, 2, rows, 5)
    out = stack(x)
    assert out.shape == (3, 2, rows, 2)
    out.square().sum().backward()
    for member in range(3):
        for copy in range(2):
            row = x[member] if shared_input else x[member, copy]
            expected = torch_mlp(stack, member, copy)(row)
            torch.testing.assert_close(out[member, copy], expected, rtol=1e-10, atol=1e-10)
            assert_gradients_like_torch(stack, row, member, copy)


@pytest.mark.parametrize("rows", ROWS)
def test_the_gradient_of_the_input_is_torchs(rows: int) -> None:
    stack = StackedMLP(KEYS, SIZES, ensemble=2, dtype=DOUBLE)
    x = inputs(3, rows, 5).requires_grad_()
    ours = torch.autograd.grad(stack(x).square().sum(), x)[0]
    for member in range(3):
        theirs = sum(torch_mlp(stack, member, copy)(x[member]).square().sum() for copy in range(2))
        assert isinstance(theirs, Tensor)
        torch.testing.assert_close(ours[member], torch.autograd.grad(theirs, x)[0][member], rtol=1e-10, atol=1e-10)


def test_a_network_without_hidden_layers_is_linear() -> None:
    stack = StackedMLP(KEYS, (5, 2), dtype=DOUBLE)
    x = inputs(3, 4, 5)
    weight, bias = stack.get_parameter("layers.0.weight"), stack.get_parameter("layers.0.bias")
    torch.testing.assert_close(stack(x), x @ weight + bias)


@pytest.mark.parametrize("rows", ROWS)
def test_linear_keeps_all_leading_axes(rows: int) -> None:
    x, weight, bias = inputs(3, 2, rows, 5), inputs(3, 2, 5, 4), inputs(3, 2, 1, 4)
    torch.testing.assert_close(linear(x, weight, bias), x @ weight + bias)


# --- initial weights --------------------------------------------------------------------------------------------------


def wide(init: Init, **settings: Any) -> StackedLinear:
    made = StackedMLP(KEYS, (100, 200), init=init, dtype=DOUBLE, **settings).layers[0]
    assert isinstance(made, StackedLinear)
    return made


def test_uniform_weights_are_distributed_as_torchs() -> None:
    layer, reference = wide("uniform"), nn.Linear(100, 200)
    bound = 1.0 / math.sqrt(100)
    for name in ("weight", "bias"):
        ours, theirs = layer.get_parameter(name).detach(), reference.get_parameter(name).detach()
        assert float(ours.abs().max()) <= bound
        assert float(theirs.abs().max()) <= bound
        assert float(ours.abs().max()) > 0.98 * bound
        assert abs(float(ours.mean())) < 5 * bound / math.sqrt(3 * ours.numel())
        assert float(ours.std()) == pytest.approx(bound / math.sqrt(3), rel=0.05)


@pytest.mark.parametrize("sizes", [(20, 30), (30, 20), (20, 20), (3, 1)])
@pytest.mark.parametrize("ensemble", [None, 2])
@pytest.mark.parametrize("gain", [1.0, 1.5])
def test_orthogonal_weights_are_orthogonal(sizes: tuple[int, int], ensemble: int | None, gain: float) -> None:
    stack = StackedMLP(KEYS, sizes, ensemble=ensemble, init="orthogonal", gain=gain, dtype=DOUBLE)
    weight = stack.get_parameter("layers.0.weight")
    small = weight.mT @ weight if sizes[0] >= sizes[1] else weight @ weight.mT
    torch.testing.assert_close(small, gain**2 * torch.eye(min(sizes), dtype=DOUBLE).expand_as(small))
    assert not stack.get_parameter("layers.0.bias").any()


def test_orthogonal_weights_have_no_preferred_sign() -> None:
    """QR alone would give a biased diagonal; with the signs fixed the distribution is Haar's."""
    stack = StackedMLP(rng.keys(range(400)), (4, 4), init="orthogonal", dtype=DOUBLE)
    weight = stack.get_parameter("layers.0.weight").detach()
    for diagonal in weight.diagonal(dim1=-2, dim2=-1).T:
        assert abs(float(diagonal.mean())) < 5 * 0.5 / math.sqrt(400)  # entries have a variance of 1/4


def test_gain_scales_uniform_weights() -> None:
    torch.testing.assert_close(wide("uniform", gain=3.0).weight, 3.0 * wide("uniform").weight)


@pytest.mark.parametrize("init", ["uniform", "orthogonal"])
def test_weights_are_the_members_own(init: Init) -> None:
    together = StackedMLP(KEYS, SIZES, ensemble=2, init=init)
    alone = StackedMLP(KEYS[1:2], SIZES, ensemble=2, init=init)
    for name, weight in alone.named_parameters():
        assert torch.equal(together.get_parameter(name)[1:2], weight)
    for weight in (p for name, p in together.named_parameters() if name.endswith("weight")):
        assert len(weight.flatten(2).flatten(0, 1).unique(dim=0)) == 3 * 2  # members and copies all differ


# --- dropout ----------------------------------------------------------------------------------------------------------


def test_dropout_zeroes_its_share_and_keeps_the_mean() -> None:
    rate = torch.tensor([0.0, 0.25, 0.5], dtype=DOUBLE)
    out = dropout(torch.ones(3, 400, 500, dtype=DOUBLE), rate, KEYS)
    for member, share in enumerate(rate.tolist()):
        assert sorted(out[member].unique().tolist()) == ([1.0] if share == 0 else [0.0, 1.0 / (1.0 - share)])
        error = 5 * math.sqrt(share / (1 - share) / 200_000)
        assert float(out[member].mean()) == pytest.approx(1.0, abs=error + 1e-12)


def test_dropout_needs_a_key_and_a_rate() -> None:
    x = inputs(3, 7, 5)
    with_rate = StackedMLP(KEYS, SIZES, dropout=torch.tensor([0.5, 0.5, 0.0]), dtype=DOUBLE)
    without = StackedMLP(KEYS, SIZES, dtype=DOUBLE)
    assert torch.equal(with_rate(x), without(x))
    assert torch.equal(without(x, KEYS), without(x))
    dropped = with_rate(x, KEYS)
    assert not torch.equal(dropped[:2], without(x)[:2])
    assert torch.equal(dropped[2], without(x)[2])  # the member without dropout


def test_dropout_lies_between_a_hidden_layer_and_its_activation() -> None:
    stack = StackedMLP(KEYS, (5, 16, 2), activation="tanh", dropout=torch.full((3,), 0.25), dtype=DOUBLE)
    x = inputs(3, 7, 5)
    hidden = stack.layers[0](x)
    kept = rng.keep(rng.fold(KEYS, 0), 0.25, 7, 16)
    torch.testing.assert_close(stack(x, KEYS), stack.layers[1](torch.tanh(hidden * kept / 0.75)))


def test_masks_of_members_layers_and_keys_differ() -> None:
    ones, rate = torch.ones(3, 64, 64, dtype=DOUBLE), torch.full((3,), 0.5)
    first = dropout(ones, rate, rng.fold(KEYS, 0))
    for other in (dropout(ones, rate, rng.fold(KEYS, 1)), first.roll(1, 0)):
        assert (first == other).double().mean().item() == pytest.approx(0.5, abs=0.03)


# --- the rest ---------------------------------------------------------------------------------------------------------

SPEC = Spec("test", 2, 1, obs_mean=(1.0, -2.0), obs_std=(0.5, 4.0))


def test_normalizer_by_hand_for_the_members_that_want_it() -> None:
    normalizer = Normalizer(SPEC, torch.tensor([1.0, 0.0], dtype=DOUBLE))
    obs = inputs(2, 3, 4, 2)  # any axes between
    out = normalizer(obs)
    expected = (obs[0] - torch.tensor([1.0, -2.0], dtype=DOUBLE)) / torch.tensor([0.501, 4.001], dtype=DOUBLE)
    torch.testing.assert_close(out[0], expected, rtol=1e-12, atol=1e-12)
    assert torch.equal(out[1], obs[1])
    torch.testing.assert_close(normalizer(obs[:, 0])[0], expected[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("spec", "on"), [(SPEC, 0.0), (Spec("test", 2, 1), 1.0)])
def test_normalizer_without_wish_or_statistics_changes_nothing(spec: Spec, on: float) -> None:
    obs = inputs(2, 3, 2)
    torch.testing.assert_close(Normalizer(spec, torch.full((2,), on, dtype=DOUBLE))(obs), obs, rtol=1e-15, atol=1e-15)


def test_normalizer_is_saved() -> None:
    assert set(Normalizer(SPEC, torch.ones(2)).state_dict()) == {"mean", "scale"}


def test_freeze_stops_gradients() -> None:
    stack = freeze(StackedMLP(KEYS, SIZES))
    assert not any(p.requires_grad for p in stack.parameters())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler uses what torch has deprecated
def test_compiled_equals_eager() -> None:
    """One compilation of all that matters to it: an ensemble's products, ReLU, draws, dropout, and gradients."""
    stack = StackedMLP(KEYS, (5, 16, 2), ensemble=2, dropout=torch.full((3,), 0.25), dtype=DOUBLE)
    x = inputs(3, 7, 5)

    def objective(x: Tensor, key: Tensor) -> Tensor:
        out: Tensor = stack(x + rng.normal(rng.fold(key, "noise", 3), 7, 5, dtype=DOUBLE), key)
        return out.square().sum()

    fast = compiled(objective, True)
    assert (fast is objective) == (not available())
    assert compiled(objective, False) is objective
    slow = torch.autograd.grad(objective(x, KEYS), list(stack.parameters()))
    quick = torch.autograd.grad(fast(x, KEYS), list(stack.parameters()))
    for ours, theirs in zip(quick, slow, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("rate", [None, 0.3])
@pytest.mark.parametrize("ensemble", [None, 2])
@pytest.mark.parametrize("own_batches", [True, False])
def test_many_rows_in_blocks_are_the_same_network(
    ensemble: int | None, rate: float | None, own_batches: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values, dropout and gradients of 23 rows in blocks of 5 and at once."""
    keys = rng.keys([3, 1, 4])
    rates = None if rate is None else torch.tensor([rate, 0.5, 0.0], dtype=torch.float64)
    net = StackedMLP(keys, (4, 8, 6, 2), ensemble=ensemble, dropout=rates, dtype=torch.float64)
    copies = (ensemble,) if ensemble is not None and own_batches else ()
    x = rng.normal(rng.fold(keys, "x"), *copies, 23, 4, dtype=torch.float64).requires_grad_()
    whole = net(x, keys)
    grads = torch.autograd.grad(whole.square().sum(), [x, *net.parameters()])
    monkeypatch.setattr("pbrl.nets.mlp._BLOCK", 5)
    blocks = net(x, keys)
    assert blocks.shape == whole.shape
    torch.testing.assert_close(blocks, whole, rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(torch.autograd.grad(blocks.square().sum(), [x, *net.parameters()]), grads):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)
