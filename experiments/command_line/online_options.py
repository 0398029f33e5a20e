"""The options of ``pbrl train`` for learning in a simulator. Their docstrings are the command line's help."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from pbrl.data.buffer import Replay
from pbrl.errors import InputError

Count = Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="")]
Number = Annotated[float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint="")]
Choice = Annotated[
    Literal["prefill", "empty", "mixed"] | None,
    tyro.conf.arg(metavar="{prefill,empty,mixed}", help_behavior_hint=""),
]

RANDOM_STEPS = 1000
"""Steps taken at random at the beginning where there is no data set."""

MOST = 10**12
"""The largest count that is taken: nobody waits for more."""


@dataclass(frozen=True)
class OnlineOptions:
    """Learning in the simulator itself: after the updates on the data set, or from nothing if there is none.

    Steps are those of one member, over all its environments.
    """

    env_steps: int = 0
    """Steps of each member in the simulator. 0: it learns from data alone."""
    envs_per_member: int = 1
    """Copies of the simulator in which each member plays at the same time."""
    random_steps: Count = None
    """Steps taken at random, and without updates, at the beginning. By default 0 with a data set, 1000 without (half of
    env-steps, if that is less)."""
    updates_per_step: float = 1.0
    """Updates for each step after those."""
    replay: Choice = None
    """What updates draw from: prefill (data set and collected steps as one), empty (collected steps alone), or mixed (a
    share of each batch from the data set). By default prefill with a data set."""
    replay_share: float = 0.5
    """The data set's share of each batch, of mixed."""
    replay_last_share: Number = None
    """Share that it changes to, linearly over replay-anneal steps. By default it does not."""
    replay_anneal: int = 0
    """Steps of that change."""
    replay_capacity: int = 1_000_000
    """Steps of a member that are kept; then the oldest go."""
    eval_every_steps: Count = None
    """Steps between evaluations, and between checkpoints. By default a tenth of env-steps."""
    export: bool = False
    """Write what each member has collected as a data set, collected-<member>.hdf5, into the run's folder."""

    def __post_init__(self) -> None:
        for name, least in (
            ("env_steps", 0),
            ("envs_per_member", 1),
            ("random_steps", 0),
            ("updates_per_step", 0),
            ("replay_anneal", 0),
            ("replay_capacity", 1),
            ("eval_every_steps", 1),
        ):
            value = getattr(self, name)
            if value is not None and not least <= value <= MOST:
                expected = f"at least {least}" + f" and at most {MOST}" * (value > MOST)
                raise InputError(f"{name} is {value}, expected {expected}")
        self.replay_of(True)  # checks the shares

    @property
    def evaluations_every(self) -> int:
        """Steps between evaluations."""
        return max(1, self.env_steps // 10) if self.eval_every_steps is None else self.eval_every_steps

    @property
    def record_every(self) -> int:
        """Steps between rows of metrics: about a hundred times, and whenever there is an evaluation."""
        step, wanted = self.evaluations_every, max(1, self.env_steps // 100)
        small = [size for size in range(1, math.isqrt(step) + 1) if step % size == 0]
        return max(size for size in (*small, *(step // size for size in small)) if size <= wanted)

    def random(self, has_data: bool) -> int:
        """Random steps at the beginning."""
        if self.random_steps is not None:
            return self.random_steps
        return 0 if has_data else min(RANDOM_STEPS, self.env_steps // 2)

    def replay_of(self, has_data: bool) -> Replay:
        """What updates draw from."""
        kind = self.replay or ("prefill" if has_data else "empty")
        return Replay(kind, self.replay_share, self.replay_last_share, self.replay_anneal)
