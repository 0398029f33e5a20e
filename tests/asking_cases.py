"""Small learners, an environment and a schedule for the tests of ``loops.query_and_learn``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from agents.preference.pebble import PEBBLE, PEBBLEConfig
from pbrl.asking.query_schedule import Interview, QuerySchedule
from pbrl.data import Segments
from pbrl.data.buffer import Buffer
from pbrl.labelers.desk import AtOnce, Desk
from pbrl.labelers.protocols import Labeler
from pbrl.labelers.teachers import Teacher
from pbrl.loops import query_and_learn
from pbrl.members import Members, sweep
from pbrl.play.collector import Collector
from pbrl.spec import Spec

from .tiny_env import LENGTH, TinyEnv, base_reward

SPEC = Spec("tiny", 3, 2, horizon=LENGTH)
SMALL = PEBBLEConfig(hidden=(8,), batch_size=6, lr=1e-2, reward_hidden=(8,), reward_batch_size=4, reward_lr=1e-2)
SCHEDULE = QuerySchedule(
    segment_length=4,
    max_queries=9,
    session_queries=4,
    query_every=10,
    candidates=3,
    recent_episodes=3,
    random_steps=12,
    unsupervised_steps=9,
    neighbours=2,
    fit_updates=15,
    reset_updates=2,
)
STEPS = 60


def good(segments: Segments) -> Tensor:
    """The return that the tiny environment ought to pay, from what a learner may see as well."""
    total: Tensor = base_reward(segments.obs.double(), segments.act.double()).sum(-1)
    return total


BY_SIGHT = Teacher(good)
"""A labeler that does not look at what the environment pays."""


@dataclass
class Case:
    """Everything of one run of the loop."""

    learner: PEBBLE
    collector: Collector
    interview: Interview
    desk: Desk

    def run(self, env_steps: int = STEPS, every: int = 10) -> list[dict[str, Tensor]]:
        """Goes on until so many steps have been taken."""
        model, agent = self.learner.model, self.learner.agent
        return list(query_and_learn(model, agent, self.desk, self.collector, self.interview, env_steps, every=every))

    def weights(self, member: int) -> list[Tensor]:
        """A member's slices of all that training changes, and its learned rewards."""
        return [*(p.detach()[member] for p in self.learner.parameters()), self.collector.buffer.rew[member]]

    def states(self) -> list[dict[str, Any]]:
        """What a checkpoint holds."""
        parts = (self.learner, self.collector.buffer, self.interview)
        return [{name: value.clone() for name, value in part.state_dict().items()} for part in parts]

    def restore(self, states: Iterable[dict[str, Any]]) -> None:
        """Goes back to it."""
        parts: tuple[Any, ...] = (self.learner, self.collector.buffer, self.interview)
        for part, state in zip(parts, states):
            part.load_state_dict(state)


def case(
    members: Members[PEBBLEConfig] | None = None,
    *,
    schedule: QuerySchedule = SCHEDULE,
    labeler: Labeler = BY_SIGHT,
    desk: Desk | None = None,
    capacity: int = 1000,
    streams: int = 1,
    factor: float = 1.0,
    constant: float | None = None,
) -> Case:
    """A run that has not begun; rewards of the environment are ``factor`` times the true ones, or ``constant``."""
    members = members or sweep(SMALL, [0, 1])
    count = len(members)
    env = TinyEnv(count * streams, SPEC, factor=factor, constant=constant, ends=True)
    learner = PEBBLE(SPEC, members)
    buffer = Buffer(SPEC, count, capacity, streams=streams, dtype=members.dtype)
    interview = Interview(SPEC, count, schedule, dtype=members.dtype)
    return Case(learner, Collector(env, buffer, learner.keys), interview, desk or AtOnce(labeler, learner.keys))


def same(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    """Whether all bits are the same."""
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other))
