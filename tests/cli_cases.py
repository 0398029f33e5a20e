"""A small data set and quick options for tests of the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from pbrl.data import Dataset, hdf5

PAIRS = ["--pairs", "30", "--segment-length", "3"]
"""For agents that take labels."""
SHORT = ["--updates", "20", "--episodes", "2"]
QUICK = [*SHORT, *PAIRS, "--hidden", "8", "--batch-size", "4"]


def point_mass(folder: Path, **changed: object) -> Path:
    """A data set of the point mass with random actions, in a file of ours; without an oracle."""
    generator = np.random.default_rng(0)
    count = 120
    arrays = {
        "obs": generator.normal(size=(count, 4)),
        "act": generator.uniform(-1, 1, (count, 2)),
        "rew": generator.normal(size=count),
        "next_obs": generator.normal(size=(count, 4)),
        "term": np.zeros(count, dtype=bool),
        "trunc": np.arange(count) % 10 == 9,
    }
    path = folder / "small.hdf5"
    info = {"reference": [-100.0, -1.0], "horizon": 100}
    data = Dataset.from_arrays(**arrays, name="small", env="PointMass-v0", info=info)
    for name, value in changed.items():
        object.__setattr__(data, name, torch.as_tensor(value) if isinstance(value, np.ndarray) else value)
    hdf5.save(data, path)
    return path
