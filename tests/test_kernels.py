"""Whole perceptrons as one operator: the layers' own results, whatever the stack and the number of threads."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pbrl import rng
from pbrl.nets import kernels
from pbrl.nets.mlp import StackedMLP

SHAPES = [  # networks, of which so many share an input, rows, widths
    (1, 1, 256, (11, 64, 64, 1)),
    (4, 2, 100, (14, 48, 33, 17, 9)),
    (3, 3, 7, (3, 1)),
    (2, 1, 65, (70, 130, 6)),
]
WIDE = [(2, 2, 100, (64, 96, 128, 64)), (2, 1, 33, (14, 64, 9, 64, 64)), (2, 2, 40, (96, 40, 64, 96, 2))]


@pytest.fixture(autouse=True)
def loaded() -> None:
    if not kernels.load():
        pytest.skip("this machine cannot build the operator")


def network(count: int, copies: int, rows: int, sizes: tuple[int, ...]) -> list[Tensor]:
    """x, weights and biases, in need of gradients."""
    layers = list(itertools.pairwise(sizes))
    x = rng.normal(rng.keys(range(count // copies)), rows, sizes[0])
    weights = [rng.normal(rng.fold(rng.keys(range(count)), i), a, b) / a**0.5 for i, (a, b) in enumerate(layers)]
    biases = [rng.normal(rng.fold(rng.keys(range(count)), "bias", i), 1, b) for i, (_, b) in enumerate(layers)]
    return [tensor.requires_grad_() for tensor in (x, *weights, *biases)]


def by_layers(tensors: list[Tensor], slope: float, *, rounded: bool = False) -> Tensor:
    x, count = tensors[0], len(tensors) // 2
    x = x.repeat_interleave(len(tensors[1]) // len(x), 0)
    for i, (weight, bias) in enumerate(zip(tensors[1 : 1 + count], tensors[1 + count :])):
        if rounded and kernels.is_rounded(*weight.shape[1:]):
            x, weight = x.bfloat16().to(x.dtype), weight.bfloat16().to(x.dtype)
        x = torch.baddbmm(bias, x, weight)
        x = F.leaky_relu(x, slope) if i < count - 1 else x
    return x


def whole(tensors: list[Tensor], slope: float, *, rounded: bool = False) -> Tensor:
    count = len(tensors) // 2
    return kernels.mlp(tensors[0], tensors[1 : 1 + count], tensors[1 + count :], slope, rounded=rounded)


def gradients(y: Tensor, tensors: list[Tensor]) -> list[Tensor]:
    direction = rng.normal(rng.fold(rng.keys(range(len(y))), "direction"), *y.shape[1:])
    return list(torch.autograd.grad(y, tensors, direction.to(y.dtype)))


def assert_close(found: list[Tensor], expected: list[Tensor], share: float) -> None:
    for a, b in zip(found, expected, strict=True):
        assert (a - b).abs().max() <= share * b.abs().max()


@pytest.mark.parametrize(("count", "copies", "rows", "sizes"), SHAPES)
@pytest.mark.parametrize("slope", [0.0, 0.01])
def test_one_operator_is_the_layers(count: int, copies: int, rows: int, sizes: tuple[int, ...], slope: float) -> None:
    ours = network(count, copies, rows, sizes)
    exact = [tensor.detach().double().requires_grad_() for tensor in ours]
    y, expected = whole(ours, slope), by_layers(exact, slope)
    assert_close([y, *gradients(y, ours)], [expected, *gradients(expected, exact)], 3e-6)


@pytest.mark.parametrize(("count", "copies", "rows", "sizes"), WIDE)
def test_rounded_operands_of_wide_layers(count: int, copies: int, rows: int, sizes: tuple[int, ...]) -> None:
    if not kernels.rounds():
        pytest.skip("this processor does not multiply bfloat16 numbers")
    ours = network(count, copies, rows, sizes)
    y, expected = whole(ours, 0.01, rounded=True), by_layers(ours, 0.01, rounded=True)
    assert_close([y], [expected], 2e-3)
    assert_close(gradients(y, ours), gradients(expected, ours), 1e-2)
    assert not torch.equal(y, whole(ours, 0.01))


@pytest.mark.parametrize("rounded", [False, True])
def test_bits_depend_neither_on_the_stack_nor_on_threads(rounded: bool) -> None:
    stack = network(16, 2, 70, (5, 64, 96, 2))

    def results(tensors: list[Tensor]) -> list[Tensor]:
        y = whole(tensors, 0.0, rounded=rounded)
        return [y, *torch.autograd.grad(y.square().sum(), tensors)]

    together, again = results(stack), results(stack)
    own = [stack[0][3:4], *(tensor[6:8] for tensor in stack[1:])]
    alone = results([tensor.detach().requires_grad_() for tensor in own])
    places = [slice(6, 8), slice(3, 4)] + [slice(6, 8)] * (len(stack) - 1)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        shared_out = results(stack)
    finally:
        torch.set_num_threads(threads)
    for a, b, c, d, place in zip(together, again, shared_out, alone, places, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)
        assert torch.equal(a[place], d)


def test_gradients_that_nobody_needs_are_not_made() -> None:
    tensors = network(2, 1, 40, (5, 16, 3))
    weights_alone = [tensors[0].detach(), *tensors[1:]]
    y = whole(tensors, 0.0)
    dx, *dw = gradients(y, tensors)
    frozen = [tensors[0], *(tensor.detach() for tensor in tensors[1:])]
    assert torch.equal(gradients(whole(frozen, 0.0), frozen[:1])[0], dx)
    assert all(map(torch.equal, gradients(whole(weights_alone, 0.0), weights_alone[1:]), dw))
    with torch.no_grad():
        assert torch.equal(whole(tensors, 0.0), y)


def test_what_is_not_finite_stays_so() -> None:
    tensors = network(2, 1, 40, (5, 16, 3))
    with torch.no_grad():
        tensors[1][0, 0, 0] = float("nan")
    y = whole(tensors, 0.0)
    assert y[0].isnan().all()
    assert y[1].isfinite().all()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, while it compiles
def test_a_compiled_stack_goes_through_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = StackedMLP(rng.keys([0, 1, 2]), (5, 64, 64, 2), ensemble=2)
    x = rng.normal(rng.keys([3, 4, 5]), 40, 5)
    calls = []
    one_operator = kernels.mlp

    def counted(*args: Any, **more: Any) -> Tensor:
        calls.append(1)
        return one_operator(*args, **more)

    monkeypatch.setattr(kernels, "mlp", counted)
    stack(x)
    assert not calls, "eager bits do not depend on a compiler"
    y = torch.compile(stack, backend="eager", fullgraph=True, dynamic=False)(x)
    assert calls
    grads = [torch.autograd.grad(out.square().sum(), list(stack.parameters())) for out in (y, stack(x))]
    assert_close([y, *grads[0]], [stack(x), *grads[1]], 3e-6)


@pytest.mark.parametrize("compiler", [None, "/bin/false", "/no/such/compiler"])
def test_without_a_working_compiler_it_says_no(compiler: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "compiler", lambda: compiler)
    monkeypatch.setattr(kernels, "_loaded", False)
    assert not kernels.load.__wrapped__()
    assert not kernels.ready()


def test_a_home_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(kernels, "_SOURCE", tmp_path / "empty.cpp")
    (tmp_path / "empty.cpp").write_text("int nothing() { return 0; }\n")
    gxx = kernels.compiler()
    assert gxx is not None
    built = kernels._built(gxx)
    assert built.exists()
    assert not built.is_relative_to(tmp_path)
