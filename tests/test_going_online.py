"""Agents that go from data into the simulator, on the point mass: what they gain there, and what they lose at first.

Data are of a policy of medium skill. Scores are of greedy episodes in environments of their own, the same every time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import agents
import envs
from experiments.datasets.make import make_data
from pbrl import evaluation, loops
from pbrl.data import Dataset
from pbrl.data.buffer import Buffer, Replay
from pbrl.data.reference_scores import normalise
from pbrl.data.source import Source
from pbrl.handover import Handover, handover
from pbrl.members import sweep
from pbrl.play.collector import Collector
from pbrl.play.vector_env import Flags, RestartableEnv

ENV = "PointMass1D-v0"
EPISODES = 5
BONUS = 2.0
"""Added to every reward, so that values are above 0, where critics begin."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_data(ENV, "medium", 2000, 0, Path(tmp_path_factory.mktemp("data")), progress=False).dataset


class Paying:
    """An environment that pays ``BONUS`` more for each step."""

    def __init__(self, env: RestartableEnv) -> None:
        self.env, self.spec, self.copies = env, env.spec, env.copies
        self.reset, self.restart, self.close = env.reset, env.restart, env.close

    def step(self, act: NDArray[np.float64]) -> tuple[Any, Any, Flags, Flags]:
        obs, rew, term, trunc = self.env.step(act)
        return obs, rew + BONUS, term, trunc


def journey(
    name: str,
    data: Dataset,
    replay: Replay,
    *,
    seeds: range = range(5),
    updates: int = 400,
    env_steps: int = 600,
    every: int = 100,
    **settings: Any,
) -> Handover:
    """The same learner on data first and in the simulator then."""
    algorithm = agents.find(name)
    small: dict[str, Any] = {"lr": 1e-3, "hidden": (32, 32), "batch_size": 64, "normalize_obs": True}
    learner: Any = algorithm.make(data.spec, sweep(algorithm.config(**{**small, **settings}), seeds))
    source = Source.of(data)
    assert source.rew is not None
    source = source.with_reward(source.rew + BONUS)
    list(loops.offline(learner, source, updates, every=updates))
    prepared = learner.prepare(source) if hasattr(learner, "prepare") else source
    steps, scores = [0], [score(learner, data, len(seeds))]
    env = Paying(envs.make(ENV, len(seeds)))
    buffer = Buffer(env.spec, len(seeds), env_steps, data=None if replay.kind == "empty" else prepared, replay=replay)
    for _ in loops.online(learner, Collector(env, buffer, learner.keys), env_steps, every=every):
        steps.append(buffer.env_steps)
        scores.append(score(learner, data, len(seeds)))
    env.close()
    return handover(steps, np.stack(scores, axis=1))


def score(learner: Any, data: Dataset, members: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """[P] normalised."""
    env = envs.make(ENV, members * EPISODES)
    played = evaluation.rollout(learner.act, env, members=members, episodes=EPISODES)
    env.close()
    low, high = data.info["reference"]
    return normalise(played.mean, (float(low), float(high)))
