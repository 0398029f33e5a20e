"""Every kernel computes x @ w + b and its gradients, and the choice depends on shapes and settings alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from pbrl import rng
from pbrl.nets import products
from pbrl.nets.products import Kernel, affine, get_precision, kernel, set_precision

HAS_ONEDNN = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
TOLERANCE: dict[Kernel, float] = {
    "batched": 1e-5,
    "each": 1e-5,
    "bf16": 4e-2,
    **({"onednn": 1e-5} if HAS_ONEDNN else {}),
}
# The gradients that reach a product differ in how they lie in memory: of their own, or one number for all.
OBJECTIVES: dict[str, Callable[[Tensor], Tensor]] = {"square": lambda y: y.square().sum(), "sum": lambda y: y.sum()}


@pytest.fixture
def float32() -> Iterator[None]:
    """Leaves the process with the precision that it had."""
    before = get_precision()
    set_precision("float32")
    yield
    set_precision(before)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("chosen", TOLERANCE)
def test_every_kernel_is_the_affine_map(
    chosen: Kernel, members: int, objective: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "kernel", lambda *_: chosen)
    keys = rng.keys(range(members))
    inputs = [
        rng.normal(rng.fold(keys, i), *shape, dtype=torch.float64)
        for i, shape in enumerate([(50, 70), (70, 80), (1, 80)])
    ]
    exact = [x.clone().requires_grad_() for x in inputs]
    ours = [x.float().requires_grad_() for x in inputs]
    y, expected = affine(*ours), exact[0] @ exact[1] + exact[2]
    grads = torch.autograd.grad(OBJECTIVES[objective](y), ours)
    expected_grads = torch.autograd.grad(OBJECTIVES[objective](expected), exact)
    for found, right in zip((y, *grads), (expected, *expected_grads), strict=True):
        assert found.dtype == torch.float32
        assert float((found - right).detach().abs().max() / right.detach().abs().max()) < TOLERANCE[chosen]


@pytest.mark.parametrize(
    ("rows", "sizes", "dtype", "device", "elsewhere", "expected"),
    [
        (1024, (256, 256), torch.float32, "cpu", False, "batched"),
        (1025, (256, 256), torch.float32, "cpu", False, "each"),
        (1025, (256, 256), torch.float64, "cpu", True, "each"),
        (256, (256, 256), torch.float32, "cpu", True, "onednn"),
        (511, (64, 64), torch.float32, "cpu", True, "batched"),
        (512, (64, 64), torch.float32, "cpu", True, "onednn"),
        (256, (11, 256), torch.float32, "cpu", True, "batched"),
        (256, (256, 1), torch.float32, "cpu", True, "batched"),
        (5000, (256, 256), torch.float32, "cuda", False, "batched"),
    ],
)
@pytest.mark.usefixtures("float32")
def test_the_kernel_follows_from_shape_dtype_and_machine(
    rows: int,
    sizes: tuple[int, int],
    dtype: torch.dtype,
    device: str,
    elsewhere: bool,
    expected: Kernel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(products, "_ONEDNN", elsewhere)
    assert kernel(rows, *sizes, dtype, device) == expected


@pytest.mark.usefixtures("float32")
def test_bf16_is_for_wide_float32_products_and_only_when_asked_for() -> None:
    assert kernel(256, 256, 256, torch.float32, "cpu") != "bf16"
    set_precision("bf16")
    assert get_precision() == "bf16"
    assert kernel(256, 256, 256, torch.float32, "cpu") == "bf16"
    assert kernel(256, 256, 256, torch.float32, "cuda") == "bf16"
    assert kernel(256, 256, 256, torch.float64, "cpu") == "batched"
    assert kernel(256, 256, 1, torch.float32, "cpu") == "batched"


@pytest.mark.parametrize("chosen", [name for name in TOLERANCE if name != "bf16"])
@pytest.mark.parametrize("sizes", [(70, 80), (1, 80), (70, 1), (1, 1)])
@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("biased", [True, False])
def test_a_product_without_a_graph_is_the_same(
    chosen: Kernel, sizes: tuple[int, int], members: int, biased: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "kernel", lambda *_: chosen)
    keys = rng.keys(range(members))
    a, b, bias = (
        rng.normal(rng.fold(keys, i), *shape, dtype=torch.float64)
        for i, shape in enumerate([(50, sizes[0]), sizes, (1, sizes[1])])
    )
    expected = a @ b + bias if biased else a @ b
    for left in (a.float(), a.mT.contiguous().float().mT):
        found = products.product(left, b.float(), bias.float() if biased else None)
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
