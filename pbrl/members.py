"""Members: the configs and keys of a population, and which config fields differ between its members.

A field of a config is *swept* by default: one value per member, stacked to a [P] tensor. A field made by ``shared``
fixes shapes, schedules or choices and has the same value in the whole stack (layer and batch sizes, stages, heads).
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import torch
from torch import Tensor

from . import rng
from .errors import InputError

C = TypeVar("C")
C_co = TypeVar("C_co", covariant=True)

Schedule = Literal["stage", "warmup", "run"]


def shared(default: Any, *, schedule: Schedule | None = None) -> Any:
    """A config field with one value for the whole stack.

    ``schedule`` marks a count of updates that must suit the length of the run: "stage", at which a new stage begins,
    "warmup", which is part of one, or "run", which is a whole run.
    """
    return dataclasses.field(default=default, metadata={"shared": True, "schedule": schedule})


def is_shared(field: dataclasses.Field[Any]) -> bool:
    """Whether a config field has one value for the whole stack."""
    return bool(field.metadata.get("shared", False))


def schedule_fields(config: Any, *kinds: Schedule) -> list[str]:
    """Names of the fields that count updates of a schedule, of these kinds."""
    return [field.name for field in dataclasses.fields(config) if field.metadata.get("schedule") in kinds]


@dataclass(frozen=True)
class Members(Generic[C_co]):
    """P configs of one class with a seed each.

    Attributes:
        configs: P frozen dataclasses of one class that agree in every shared field.
        seeds: P integers; a member's random numbers depend on its seed alone.
        dtype: of weights and data.
        device: where they lie.
        compile: whether to compile the losses, which pays from some ten thousand updates on; results differ from
            uncompiled ones by rounding.

    Raises:
        InputError: no members, as many seeds as configs are missing, or a shared field that differs.
    """

    configs: tuple[C_co, ...]
    seeds: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    device: str = "cpu"
    compile: bool = False

    def __post_init__(self) -> None:
        if not self.configs:
            raise InputError("a population needs at least one member, found none")
        if len(self.configs) != len(self.seeds):
            raise InputError(f"{len(self.configs)} configs but {len(self.seeds)} seeds: expected one seed per config")
        for field in dataclasses.fields(self.shared):  # type: ignore[arg-type]
            values = {getattr(config, field.name) for config in self.configs}
            if is_shared(field) and len(values) > 1:
                found = ", ".join(map(repr, sorted(values, key=repr)))
                raise InputError(f"{field.name} must be the same for all members of a stack, found {found}")

    def __len__(self) -> int:
        return len(self.configs)

    @property
    def shared(self) -> C_co:
        """The first config: read shared fields from it."""
        return self.configs[0]

    @property
    def keys(self) -> Tensor:
        """[P] int64, one key per member."""
        return rng.keys(self.seeds, device=self.device)

    def column(self, name: str) -> Tensor:
        """[P] the values of a swept field."""
        return torch.tensor([getattr(config, name) for config in self.configs], dtype=self.dtype, device=self.device)

    def take(self, chosen: Sequence[int]) -> Members[C_co]:
        """The population of these members only."""
        return dataclasses.replace(
            self, configs=tuple(self.configs[i] for i in chosen), seeds=tuple(self.seeds[i] for i in chosen)
        )


def sweep(
    config: C,
    seeds: Sequence[int],
    values: Mapping[str, Sequence[Any]] | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    compile: bool = False,
) -> Members[C]:
    """The population of every combination of swept values and seeds, seeds varying fastest.

    ``sweep(IQLConfig(), range(4), {"expectile": [0.7, 0.9]})`` has eight members.

    Raises:
        InputError: an unknown field, a shared field with several values, or an empty list of values.
    """
    values = dict(values or {})
    fields = {field.name: field for field in dataclasses.fields(config)}  # type: ignore[arg-type]
    for name, choices in values.items():
        if name not in fields:
            raise InputError(f"unknown config field {name!r}, expected one of {', '.join(fields)}")
        if is_shared(fields[name]) and len(set(choices)) > 1:
            raise InputError(f"{name} must be the same for all members of a stack, found {len(choices)} values")
        if not choices:
            raise InputError(f"{name} has no values, expected at least one")
    combos = [dict(zip(values, combo)) for combo in itertools.product(*values.values())]
    configs = [dataclasses.replace(config, **combo) for combo in combos for _ in seeds]  # type: ignore[type-var]
    return Members(tuple(configs), tuple(seeds) * len(combos), dtype=dtype, device=device, compile=compile)


def check_sizes(config: Any, name: str) -> None:
    """Raise InputError unless ``config.name`` is a tuple of whole numbers of at least 1 (or empty: no hidden layer)."""
    value = getattr(config, name)
    if any(size < 1 for size in value):
        found = " ".join(map(str, value))
        raise InputError(f"{type(config).__name__}.{name} is {found}, expected widths of at least 1")


def check_range(
    config: Any, name: str, low: float = -math.inf, high: float = math.inf, *, open_low: bool = False
) -> None:
    """Raise InputError unless ``low <= config.name <= high`` (``low <`` when open_low)."""
    value = getattr(config, name)
    good = math.isfinite(value) and (low < value if open_low else low <= value) and value <= high
    if not good:
        bounds = f"{'above' if open_low else 'at least'} {low:g}" + (
            f" and at most {high:g}" if high < math.inf else ""
        )
        raise InputError(f"{type(config).__name__}.{name} is {value}, expected {bounds}")
