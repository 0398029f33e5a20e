"""Small data sets for the tests of pbrl.data."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pbrl.data import Dataset

# Real data that do not ship with the code; the tests that need them are skipped where there are none.
SHARED = Path(os.environ.get("PBRL_SHARED_DATA") or Path(__file__).parents[2] / "shared" / "data")

Arrays = dict[str, Any]  # of NumPy arrays; Any, so that they can be given as keyword arguments


def arrays(lengths: tuple[int, ...] = (5, 3, 4), ends: str = "tx.", seed: int = 0) -> Arrays:
    """Six arrays of consistent episodes that end by t(ermination), (time limit) x, or . neither; O = 3, A = 2."""
    generator = np.random.default_rng(seed)
    parts: dict[str, list[NDArray[Any]]] = {key: [] for key in ("obs", "act", "rew", "term", "trunc", "next_obs")}
    for length, end in zip(lengths, ends, strict=True):
        states = generator.normal(size=(length + 1, 3)).astype(np.float32)
        last = np.arange(length) == length - 1
        parts["obs"].append(states[:-1])
        parts["next_obs"].append(states[1:])
        parts["act"].append(generator.uniform(-1, 1, (length, 2)).astype(np.float32))
        parts["rew"].append(generator.normal(size=length).astype(np.float32))
        parts["term"].append(last & (end == "t"))
        parts["trunc"].append(last & (end == "x"))
    return {key: np.concatenate(value) for key, value in parts.items()}


def dataset(lengths: tuple[int, ...] = (5, 3, 4), ends: str = "tx.", seed: int = 0, **named: Any) -> Dataset:
    """The Dataset of ``arrays``."""
    return Dataset.from_arrays(**arrays(lengths, ends, seed), **named)
