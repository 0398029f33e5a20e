"""Agents whose actions depend on the episode so far."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from torch import Tensor

Memory = Mapping[str, Tensor]
"""What agents remember of the episodes that they are in: tensors [P, B, ...], B episodes of each member."""


@runtime_checkable
class Remembering(Protocol):
    """An agent that remembers the episode; its method ``act`` is that of an episode's first step.

    Whoever plays with it begins every episode with an empty memory, and hands over at each step what the last one gave.
    """

    def empty_memory(self, copies: int) -> Memory:
        """The memory at the beginning of ``copies`` episodes of each member."""
        ...

    def act_with(self, memory: Memory, obs: Tensor, key: Tensor | None = None) -> tuple[Tensor, Memory]:
        """As ``act``: obs [P, B, O] -> actions [P, B, A]; and the memory with this step. The given one is kept."""
        ...
