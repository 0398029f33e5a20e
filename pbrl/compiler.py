"""torch.compile where it was asked for and can work."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import cache
from typing import ParamSpec, TypeVar

import torch

A = ParamSpec("A")
R = TypeVar("R")


@cache
def available() -> bool:
    """Whether torch.compile can work here: on a CPU it needs a C++ compiler."""
    return torch.cuda.is_available() or any(shutil.which(name) for name in ("g++", "clang++", "c++"))


def compiled(function: Callable[A, R], on: bool) -> Callable[A, R]:
    """``function``, compiled for fixed shapes if ``on`` and this machine can; otherwise the function itself."""
    return torch.compile(function, dynamic=False, fullgraph=True) if on and available() else function
