"""The offline loop: fixed data, a number of updates."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..agent import Learner, Staged
from ..data.source import Source


def offline(learner: Learner, source: Source, updates: int, *, every: int) -> Iterator[dict[str, Tensor]]:
    """Train on fixed data until ``updates`` updates have been made in all.

    Yields after each multiple of ``every`` updates (and after the last) the metrics of the time since: {name: [P]},
    each the mean over the updates that reported a number. Between two yields nothing waits for the device. Started
    again with a learner restored from a checkpoint that was written at a yield, it goes on with the same bits.
    """
    stage = -1
    data = source
    seen: dict[str, list[Tensor]] = {}
    while learner.updates < updates:
        if isinstance(learner, Staged):
            now = sum(learner.updates >= boundary for boundary in learner.boundaries)
            if now != stage:
                stage, data = now, learner.prepare(source)
        batch = data.draw(learner.wants(), learner.keys, learner.updates)
        for name, value in learner.update(batch).items():
            seen.setdefault(name, []).append(value)
        if learner.updates % every == 0 or learner.updates == updates:
            # NaN is left out: a batch of ties has no accuracy. A member that diverged has nothing but NaN.
            yield {name: torch.stack(values).nanmean(0) for name, values in seen.items()}
            seen = {}


def diverged(learner: torch.nn.Module, members: int) -> list[int]:
    """Members that have a weight which is not finite."""
    finite = torch.ones(members, dtype=torch.bool)
    for parameter in learner.parameters():
        rows = parameter.detach().flatten(1).isfinite().all(1).cpu()
        finite &= rows.unflatten(0, (-1, members)).all(0)  # of G P networks, row g P + p is member p's
    return (~finite).nonzero().flatten().tolist()
