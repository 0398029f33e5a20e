"""What a tabular learner must be able to do. Protocols: there is nothing to inherit.

A learner lives in one file of ``agents/tabular/`` and is made by ``Learner(spec, members)`` like any other agent: P
members in lock-step, each with its own key and config. It plans, is shown how often each transition then happened, and
plans again. It never sees the MDP.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .mdps import EpisodicMDP, Floats, law

Metrics = Mapping[str, Floats]
"""Names to [P], one number per member."""


@dataclass(frozen=True, eq=False)
class TabularSpec:
    """Everything that a tabular learner may know about an episodic problem.

    Attributes:
        reward: [H, S, A] or [P, H, S, A], in [0, 1].
        start: [S] law of the first state.
        baseline: [H, S, A] or [P, H, S, A], a policy that is known to be safe; None if there is none.
        threshold: what every episode's expected return must reach; a number or [P].
        offline: [H, S, A, S'] or [P, H, S, A, S'] counts of transitions that were recorded before.

    Raises:
        InputError: rewards outside [0, 1], or shapes that do not fit.
    """

    reward: Floats
    start: Floats
    baseline: Floats | None = None
    threshold: float | Floats | None = None
    offline: Floats | None = None

    def __post_init__(self) -> None:
        if self.reward.min() < 0.0 or self.reward.max() > 1.0:
            raise InputError(
                f"rewards lie in [{self.reward.min():g}, {self.reward.max():g}], expected [0, 1]: the widths are theirs"
            )
        if self.baseline is not None and law(self.baseline, "baseline").shape[-3:] != self.shape:
            raise InputError(f"baseline is {list(self.baseline.shape)}, expected [P?, H, S, A] {list(self.shape)}")
        if self.offline is not None and self.offline.shape[-4:] != (*self.shape, self.shape[1]):
            raise InputError(f"offline is {list(self.offline.shape)}, expected counts [P?, H, S, A, S']")

    @classmethod
    def of(
        cls,
        mdp: EpisodicMDP,
        baseline: Floats | None = None,
        threshold: float | Floats | None = None,
        offline: Floats | None = None,
    ) -> TabularSpec:
        """What may be known about ``mdp``: all but its transitions."""
        return cls(mdp.reward, mdp.first, baseline, threshold, offline)

    @property
    def shape(self) -> tuple[int, int, int]:
        """H, S and A."""
        horizon, states, actions = self.reward.shape[-3:]
        return horizon, states, actions


class Plan(NamedTuple):
    """What is to be played until the next plan: one of N policies per episode, drawn anew for each.

    Attributes:
        policies: [P, N, H, S, A].
        weights: [P, N] their probabilities.
        lower: [P] a lower confidence bound on the plan's value; -inf if the learner has none.
        upper: [P] an upper confidence bound on the optimal value; inf if it has none.
    """

    policies: Floats
    weights: Floats
    lower: Floats
    upper: Floats

    @classmethod
    def single(cls, policy: Floats, lower: Floats | None = None, upper: Floats | None = None) -> Plan:
        """One policy [P, H, S, A]."""
        size = len(policy)
        none = np.full(size, -np.inf) if lower is None else lower
        return cls(policy[:, None], np.ones((size, 1)), none, np.full(size, np.inf) if upper is None else upper)


@runtime_checkable
class TabularLearner(Protocol):
    """P members that learn an episodic MDP in lock-step."""

    @property
    def keys(self) -> NDArray[np.int64]:
        """[P] the members' keys."""
        ...

    @property
    def episodes(self) -> int:
        """How many episodes have been seen."""
        ...

    def plan(self, episodes: int, /) -> Plan:
        """What to play in the next ``episodes`` episodes."""
        ...

    def update(self, counts: Floats, episodes: int) -> Metrics:
        """Take in how often each transition happened, [P, H, S, A, S'], in ``episodes`` episodes."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything that learning changes, as arrays and numbers."""
        ...

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restores it."""
        ...
