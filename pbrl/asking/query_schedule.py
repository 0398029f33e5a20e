"""When to ask, how much, and about what; and what a run keeps of its questions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

import torch
from torch import nn

from ..data.questions import Questions
from ..errors import InputError
from ..spec import Spec
from .queries import Query
from .state_entropy import RunningScale


@dataclass(frozen=True)
class QuerySchedule:
    """Settings of ``loops.query_and_learn``; the defaults are B-Pref's for walker-walk. Steps are a member's.

    Attributes:
        query: which of the candidates are asked about, after the first session, which asks at random.
        segment_length: T, steps in a segment.
        max_queries: questions in all that wait or are answered; skipped ones do not count.
        session_queries: questions that a session asks, less those that still wait.
        query_every: steps between sessions.
        candidates: how many candidates there are for each question, where there is a choice.
        recent_episodes: only the last so many complete episodes are asked about.
        random_steps: steps at the beginning with random actions.
        unsupervised_steps: steps after that, which explore by state entropy; the first session follows.
        neighbours: k of the state entropy.
        fit_updates: at most so many updates of the reward learner per session.
        fit_accuracy: a member's session of reward learning ends when it predicts more than this share of its answers.
        reset_updates: updates of the agent on the learned rewards at once, after its critic was reset.
        updates_per_step: updates of the agent for each step after the random ones.

    Raises:
        InputError: a number out of its range, or a way to choose that is not known.
    """

    query: Query = "disagreement"
    segment_length: int = 50
    max_queries: int = 1000
    session_queries: int = 100
    query_every: int = 20_000
    candidates: int = 10
    recent_episodes: int = 100
    random_steps: int = 1000
    unsupervised_steps: int = 9000
    neighbours: int = 5
    fit_updates: int = 400
    fit_accuracy: float = 0.97
    reset_updates: int = 100
    updates_per_step: float = 1.0

    def __post_init__(self) -> None:
        if self.query not in get_args(Query):
            raise InputError(f"query is {self.query!r}, expected one of {', '.join(get_args(Query))}")
        least = dict.fromkeys(
            ("segment_length", "max_queries", "session_queries", "query_every", "candidates", "recent_episodes"), 1
        )
        least |= dict.fromkeys(("random_steps", "unsupervised_steps", "reset_updates"), 0)
        for name, low in {**least, "neighbours": 1, "fit_updates": 1}.items():
            if getattr(self, name) < low:
                raise InputError(f"{name} is {getattr(self, name)}, expected at least {low}")
        if not 0.0 < self.fit_accuracy <= 1.0:
            raise InputError(f"fit_accuracy is {self.fit_accuracy:g}, expected a share above 0 and at most 1")
        if not 0.0 <= self.updates_per_step < math.inf:
            raise InputError(f"updates_per_step is {self.updates_per_step:g}, expected at least 0")

    def sessions(self, env_steps: int) -> int:
        """How many sessions there have been after so many steps."""
        since = env_steps - self.random_steps - self.unsupervised_steps
        return 0 if since < 0 else 1 + since // self.query_every

    def updates(self, env_steps: int) -> int:
        """How many updates of the agent are due after so many steps, less those after the reset."""
        return math.floor(max(0, env_steps - self.random_steps) * self.updates_per_step + 1e-9)


class Interview(nn.Module):
    """What ``loops.query_and_learn`` keeps beside the learners and the buffer, to be saved with them.

    Attributes:
        schedule: when to ask what.
        questions: what was asked and answered.
        scale: of the state entropy.
    """

    def __init__(
        self,
        spec: Spec,
        members: int,
        schedule: QuerySchedule,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        self.schedule = schedule
        length = schedule.segment_length
        self.questions = Questions(spec, members, schedule.max_queries, length, dtype=dtype, device=device)
        self.scale = RunningScale(members, device=device)
