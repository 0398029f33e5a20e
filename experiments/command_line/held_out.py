"""How well a learner predicts labels that it has not seen."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pbrl.agent import Agent, Learner, RewardLearner
from pbrl.data import Preferences
from pbrl.statistics import label_accuracy

_SEGMENTS = 256


def predicted_delta(learner: Learner, preferences: Preferences, members: int, dtype: torch.dtype) -> NDArray[Any]:
    """[P, N] by how much each member holds the second segment to be better.

    A learner of rewards adds up its rewards. A policy is asked how near its greedy actions come to those of a segment,
    minus the squared distance, which for a deterministic policy is its log-likelihood.
    """
    segments = preferences.pairs.segments
    parts = []
    for obs, act in zip(segments.obs.split(_SEGMENTS), segments.act.split(_SEGMENTS)):
        shape = (members, *obs.shape[:2])
        flat = [x.to(learner.keys.device, dtype).flatten(0, 1).expand(members, -1, -1) for x in (obs, act)]
        parts.append(_steps(learner, *flat).reshape(shape).sum(-1))
    score = torch.cat(parts, dim=1).cpu()  # [P, M]
    delta: NDArray[Any] = (score[:, preferences.pairs.second.cpu()] - score[:, preferences.pairs.first.cpu()]).numpy()
    return delta


def _steps(learner: Learner, obs: Tensor, act: Tensor) -> Tensor:
    """obs [P, B, O], act [P, B, A] -> [P, B]."""
    with torch.no_grad():
        if isinstance(learner, RewardLearner):
            return learner.reward(obs, act)
        assert isinstance(learner, Agent)
        return -(learner.act(obs) - act).square().sum(-1)


def accuracy(learner: Learner, preferences: Preferences, members: int, dtype: torch.dtype) -> NDArray[Any]:
    """[P] share of the decisive labels that each member predicts."""
    delta = predicted_delta(learner, preferences, members, dtype)
    share = label_accuracy((np.sign(delta) + 1.0) / 2.0, preferences.label.cpu().numpy())
    return np.atleast_1d(np.asarray(share))
