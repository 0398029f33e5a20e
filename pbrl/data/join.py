"""Data sets one after the other, as one: what was collected online appended to what was there before."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..errors import InputError
from .dataset import Dataset


def joined(datasets: Sequence[Dataset], name: str) -> Dataset:
    """All episodes of some data sets, in order.

    An episode whose recording was cut becomes truncated where another one follows. ``env`` and ``info`` are the first
    one's, ``info["joined"]`` lists names and fingerprints of all.

    Raises:
        InputError: none are given, or they differ in environment, sizes or the number of rewards.
    """
    if not datasets:
        raise InputError("no data sets to join, expected at least one")
    first = datasets[0]
    for other in datasets[1:]:
        if other.env != first.env:
            found = f"{other.name} is of {other.env or 'an unknown environment'}"
            raise InputError(f"{found}, expected {first.env or 'an unknown one'} as {first.name} is")
        for field in ("obs", "act", "rew"):
            sizes, wanted = (list(getattr(each, field).shape[1:]) for each in (other, first))
            if sizes != wanted:
                raise InputError(f"{other.name} has {field} of shape {sizes}, expected {wanted} as {first.name} has")
    ends = []
    for place, each in enumerate(datasets):
        trunc = each.trunc.clone()
        if place < len(datasets) - 1:
            trunc[-1] = ~each.term[-1]
        ends.append(trunc)
    rows = [0, *torch.tensor([len(each) for each in datasets]).cumsum(0).tolist()]
    history = [{"name": each.name, "fingerprint": each.fingerprint} for each in datasets]
    columns = {
        field: torch.cat([getattr(each, field) for each in datasets])
        for field in ("obs", "act", "rew", "next_obs", "term")
    }
    starts = torch.cat([each.start + row for each, row in zip(datasets, rows)])
    return Dataset(
        name, first.env, trunc=torch.cat(ends), start=starts, info={**first.info, "joined": history}, **columns
    )
