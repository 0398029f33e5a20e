"""Every algorithm compiled trains as it does uncompiled, up to rounding. Slow: each compiles for seconds."""

from __future__ import annotations

import pytest
import torch

import agents
from pbrl.compiler import available
from pbrl.members import sweep

from .contract import case_of, weights

IN_DOUBLE = {"vpl"}
"""Where Adam enlarges float32's rounding beyond the bound, as gradients are nearly 0: compared in float64 instead."""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, while it compiles
@pytest.mark.parametrize("name", agents.names())
def test_compiled_equals_eager(name: str) -> None:
    assert available(), "this study needs a C++ compiler"
    torch.compiler.reset()
    case = case_of(name)
    dtype, rtol, atol = (torch.float64, 1e-9, 1e-9) if name in IN_DOUBLE else (torch.float32, 1e-4, 1e-5)
    eager, _ = case.train(sweep(case.small(), [0, 1], dtype=dtype))
    compiled, _ = case.train(sweep(case.small(), [0, 1], dtype=dtype, compile=True))
    for a, b in zip(weights(eager, 1), weights(compiled, 1)):
        torch.testing.assert_close(a, b, rtol=rtol, atol=atol)
