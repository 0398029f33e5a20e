"""G parts of each of P members as rows of one stack: part g of member p is row g P + p."""

from __future__ import annotations

from torch import Tensor


def apart(x: Tensor, groups: int, *, axis: int) -> Tensor:
    """[P, ..., G N, ...] with the parts side by side along ``axis`` -> [G P, ..., N, ...]."""
    split: Tensor = x.unflatten(axis, (groups, -1))
    return split.movedim(axis, 0).flatten(0, 1)


def together(x: Tensor, groups: int) -> Tensor:
    """[G P, ...] -> [P, G, ...]."""
    split: Tensor = x.unflatten(0, (groups, -1))
    return split.transpose(0, 1)
