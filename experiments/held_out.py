"""How well a learner predicts labels that it has not seen."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from pbrl.agent import Judge, Learner
from pbrl.data import Pairs, Preferences
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


def accuracy(learner: Learner, preferences: Preferences, dtype: torch.dtype) -> NDArray[np.float64] | None:
    """[P] share of the decisive labels that each member predicts; None if it cannot judge segments."""
    delta = difference(learner, preferences.pairs, dtype)
    if delta is None:
        return None
    share = label_accuracy((np.sign(delta) + 1.0) / 2.0, preferences.label.cpu().numpy())
    return np.atleast_1d(np.asarray(share))
