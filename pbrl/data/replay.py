"""Replay: what batches are drawn from, a data set or what was collected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..errors import InputError


@dataclass(frozen=True)
class Replay:
    """What batches are drawn from where there is a data set beside what was collected.

    Attributes:
        kind: "empty": what was collected alone; "prefill": both as one, every step with the same probability; "mixed":
            ``share`` of each batch from the data set, the rest from what was collected.
        share: of "mixed".
        last_share: of "mixed", reached linearly after ``anneal`` environment steps; None keeps ``share``.
        anneal: environment steps per member.

    Raises:
        InputError: shares outside [0, 1], or an annealing of no length.
    """

    kind: Literal["empty", "prefill", "mixed"] = "empty"
    share: float = 0.5
    last_share: float | None = None
    anneal: int = 0

    def __post_init__(self) -> None:
        for name in ("share", "last_share"):
            value = getattr(self, name)
            if value is not None and not 0.0 <= value <= 1.0:
                raise InputError(f"replay {name} is {value}, expected a number from 0 to 1")
        if (self.last_share is not None) != (self.anneal > 0):
            raise InputError(
                f"replay anneals from {self.share} to {self.last_share} over {self.anneal} steps, expected a last "
                "share and at least 1 step, or neither"
            )

    def share_at(self, env_steps: int) -> float:
        """The data set's share of a batch of "mixed" after ``env_steps`` steps."""
        if self.last_share is None:
            return self.share
        return self.share + (self.last_share - self.share) * min(1.0, env_steps / self.anneal)
