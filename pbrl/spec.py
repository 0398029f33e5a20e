"""Spec: everything that an agent may know about a problem."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import InputError


@dataclass(frozen=True)
class Spec:
    """Sizes of a problem, and what an agent may know of its data.

    Actions are always in [-1, 1]: data readers and environments rescale to and from the problem's own bounds. Where
    there are ``actions`` choices instead, an action is one whole number from 0 on, and ``act_size`` is 1.

    Attributes:
        name: environment and version, with the data set where there is one, e.g. ``local/reacher/mixed-v1@Reacher-v5``.
        obs_size: O, the length of an observation.
        act_size: A, the length of an action.
        horizon: steps after which an episode is cut (a time limit, not a termination); None where there is no limit.
        objectives: K, the number of rewards per step.
        obs_mean: [O] mean of the data's observations; None where there are no data. Used where an agent normalises.
        obs_std: [O] their standard deviation.
        actions: how many choices there are; None where an action is ``act_size`` numbers in [-1, 1].

    Raises:
        InputError: a size below 1, statistics of another length than ``obs_size``, or fewer than two choices.
    """

    name: str
    obs_size: int
    act_size: int
    horizon: int | None = None
    objectives: int = 1
    obs_mean: tuple[float, ...] | None = None
    obs_std: tuple[float, ...] | None = None
    actions: int | None = None

    def __post_init__(self) -> None:
        for field in ("obs_size", "act_size", "objectives"):
            if getattr(self, field) < 1:
                raise InputError(f"Spec.{field} is {getattr(self, field)}, expected at least 1")
        if self.actions is not None and (self.actions < 2 or self.act_size != 1):
            found = f"{self.actions} choices and act_size {self.act_size}"
            raise InputError(f"Spec has {found}, expected at least 2 choices, each told by 1 number")
        for field in ("obs_mean", "obs_std"):
            value = getattr(self, field)
            if value is not None and len(value) != self.obs_size:
                raise InputError(f"Spec.{field} has {len(value)} entries, expected obs_size = {self.obs_size}")
        if (self.obs_mean is None) != (self.obs_std is None):
            raise InputError("Spec.obs_mean and Spec.obs_std go together: only one of them was given")
