"""torch.compile where it was asked for and can work."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import ParamSpec, TypeVar

import torch

from .nets import kernels

A = ParamSpec("A")
R = TypeVar("R")


@cache
def available() -> bool:
    """Whether torch.compile can work here: on a CPU it needs a C++ compiler."""
    return torch.cuda.is_available() or kernels.compiler() is not None


def compiled(function: Callable[A, R], on: bool) -> Callable[A, R]:
    """``function``, compiled for fixed shapes if ``on`` and this machine can; otherwise the function itself."""
    if not on or not available():
        return function
    kernels.load()
    torch._dynamo.config.trace_autograd_ops = True  # a function may ask for gradients
    # What inductor asserts of every tensor's sizes holds for fixed shapes, and costs time at each call.
    return torch.compile(function, dynamic=False, fullgraph=True, options={"size_asserts": False})
