"""Every algorithm compiled trains as it does uncompiled, up to rounding, which Adam enlarges where gradients are
nearly 0. Slow: each compiles for seconds."""

from __future__ import annotations

import pytest
import torch

import agents
from pbrl.compiler import available
from pbrl.members import sweep

from .contract import case_of, weights


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, while it compiles
@pytest.mark.parametrize("name", agents.names())
def test_compiled_equals_eager(name: str) -> None:
    assert available(), "this study needs a C++ compiler"
    torch.compiler.reset()
    case = case_of(name)
    eager, _ = case.train(sweep(case.small(), [0, 1]))
    compiled, _ = case.train(sweep(case.small(), [0, 1], compile=True))
    for a, b in zip(weights(eager, 1), weights(compiled, 1)):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
