"""The same function on every tensor of a frozen dataclass."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor

D = TypeVar("D")


def map_tensors(noun: D, function: Callable[[Tensor], Tensor]) -> D:
    """``noun`` with ``function`` applied to each field that is a tensor."""
    values: dict[str, Any] = {field.name: getattr(noun, field.name) for field in dataclasses.fields(noun)}  # type: ignore[arg-type]
    changed: dict[str, Any] = {name: function(value) for name, value in values.items() if isinstance(value, Tensor)}
    return dataclasses.replace(noun, **changed)  # type: ignore[type-var]
