"""The demo's labels and its training: what every labeler says, and stacks of members that learn from it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import agents
import envs
from pbrl import evaluation, loops, rng
from pbrl.agent import Agent
from pbrl.data import Dataset, Pairs, Preferences
from pbrl.data.source import Source
from pbrl.labelers.oracle import load_critic
from pbrl.labelers.teachers import make_labeler
from pbrl.members import sweep

from ..held_out import difference
from ..questions import put_aside, questions
from .settings import LABELS, STACKS, DemoConfig, agent_config


@dataclass(frozen=True, eq=False)
class Answers:
    """What one labeler says.

    Attributes:
        training: labelled pairs to learn from.
        held_out: pairs of other episodes.
        difference: [N] labeler's score of the second segment minus that of the first, for each held-out pair.
    """

    training: Preferences
    held_out: Pairs
    difference: NDArray[np.float64]


def held_aside(dataset: Dataset, config: DemoConfig) -> tuple[Dataset, Dataset]:
    """The episodes that no agent learns anything from, be it labels, transitions or their scale, and all others.

    Raises:
        InputError: too few episodes.
    """
    return put_aside(dataset, config.held_out, config.segment_length, rng.keys([config.data_seed])[0])


def ask(dataset: Dataset, path: Path, config: DemoConfig) -> dict[str, Answers]:
    """Both labelers' answers to the same questions; training and held-out pairs share no episode.

    Raises:
        InputError: no oracle critic beside the data, too few episodes, or segments longer than all of them.
    """
    key = rng.keys([config.data_seed])[0]
    held, rest = held_aside(dataset, config)
    training, unseen = questions(held, rest, config.pairs, config.held_out_pairs, config.segment_length, key)
    critic = load_critic(path)
    answers = {}
    for name in LABELS:
        labeler = make_labeler(name, critic=critic)
        score = labeler.score(unseen.segments)
        difference = (score[unseen.second] - score[unseen.first]).double().numpy()
        answers[name] = Answers(labeler(training, rng.fold(key, "answers")), unseen, difference)
        answers[name].training.check()
    return answers


@dataclass(frozen=True, eq=False)
class Trained:
    """A stack after its training.

    Attributes:
        agent: name of the algorithm.
        labels: [P] what each member learned from.
        seeds: [P].
        updates: [N] when it was evaluated.
        returns: [P, N] mean return over the episodes; NaN for a member that had diverged.
        difference: [P, pairs] score of the second segment minus that of the first on held-out pairs; None for IQL.
        seconds: of training and evaluation.
    """

    agent: str
    labels: tuple[str, ...]
    seeds: tuple[int, ...]
    updates: tuple[int, ...]
    returns: NDArray[np.float64]
    difference: NDArray[np.float64] | None
    seconds: float


def train(
    name: str,
    tick: Callable[[int, float], None],
    dataset: Dataset,
    answers: Mapping[str, Answers],
    config: DemoConfig,
) -> Trained:
    """Train and evaluate the stack of an agent; ``tick(updates, mean return)`` at the start and at evaluations.

    ``dataset`` is all that is learned from, the other side of ``held_aside``.
    """
    began = time.perf_counter()
    tick(0, np.nan)
    kinds = STACKS[name]
    members = sweep(agent_config(name, config), range(config.seeds))
    seeds = members.seeds * len(kinds)
    labels = tuple(kind for kind in kinds for _ in range(config.seeds))
    members = dataclasses.replace(members, configs=members.configs * len(kinds), seeds=seeds)
    asked = [answers[kind].training for kind in labels if kind in answers]
    source = Source.of(dataset, asked or None)
    learner = agents.find(name).make(dataset.spec, members)
    assert isinstance(learner, Agent)
    env = envs.make(dataset.env, len(members) * min(config.episodes, 10))
    updates, returns = [], []
    try:
        for _ in loops.offline(learner, source, config.updates, every=config.updates // config.evaluations):
            scores = evaluation.rollout(learner.act, env, members=len(members), episodes=config.episodes)
            updates.append(learner.updates)
            returns.append(scores.mean)
            tick(learner.updates, float(np.nanmean(scores.mean)) if np.isfinite(scores.mean).any() else np.nan)
    finally:
        env.close()
    return Trained(
        agent=name,
        labels=labels,
        seeds=seeds,
        updates=tuple(updates),
        returns=np.stack(returns, axis=1),
        difference=difference(learner, next(iter(answers.values())).held_out),
        seconds=time.perf_counter() - began,
    )
