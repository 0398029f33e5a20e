"""Two stages: a reward is fitted to preferences, then an agent learns from it. Members have rewards of their own."""

from __future__ import annotations

from typing import Any, ClassVar, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from ..agent import Agent, Judge, Metrics, RewardLearner, Staged
from ..data.dataset import Dataset
from ..data.source import Batch, Source, Wants
from ..errors import InputError

_ROWS = 1 << 14


class SegmentReward(RewardLearner, Judge, Protocol):
    """What a first stage learns: a reward that is fitted to preferences between segments."""


R = TypeVar("R", bound=SegmentReward)
A = TypeVar("A", bound=Agent)


class RewardFirst(nn.Module, Generic[R, A]):
    """Stacked learners that fit a reward to preferences first, and let an agent learn from it then.

    Attributes:
        name: what an error calls the learner.
        config: has ``reward_updates``, the updates of the first stage.
        model: the reward learner.

    Args:
        called: the attribute that the agent is, and so its part of the names in the state_dict.
    """

    name: ClassVar[str]

    def __init__(self, config: Any, model: R, agent: A, called: str) -> None:
        super().__init__()
        self.config, self.model = config, model
        self._called = called
        setattr(self, called, agent)

    @property
    def second(self) -> A:
        """The agent, who learns in the second stage."""
        agent: A = getattr(self, self._called)
        return agent

    @property
    def keys(self) -> Tensor:
        """[P] int64, the members' keys."""
        return self.second.keys

    @property
    def updates(self) -> int:
        """How many updates have been made, of both stages."""
        return self.model.updates + self.second.updates

    @property
    def boundaries(self) -> tuple[int, ...]:
        """The second stage begins after ``reward_updates``."""
        return (self.config.reward_updates,)

    def prepare(self, source: Source) -> Source:
        """In the second stage, the source with each member's learned rewards.

        Raises:
            InputError: a source without a data set, or one that the reward learner cannot learn from.
        """
        if source.dataset is None:
            raise InputError(f"{self.name} learns from transitions too, expected a data set and not preferences alone")
        if isinstance(self.model, Staged):
            source = self.model.prepare(source)
        if self.updates < self.config.reward_updates:
            return source
        return source.with_reward(self.relabel(source.dataset))

    def relabel(self, data: Dataset) -> Tensor:
        """Each member's learned rewards of all rows of a data set: [P, N]."""
        like = next(self.parameters())
        obs, act = (x.to(like).expand(len(self.keys), -1, -1) for x in (data.obs, data.act))
        parts = [self.model.reward(o, a) for o, a in zip(obs.split(_ROWS, 1), act.split(_ROWS, 1))]
        return torch.cat(parts, dim=1)

    def wants(self) -> Wants:
        """What the reward learner takes, usually labelled pairs; then what the agent does."""
        return self.model.wants() if self.updates < self.config.reward_updates else self.second.wants()

    def act(self, obs: Tensor, key: Tensor | None = None) -> Tensor:
        """obs [P, B, O] -> [P, B, A]."""
        return self.second.act(obs, key)

    def reward(self, obs: Tensor, act: Tensor) -> Tensor:
        """The learned reward, not scaled: obs [P, B, O], act [P, B, A] -> [P, B]."""
        return self.model.reward(obs, act)

    def judge(self, obs: Tensor, act: Tensor) -> Tensor:
        """Each segment's learned reward: obs [P, M, T, O], act [P, M, T, A] -> [P, M]."""
        return self.model.judge(obs, act)

    def update(self, batch: Batch) -> Metrics:
        """One step of the reward learner, then of the agent."""
        return self.model.update(batch) if self.updates < self.config.reward_updates else self.second.update(batch)
