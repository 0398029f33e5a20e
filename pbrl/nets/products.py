"""Matrix products of a stack, by the kernel that suits their size, the processor and the wanted precision.

    affine(x, w, b) = x @ w + b   for x [n, B, in], w [n, in, out], b [n, 1, out]

The choice depends on shapes and on the machine alone, never on a timing, so that a run repeats its own bits:
- "batched": one ``baddbmm``. Best while a member has few rows, on a GPU, and in float64.
- "each": one product per member. On a CPU with many rows the activations of one member then stay in cache.
- "onednn": one oneDNN product per member, where it is large. On the AMD processors that were tried, MKL (torch's
  choice) took up to twice as long there; small products pay for a call each: three times, at 64 rows of 64x64.
- "bf16": operands rounded to bfloat16, result float32. Only after ``set_precision("bf16")``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

Precision = Literal["float32", "bf16"]
Kernel = Literal["batched", "each", "onednn", "bf16"]

_FEW_ROWS = 1024
WIDE = 64  # below this many inputs or outputs a product costs less than what a special kernel adds
_LARGE = 1 << 21  # rows times inputs times outputs from which oneDNN repays a call per member
_precision: Precision = "float32"


def set_precision(precision: Precision) -> None:
    """Precision of the operands of large float32 products, for the whole process; everything else stays float32."""
    global _precision
    _precision = precision


def get_precision() -> Precision:
    """What ``set_precision`` was last told."""
    return _precision


def _prefers_onednn() -> bool:
    """Whether this is a CPU of another maker than MKL's, with torch's oneDNN there to take its place."""
    cpuinfo = Path("/proc/cpuinfo")
    made_elsewhere = cpuinfo.exists() and "AuthenticAMD" in cpuinfo.read_text()
    return made_elsewhere and torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()


_ONEDNN = _prefers_onednn()


def kernel(rows: int, size_in: int, size_out: int, dtype: torch.dtype, device: str) -> Kernel:
    """The kernel for products of this shape."""
    wide = min(size_in, size_out) >= WIDE and dtype == torch.float32
    if wide and _precision == "bf16":
        return "bf16"
    if device != "cpu":
        return "batched"
    if wide and _ONEDNN and rows * size_in * size_out >= _LARGE:
        return "onednn"
    return "batched" if rows <= _FEW_ROWS else "each"


def product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """a [n, i, j] @ b [n, j, k] (+ bias [n, 1, k]) -> [n, i, k] in the operands' precision, for gradients by hand."""
    if a.device.type == "cpu" and a.shape[1] <= _FEW_ROWS and 1 in (a.shape[2], b.shape[2]):
        # For two networks a batched kernel takes three to six times as long.
        y = a * b if a.shape[2] == 1 else (a * b.mT).sum(-1, keepdim=True)
        return y if bias is None else y + bias
    chosen = kernel(a.shape[1], a.shape[2], b.shape[2], a.dtype, a.device.type)
    return _onednn_product(a, b, bias) if chosen == "onednn" else _plain(a, b, bias, chosen)


def affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x [n, B, in] @ weight [n, in, out] + bias [n, 1, out] -> [n, B, out]."""
    chosen = kernel(x.shape[1], weight.shape[1], weight.shape[2], x.dtype, x.device.type)
    if chosen in ("batched", "each"):
        return _plain(x, weight, bias, chosen)
    return _Affine.apply(x, weight, bias, chosen)  # type: ignore[no-any-return, no-untyped-call]


def _plain(a: Tensor, b: Tensor, bias: Tensor | None, chosen: Kernel) -> Tensor:
    """The same by torch's own kernels: "batched", or "each"."""
    if chosen == "batched":
        return torch.bmm(a, b) if bias is None else torch.baddbmm(bias, a, b)
    biases = [None] * len(a) if bias is None else list(bias)
    return torch.stack([x @ y if z is None else torch.addmm(z, x, y) for x, y, z in zip(a, b, biases)])


class _Affine(torch.autograd.Function):
    """The affine map with all three of its products by one kernel."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, chosen: Kernel) -> Tensor:
        ctx.chosen = chosen
        if chosen == "bf16":  # rounded once, for this product and those of the gradient
            x, weight = x.bfloat16(), weight.bfloat16()
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias, chosen)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        to_x, to_weight, to_bias = ctx.needs_input_grad[:3]  # a policy's loss needs a critic's for ``x`` alone
        bias, grad = grads[0].sum(1, keepdim=True) if to_bias else None, grads[0]
        grad = grad.bfloat16() if ctx.chosen == "bf16" else grad
        return (
            _product(grad, weight.mT, None, ctx.chosen) if to_x else None,
            _product(x.mT, grad, None, ctx.chosen) if to_weight else None,
            bias,
            None,
        )


def _product(a: Tensor, b: Tensor, bias: Tensor | None, chosen: Kernel) -> Tensor:
    """[n, i, j] @ [n, j, k] (+ [n, 1, k]) -> [n, i, k] in float32; operands for "bf16" are in bfloat16 already."""
    if chosen == "bf16":
        product = torch.bmm(a, b)
        return product.float() if bias is None else product + bias  # the sum is in float32, in one pass
    if torch.compiler.is_compiling():
        return torch.ops.pbrl.onednn_product.default(a, b, bias)  # type: ignore[no-any-return]
    return _onednn_product(a, b, bias)


# An operator of our own, so that the compiler takes it as it is.
_library = torch.library.Library("pbrl", "DEF")
_library.define("onednn_product(Tensor a, Tensor b, Tensor? bias) -> Tensor")


def _onednn_product(a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    # The one float32 product of oneDNN's that torch exposes: linear(x, weight [out, in], bias, activation).
    one = torch.ops.mkldnn._linear_pointwise.default
    biases = [None] * len(a) if bias is None else [row[0] for row in bias]
    parts = [one(left, right.t(), row, "none", [], "") for left, right, row in zip(a, b, biases)]
    return parts[0].unsqueeze(0) if len(parts) == 1 else torch.stack(parts)


def _onednn_shape(a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:  # noqa: ARG001  the operator's signature
    return a.new_empty(a.shape[0], a.shape[1], b.shape[2])


_library.impl("onednn_product", _onednn_product, "CPU")
_library.impl("onednn_product", _onednn_shape, "Meta")
