"""Training loops: short functions that bring data to learners."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .agent import Learner, Staged
from .data.source import Source


def offline(learner: Learner, source: Source, updates: int, *, every: int) -> Iterator[dict[str, Tensor]]:
    """Train on fixed data until ``updates`` updates have been made in all.

    Yields after each multiple of ``every`` updates (and after the last) the metrics of the time since: {name: [P]},
    each the mean over the updates that reported it. Between two yields nothing waits for the device. Started again with
    a learner restored from a checkpoint that was written at a yield, it goes on with the same bits.
    """
    stage = -1
    data = source
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    while learner.updates < updates:
        if isinstance(learner, Staged):
            now = sum(learner.updates >= boundary for boundary in learner.boundaries)
            if now != stage:
                stage, data = now, learner.prepare(source)
        batch = data.draw(learner.wants(), learner.keys, learner.updates)
        for name, value in learner.update(batch).items():
            sums[name] = sums[name] + value if name in sums else value.clone()
            counts[name] = counts.get(name, 0) + 1
        if learner.updates % every == 0 or learner.updates == updates:
            yield {name: total / counts[name] for name, total in sums.items()}
            sums, counts = {}, {}


def diverged(learner: torch.nn.Module, members: int) -> list[int]:
    """Members that have a weight which is not finite."""
    finite = torch.ones(members, dtype=torch.bool)
    for parameter in learner.parameters():
        finite &= parameter.detach().flatten(1).isfinite().all(1).cpu()
    return (~finite).nonzero().flatten().tolist()
