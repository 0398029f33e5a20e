"""Whole perceptrons as one operator, forward and backward, in C++ (``mlp.cpp``), for compiled losses on a CPU.

Layer by layer, a small product ends before all threads have got to work, and every bias and activation is one more
pass over memory. Here 32 rows of a batch go through all layers of their network while they lie in a core's first
cache. Results are the layers' own, up to rounding; they depend neither on the number of threads nor on the rest of
the stack.

The operator is built once per machine with the C++ compiler that torch.compile needs too, and kept in the user's
cache folder. Where that fails, ``load`` is False and networks go layer by layer, as they do uncompiled.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_SOURCE = Path(__file__).with_name("mlp.cpp")
_FLAGS = ("-O3", "-std=c++20", "-march=native", "-fopenmp", "-shared", "-fPIC", "-DAT_PER_OPERATOR_HEADERS")
_ROWS = 32  # mlp.cpp pads batches to a multiple of this
_WIDE, _MULTIPLE = 64, 32  # layers that mlp.cpp can round
_BUILD_SECONDS = 300
_loaded = _rounds = False


def compiler() -> str | None:
    """The C++ compiler of this machine, or None."""
    return next((path for name in ("g++", "clang++", "c++") if (path := shutil.which(name))), None)


def ready() -> bool:
    """Whether ``load`` has succeeded in this process."""
    return _loaded


@cache
def load() -> bool:
    """Makes the operators available, building them first where this machine has not done so; False if it cannot."""
    global _loaded, _rounds
    gxx = compiler()
    if gxx is None:
        return False
    try:
        torch.ops.load_library(_built(gxx))
    except (OSError, subprocess.SubprocessError, RuntimeError) as error:
        logging.getLogger(__name__).info("networks go layer by layer, since mlp.cpp cannot be used: %s", error)
        return False
    torch.library.register_fake("pbrl::mlp", _shapes)
    torch.library.register_fake("pbrl::mlp_backward", _grad_shapes)
    _loaded, _rounds = True, torch.ops.pbrl.mlp_rounds()
    return True


def _built(gxx: str) -> Path:
    """The shared library of this source, torch, compiler and processor."""
    version = subprocess.run([gxx, "--version"], capture_output=True, check=True, timeout=_BUILD_SECONDS).stdout
    made_of = (_SOURCE.read_bytes(), torch.__version__.encode(), version, _processor(), " ".join(_FLAGS).encode())
    name = f"mlp-{hashlib.blake2b(b'|'.join(made_of), digest_size=12).hexdigest()}.so"
    cached = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pbrl" / name
    if cached.exists():
        return cached
    fresh = Path(tempfile.mkdtemp(prefix="pbrl-")) / name
    here = Path(torch.__file__).parent
    links = (f"-I{here / 'include'}", f"-L{here / 'lib'}", "-ltorch_cpu", "-lc10")
    command = [gxx, *_FLAGS, str(_SOURCE), "-o", str(fresh), *links]
    subprocess.run(command, capture_output=True, check=True, timeout=_BUILD_SECONDS)
    try:  # renamed into place, so that no other process ever sees half of it
        cached.parent.mkdir(parents=True, exist_ok=True)
        beside = cached.with_suffix(f".{os.getpid()}")
        shutil.copy(fresh, beside)
        beside.replace(cached)
    except OSError:  # a home that cannot be written: this process keeps its own
        return fresh
    shutil.rmtree(fresh.parent)
    return cached


def _processor() -> bytes:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return "\n".join(line for line in lines if line.startswith(("model name", "flags", "Features"))).encode()


def rounds() -> bool:
    """Whether this processor multiplies bfloat16 numbers, in operators that are ``ready``."""
    return _rounds


def mlp(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], slope: float, *, rounded: bool = False
) -> Tensor:
    """The perceptrons of ``weights`` [n, in, out] and ``biases`` [n, 1, out] of each layer on x [n / E, B, in].

    E networks in a row have the same input. Hidden layers end in max(z, slope z). ``rounded``: operands of layers with
    at least 64 inputs and outputs, multiples of 32, are rounded to bfloat16. Returns [n, B, out]. In float32 on a CPU,
    after ``load``.
    """
    apply: Callable[..., Tensor] = _MLP.apply
    return apply(x, slope, rounded, torch.is_grad_enabled(), *weights, *biases)


class _MLP(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: float, rounded: bool, keep: bool, *parameters: Tensor) -> Tensor:
        layers = len(parameters) // 2
        weights, biases = parameters[:layers], parameters[layers:]
        keep = keep and any(ctx.needs_input_grad)
        y: Tensor
        y, kept = torch.ops.pbrl.mlp.default(x, weights, biases, slope, rounded, keep)
        ctx.slope, ctx.rounded = slope, rounded
        ctx.save_for_backward(x, kept, *weights)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, kept, *weights = ctx.saved_tensors
        to_x, to_weights = ctx.needs_input_grad[0], any(ctx.needs_input_grad[4:])
        to = torch.ops.pbrl.mlp_backward.default(grads[0], x, kept, weights, ctx.slope, ctx.rounded, to_x, to_weights)
        own = to[0].unflatten(0, (len(x), -1)).sum(1) if to_x else None
        return own, None, None, None, *(to[1:] if to_weights else [None] * 2 * len(weights))


def is_rounded(size_in: int, size_out: int) -> bool:
    """Whether ``mlp`` can round the operands of such a layer."""
    return _rounds and min(size_in, size_out) >= _WIDE and size_in % _MULTIPLE == size_out % _MULTIPLE == 0


def _shapes(
    x: Tensor, weights: list[Tensor], _biases: list[Tensor], _slope: float, rounded: bool, keep: bool
) -> tuple[Tensor, Tensor]:
    words = [w.shape[1] // 2 if rounded and is_rounded(*w.shape[1:]) else w.shape[1] for w in weights]
    kept = -(-x.shape[1] // _ROWS) * _ROWS * sum(words) if keep else 0
    return x.new_empty(len(weights[0]), x.shape[1], weights[-1].shape[2]), x.new_empty(len(weights[0]), kept)


def _grad_shapes(
    _grad: Tensor,
    x: Tensor,
    _kept: Tensor,
    weights: list[Tensor],
    _slope: float,
    _rounded: bool,
    to_x: bool,
    to_weights: bool,
) -> list[Tensor]:
    to = [x.new_empty(len(weights[0]) if to_x else 0, *x.shape[1:])]
    if to_weights:
        to += [torch.empty_like(weight) for weight in weights]
        to += [x.new_empty(len(weight), 1, weight.shape[2]) for weight in weights]
    return to
