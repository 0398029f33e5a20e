"""What arrays of transitions must satisfy; every broken rule is one InputError sentence that names field and row."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError

# Rescaling from an environment's bounds in float32 overshoots by about 1e-7 and old collectors by some 1e-5; anything
# beyond is another unit.
ACT_TOLERANCE = 1e-4


def to_tensor(values: Any, field: str) -> Tensor:
    """A copy of array-like ``values``, so that the caller's array may change afterwards.

    Raises:
        InputError: not numbers, or lists of unequal lengths.
    """
    if isinstance(values, Tensor):
        return values.detach().clone()
    try:
        array = np.array(values)
        if array.dtype.kind not in "biuf":
            raise TypeError
    except (TypeError, ValueError):
        raise InputError(f"{field} is not a rectangular array of numbers, expected one") from None
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))


def floats(values: Any, field: str, dimensions: tuple[int, ...]) -> Tensor:
    """``values`` as float32, finite, with one of the given numbers of axes.

    Raises:
        InputError: another number of axes, NaN, or a number beyond float32.
    """
    tensor = to_tensor(values, field).to(torch.float32)
    if tensor.dim() not in dimensions:
        expected = " or ".join(map(str, dimensions))
        raise InputError(f"{field} has shape {list(tensor.shape)}, expected {expected} axes")
    check_finite(tensor, field)
    return tensor


def check_finite(tensor: Tensor, field: str) -> None:
    """Raise InputError at the first row with NaN or an infinity."""
    bad = ~torch.isfinite(tensor)
    if bad.any():
        place = bad.nonzero()[0].tolist()
        value = tensor[tuple(place)].item()
        raise InputError(f"{field} is {value} at row {place[0]}, expected finite numbers")


def flags(values: Any, field: str, count: int) -> Tensor:
    """``values`` as [count] bool.

    Raises:
        InputError: another dtype (a float "done" often mixes termination and time limit), or another shape.
    """
    tensor = to_tensor(values, field)
    if tensor.dtype != torch.bool:
        name = str(tensor.dtype).removeprefix("torch.")
        raise InputError(f"{field} has dtype {name}, expected bool")
    if tensor.shape != (count,):
        raise InputError(f"{field} has shape {list(tensor.shape)}, expected [{count}] as obs has {count} rows")
    return tensor


def integers(values: Any, field: str, count: int) -> Tensor:
    """``values`` as [count] int64.

    Raises:
        InputError: another dtype, or another shape.
    """
    tensor = to_tensor(values, field)
    if tensor.is_floating_point() or tensor.dtype == torch.bool:
        raise InputError(f"{field} has dtype {str(tensor.dtype).removeprefix('torch.')}, expected integers")
    check_shape(tensor, field, (count,))
    return tensor.to(torch.int64)


def check_shape(tensor: Tensor, field: str, shape: tuple[int, ...]) -> None:
    """Raise InputError at any other shape."""
    if tensor.shape != shape:
        raise InputError(f"{field} has shape {list(tensor.shape)}, expected {list(shape)}")


def check_length(tensor: Tensor, field: str, count: int) -> None:
    """Raise InputError unless there are ``count`` rows."""
    if len(tensor) != count:
        raise InputError(f"{field} has {len(tensor)} rows, expected {count} as obs has")


def bounded(act: Tensor, field: str = "act") -> Tensor:
    """Actions clipped to [-1, 1], when all are inside already to within 1e-4.

    Raises:
        InputError: an action further outside.
    """
    outside = act.abs() > 1 + ACT_TOLERANCE
    if outside.any():
        place = outside.nonzero()[0].tolist()
        value = act[tuple(place)].item()
        raise InputError(
            f"{field} is {value:g} at row {place[0]}, expected [-1, 1]: rescale from the action bounds first"
        )
    return act.clamp(-1, 1)


def check_probabilities(label: Tensor) -> None:
    """Raise InputError at the first label of a pair that is not in [0, 1]."""
    bad = ~((label >= 0) & (label <= 1))
    if bad.any():
        place = int(bad.nonzero()[0])
        raise InputError(f"label is {label[place].item():g} at pair {place}, expected a probability in [0, 1]")


def check_reward(rew: Tensor) -> None:
    """Raise InputError when every reward is zero: the sign of a sparse reward lost while reading."""
    if not rew.any():
        raise InputError(f"rew is 0 in all {len(rew)} rows, expected at least one reward that is not")


def check_ends(term: Tensor, trunc: Tensor) -> None:
    """Raise InputError at the first row that is both terminal and truncated."""
    both = term & trunc
    if both.any():
        row = int(both.nonzero()[0])
        raise InputError(f"term and trunc are both set at row {row}, expected one: a true end, or a time limit")
