"""How well a learner predicts labels that it has not seen."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from pbrl.agent import Judge, Learner, Personal
from pbrl.data import Pairs, Preferences
from pbrl.data.answered import answered
from pbrl.statistics import label_accuracy

_SEGMENTS = 256


def difference(learner: Learner, pairs: Pairs, dtype: torch.dtype = torch.float32) -> NDArray[np.float64] | None:
    """[P, N] by how much each member holds the second segment to be better; None if it cannot judge segments."""
    if not isinstance(learner, Judge):
        return None
    parts = []
    for obs, act in zip(pairs.segments.obs.split(_SEGMENTS), pairs.segments.act.split(_SEGMENTS)):
        parts.append(
            learner.judge(*(x.to(learner.keys.device, dtype).expand(len(learner.keys), *x.shape) for x in (obs, act)))
        )
    worth = torch.cat(parts, dim=1).double().cpu()  # [P, M]
    return (worth[:, pairs.second.cpu()] - worth[:, pairs.first.cpu()]).numpy()


def accuracy(
    learner: Learner, preferences: Preferences, dtype: torch.dtype, told: Preferences | None = None
) -> NDArray[np.float64] | None:
    """[P] share of the decisive labels that each member predicts; None if it cannot judge segments.

    A learner for many users predicts each user's labels knowing what this user has ``told`` before.
    """
    if isinstance(learner, Personal) and preferences.user is not None and told is not None and told.user is not None:
        delta = _by_user(learner, preferences, told, dtype)
    else:
        delta = difference(learner, preferences.pairs, dtype)
    if delta is None:
        return None
    share = label_accuracy((np.sign(delta) + 1.0) / 2.0, preferences.label.cpu().numpy())
    return np.atleast_1d(np.asarray(share))


def _by_user(
    learner: Learner, preferences: Preferences, told: Preferences, dtype: torch.dtype
) -> NDArray[np.float64] | None:
    """[P, N] as ``difference``, the learner being told each user's answers in turn, and nobody's at the end."""
    assert isinstance(learner, Personal)
    assert preferences.user is not None
    assert told.user is not None
    whole = np.zeros((len(learner.keys), len(preferences)))
    for user in preferences.user.unique():
        mine, known = preferences.user == user, told.user == user
        answers = answered(told.take(known), len(learner.keys), dtype, learner.keys.device) if known.any() else None
        learner.condition(answers)
        delta = difference(learner, preferences.pairs.take(mine), dtype)
        if delta is None:
            return None
        whole[:, mine.cpu().numpy()] = delta
    learner.condition(None)
    return whole
