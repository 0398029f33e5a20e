"""What a learner must be able to do. Protocols: there is nothing to inherit.

A learner lives in one file of ``agents/`` and is an nn.Module (so that ``state_dict`` holds all its state) made by
``Learner(spec, members)``. It says what it ``wants`` for its next update, and a loop of ``pbrl.loops`` brings it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from .data.source import Batch, LabelledPairs, Source, Transitions, Wants

Metrics = Mapping[str, Tensor]
"""Names to [P], one number per member."""


@runtime_checkable
class Learner(Protocol):
    """P members that are trained in lock-step."""

    @property
    def keys(self) -> Tensor:
        """[P] int64, the members' keys."""
        ...

    @property
    def updates(self) -> int:
        """How many updates have been made."""
        ...

    def wants(self) -> Wants:
        """What the next update takes: kinds of batch and how many items of each per member."""
        ...

    def update(self, batch: Batch) -> Metrics:
        """One step of training on a batch."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything that training changes (nn.Module's)."""
        ...

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any:
        """Restores it (nn.Module's)."""
        ...


@runtime_checkable
class Agent(Learner, Protocol):
    """A learner that acts, by what it sees alone, or by the episode so far too (``pbrl.play.memory.Remembering``)."""

    def act(self, obs: Tensor, key: Tensor | None = None) -> Tensor:
        """obs [P, B, O] -> actions [P, B, A] in [-1, 1]: greedy, or sampled where there is a key [P]."""
        ...


@runtime_checkable
class RewardLearner(Learner, Protocol):
    """A learner whose product is a reward."""

    def reward(self, obs: Tensor, act: Tensor) -> Tensor:
        """obs [P, B, O], act [P, B, A] -> [P, B]."""
        ...


@runtime_checkable
class Committee(Protocol):
    """A learner that says how likely it holds each segment of a pair to be the better one, in several voices."""

    def chances(self, obs: Tensor, act: Tensor) -> Tensor:
        """P(second preferred) by each of E copies: obs [P, N, 2, T, O], act [P, N, 2, T, A] -> [P, E, N]."""
        ...


@runtime_checkable
class ForgetsCritic(Protocol):
    """An agent that can begin to learn its values afresh, as when the reward it learns from becomes another one."""

    def forget_critic(self) -> None:
        """Critics, their targets and their optimisers are as they were before the first update."""
        ...


@runtime_checkable
class Asker(Protocol):
    """A reward learner and an agent that learns from its rewards, as ``loops.query_and_learn`` trains them in turns."""

    @property
    def model(self) -> RewardLearner:
        """Learns from labelled pairs."""
        ...

    @property
    def agent(self) -> Agent:
        """Learns from transitions."""
        ...


@runtime_checkable
class Judge(Protocol):
    """A learner that can say which of two segments it holds to be better."""

    def judge(self, obs: Tensor, act: Tensor) -> Tensor:
        """What each segment is worth, higher being better: obs [P, M, T, O], act [P, M, T, A] -> [P, M]."""
        ...


@runtime_checkable
class Personal(Protocol):
    """A learner for many users, which acts and judges for the one whose answers it is told."""

    def condition(self, answers: LabelledPairs | None) -> None:
        """Serve from now on the user who gave these answers (for each member its own); None: nobody known."""
        ...


@runtime_checkable
class Staged(Protocol):
    """A learner that trains in stages, or does something to its data before it draws from them."""

    @property
    def boundaries(self) -> tuple[int, ...]:
        """Counts of updates at which a new stage begins, in order; () for one stage."""
        ...

    def prepare(self, source: Source) -> Source:
        """The data of the present stage. A function of the learner's state: it is called again after a resume."""
        ...


@runtime_checkable
class Prepares(Protocol):
    """A learner whose ``prepare`` changes transitions in a way that it can repeat for steps collected later."""

    def as_prepared(self, batch: Transitions) -> Transitions:
        """Raw transitions as ``prepare`` would have made them. What it goes by is in the state_dict."""
        ...


@runtime_checkable
class GoesOnline(Protocol):
    """An agent that learns in one way from data and in another once it plays in the simulator itself."""

    def go_online(self) -> None:
        """From now on it learns from what it does. It acts as before, to the bit; done twice, it changes nothing."""
        ...

    def online_wants(self) -> Wants:
        """What an update takes then: transitions, or a rollout."""
        ...


class Count(nn.Module):
    """A number that is saved with the module that owns it."""

    def __init__(self) -> None:
        super().__init__()
        self.value = 0

    def get_extra_state(self) -> Tensor:
        """The number, as a tensor."""
        return torch.tensor(self.value)

    def set_extra_state(self, state: Tensor) -> None:
        """Restores the number."""
        self.value = int(state)
