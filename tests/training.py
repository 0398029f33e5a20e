"""How the contract brings a learner what it wants: the tiny data, or a tiny environment that is like them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pbrl import rng
from pbrl.agent import Learner
from pbrl.arena import Arena, Compared
from pbrl.data import By, Dataset, Preferences, Rankings
from pbrl.data.source import Source
from pbrl.labelers.teachers import partial_return_labeler
from pbrl.loops import Playing, offline, on_policy

from .tiny_env import TinyEnv


@dataclass(frozen=True)
class Training:
    """A learner with what it learns from.

    Attributes:
        run: ``run(updates, every)`` trains until so many updates have been made; yields metrics.
        state: what a checkpoint holds beside the learner, as a module.
    """

    run: Callable[[int, int], Iterator[dict[str, Tensor]]]
    state: nn.Module


def training(learner: Learner, data: tuple[Dataset, Preferences], dtype: torch.dtype) -> Training:
    """The training of a learner, by what it wants."""
    dataset, preferences = data
    if "rollout" in learner.wants():
        return _on_policy(learner, dataset, dtype)
    source = Source.of(dataset, preferences, rankings=rankings(dataset, preferences), dtype=dtype)
    return Training(lambda updates, every: offline(learner, source, updates, every=every), nn.Module())


def rankings(dataset: Dataset, preferences: Preferences) -> Rankings:
    """Twenty lists of three segments, of the length that the pairs have, by their return."""
    length = preferences.pairs.segments.obs.shape[1]
    segments, lists = Rankings.sample(dataset, 20, 3, length, rng.keys([6])[0])
    assert segments.rew is not None
    return Rankings.by_score(segments, lists, segments.rew.sum(1), By("returns"))


def _on_policy(learner: Any, dataset: Dataset, dtype: torch.dtype) -> Training:
    env = TinyEnv.like(dataset, len(learner.keys) * learner.environments)
    playing = Playing(env, learner.keys, dtype=dtype)
    if not isinstance(learner, Compared):
        return Training(lambda updates, every: on_policy(learner, playing, updates, every=every), playing)
    arena = Arena(partial_return_labeler(), learner, env.spec)
    both = nn.ModuleDict({"playing": playing, "arena": arena})
    return Training(lambda updates, every: on_policy(learner, playing, updates, every=every, prepare=arena), both)
