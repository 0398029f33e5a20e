"""The options of ``pbrl train`` for agents that ask while they learn. Their docstrings are the command line's help."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated

import tyro

from pbrl.asking.queries import Query
from pbrl.asking.query_schedule import QuerySchedule
from pbrl.errors import InputError

from .online_options import RANDOM_STEPS, OnlineOptions

Count = Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="")]


@dataclass(frozen=True)
class QueryOptions:
    """Questions in the loop, for agents that ask about what they have done in the simulator.

    Counts are a member's. A scripted teacher (--labels, --label-beta, ...) answers at once.
    """

    query: Query = QuerySchedule.query
    """What is asked about, of many candidates: uniform (the first ones), or those with the largest disagreement of the
    reward's copies, entropy of their prediction, or distance from what was asked (k_centre)."""
    queries: int = QuerySchedule.max_queries
    """Questions that are answered in all; skipped ones do not count."""
    session_queries: Count = None
    """Questions per session. By default a tenth of queries."""
    query_every: Count = None
    """Steps between sessions. By default such that the last one is half-way from the first to the end of the run, and
    20000 at most."""
    query_candidates: int = QuerySchedule.candidates
    """Candidates for each question."""
    recent_episodes: int = QuerySchedule.recent_episodes
    """Only the last so many complete episodes are asked about."""
    unsupervised_steps: Count = None
    """Steps after the random ones that explore by state entropy, until the first questions. By default a tenth of
    env-steps, and 9000 at most; here the random ones are by default a twentieth, and 1000 at most."""
    neighbours: int = QuerySchedule.neighbours
    """k of the state entropy."""
    fit_updates: int = QuerySchedule.fit_updates
    """At most so many updates of the reward model per session."""
    fit_accuracy: float = QuerySchedule.fit_accuracy
    """The reward model is fitted until it predicts more than this share of the answers."""
    reset_updates: int = QuerySchedule.reset_updates
    """Updates of the agent at once after the first session, when its critics begin afresh."""

    def __post_init__(self) -> None:
        for name in ("session_queries", "query_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}, expected at least 1")
        if self.unsupervised_steps is not None and self.unsupervised_steps < 0:
            raise InputError(f"unsupervised_steps is {self.unsupervised_steps}, expected at least 0")
        if self.queries < 1:
            raise InputError(f"queries is {self.queries}, expected at least 1")
        self.schedule(OnlineOptions(), 1, 1)  # checks the rest

    def schedule(self, online: OnlineOptions, segment_length: int, episode: int) -> QuerySchedule:
        """When to ask what.

        Args:
            online: how long the run is.
            segment_length: steps in a segment.
            episode: steps that a member takes until it has a whole episode, which come before the first question.
        """
        steps = online.env_steps
        random = min(RANDOM_STEPS, steps // 20) if online.random_steps is None else online.random_steps
        unsupervised = self.unsupervised_steps
        if unsupervised is None:
            unsupervised = max(min(9000, steps // 10), episode - random)
        session = max(1, self.queries // 10) if self.session_queries is None else self.session_queries
        every = self.query_every
        if every is None:
            gaps = max(1, -(-self.queries // session) - 1)
            every = max(1, min(20_000, (steps - random - unsupervised) // 2 // gaps))
        same = ("query", "recent_episodes", "neighbours", "fit_updates", "fit_accuracy", "reset_updates")
        return QuerySchedule(
            **{name: getattr(self, name) for name in same},
            segment_length=segment_length,
            max_queries=self.queries,
            session_queries=session,
            query_every=every,
            candidates=self.query_candidates,
            random_steps=random,
            unsupervised_steps=unsupervised,
            updates_per_step=online.updates_per_step,
        )


QUERY_OPTIONS = tuple(item.name for item in dataclasses.fields(QueryOptions))
