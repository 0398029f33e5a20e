"""How the contract brings a learner what it wants: the tiny data, or a tiny environment that is like them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pbrl import rng
from pbrl.agent import GoesOnline, Learner, Staged
from pbrl.data import By, Dataset, Preferences, Rankings
from pbrl.data.buffer import Buffer
from pbrl.data.source import Source
from pbrl.labelers.teachers import partial_return_labeler
from pbrl.loops import Playing, offline, on_policy, online
from pbrl.loops.arena import Arena, Compared
from pbrl.play.collector import Collector

from .tiny_env import TinyEnv

HANDOVER = 5
"""Updates on data of an agent that learns in another way online, where the others make all of theirs."""


class State(Protocol):
    """What can be saved and restored."""

    def state_dict(self) -> Mapping[str, Any]:
        """All of it."""

    def load_state_dict(self, state_dict: Mapping[str, Any], /) -> Any:
        """Restores it."""


@dataclass(frozen=True)
class Training:
    """A learner with what it learns from.

    Attributes:
        run: ``run(updates, every)`` trains until so many updates have been made; yields metrics.
        state: what a checkpoint holds beside the learner.
    """

    run: Callable[[int, int], Iterator[dict[str, Tensor]]]
    state: State


def training(learner: Learner, data: tuple[Dataset, Preferences], dtype: torch.dtype) -> Training:
    """The training of a learner, by what it wants."""
    dataset, preferences = data
    if "rollout" in learner.wants():
        return _on_policy(learner, dataset, dtype)
    source = Source.of(dataset, preferences, rankings=rankings(dataset, preferences), dtype=dtype)
    if isinstance(learner, GoesOnline):
        return _two_phases(learner, source, dataset, dtype)
    return Training(lambda updates, every: offline(learner, source, updates, every=every), nn.Module())


def _two_phases(learner: Any, source: Source, dataset: Dataset, dtype: torch.dtype) -> Training:
    """The first updates on data, the others in the environment: from rollouts, or one per step of a copy."""
    if "rollout" in learner.online_wants():
        after = _on_policy(learner, dataset, dtype)
    else:
        env = TinyEnv.like(dataset, len(learner.keys))
        buffer = Buffer(env.spec, len(learner.keys), 200, data=source, dtype=dtype)
        collector = Collector(env, buffer, learner.keys)
        after = Training(lambda updates, every: online(learner, collector, updates - HANDOVER, every=every), buffer)

    def run(updates: int, every: int) -> Iterator[dict[str, Tensor]]:
        yield from offline(learner, source, min(updates, HANDOVER), every=every)
        if updates > HANDOVER:
            if isinstance(learner, Staged):
                learner.prepare(source)
            for metrics in after.run(updates, every):  # of which the return is NaN until an episode ends
                yield {name: value for name, value in metrics.items() if name != "episode_return"}

    return Training(run, after.state)


def rankings(dataset: Dataset, preferences: Preferences) -> Rankings:
    """Twenty lists of three segments, of the length that the pairs have, by their return."""
    length = preferences.pairs.segments.obs.shape[1]
    segments, lists = Rankings.sample(dataset, 20, 3, length, rng.keys([6])[0])
    assert segments.rew is not None
    return Rankings.by_score(segments, lists, segments.rew.sum(1), By("returns"))


def _on_policy(learner: Any, dataset: Dataset, dtype: torch.dtype) -> Training:
    objectives = learner.spec.objectives if hasattr(learner, "spec") else 1
    env = TinyEnv.like(dataset, len(learner.keys) * learner.environments, objectives)
    playing = Playing(env, learner.keys, dtype=dtype)
    if not isinstance(learner, Compared):
        return Training(lambda updates, every: on_policy(learner, playing, updates, every=every), playing)
    arena = Arena(partial_return_labeler(), learner, env.spec)
    both = nn.ModuleDict({"playing": playing, "arena": arena})
    return Training(lambda updates, every: on_policy(learner, playing, updates, every=every, prepare=arena), both)
