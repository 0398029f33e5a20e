"""Fitting a reward learner to the answers so far, each member until it predicts them well enough."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .. import losses, rng
from ..agent import Judge, Metrics, RewardLearner
from ..data.questions import ANSWERED, Questions
from ..errors import InputError
from ..optim import Adam

_LOOK = 10
_PAIRS = 256  # judged at once


def fit_reward(
    learner: RewardLearner, questions: Questions, fresh: Tensor, key: Tensor, *, updates: int, accuracy: float
) -> Metrics:
    """Train the members ``fresh`` [P] on their answered questions; the others stay as they are.

    A member stops as soon as it predicts more than a share ``accuracy`` of its decisive answers, which is looked at
    after every 10 updates, and after ``updates`` updates at the latest. Optimisers begin afresh, so that a member's
    training does not depend on how long others of the stack had to train.

    Args:
        learner: whose parameters are [P, ...]. Its draws are by ``key``; should it take random numbers by its count of
            updates, they depend on the whole stack, which trains until its last member stops.
        key: [P] another one for each fit.

    Returns:
        reward_accuracy [P], on all decisive answers (NaN without any), and reward_updates [P].

    Raises:
        InputError: a learner that learns from something other than pairs.
    """
    check_fits(learner)
    assert isinstance(learner, nn.Module)
    active = fresh & (questions.answered > 0)
    parameters = list(learner.parameters())
    for module in learner.modules():
        if isinstance(module, Adam):
            module.reset()
    share = _accuracy(learner, questions)
    taken = torch.zeros_like(questions.asked)
    some, everyone = bool(active.any()), bool(active.all())
    for step in range(updates):
        if not some:
            break
        before = None if everyone else [parameter.detach().clone() for parameter in parameters]
        learner.update({"pairs": questions.draw(rng.fold(key, step), learner.wants()["pairs"])})
        if before is not None:
            _restore(parameters, before, active)
        taken += active
        if (step + 1) % _LOOK == 0 or step + 1 == updates:
            share = torch.where(active, _accuracy(learner, questions), share)
            active &= ~(share > accuracy)  # NaN, of nothing but ties, is no reason to stop
            some, everyone = bool(active.any()), bool(active.all())
    return {"reward_accuracy": share, "reward_updates": taken}


def check_fits(learner: RewardLearner) -> None:
    """Raise InputError unless ``learner`` learns from labelled pairs."""
    if set(learner.wants()) != {"pairs"}:
        wanted = " and ".join(learner.wants())
        raise InputError(f"{type(learner).__name__} learns from {wanted}, expected a reward learner that wants pairs")


def _restore(parameters: list[nn.Parameter], before: list[Tensor], active: Tensor) -> None:
    """Takes the last step back for members that are not ``active`` [P]."""
    with torch.no_grad():
        for parameter, old in zip(parameters, before):
            parameter.copy_(torch.where(active.reshape(-1, *(1,) * (old.dim() - 1)), parameter, old))


def worth(learner: RewardLearner, obs: Tensor, act: Tensor) -> Tensor:
    """What segments are worth to a learner: obs [P, M, T, O], act [P, M, T, A] -> [P, M]."""
    if isinstance(learner, Judge):
        return learner.judge(obs, act)
    steps = learner.reward(obs.flatten(1, 2), act.flatten(1, 2))
    return steps.reshape(obs.shape[:3]).sum(-1)


def _accuracy(learner: RewardLearner, questions: Questions) -> Tensor:
    """[P] share of the decisive answers that the learner predicts; NaN for a member without any."""
    slots = int((questions.state == ANSWERED).any(0).nonzero().max()) + 1 if bool(questions.answered.any()) else 0
    if not slots:
        return torch.full_like(questions.answered, torch.nan, dtype=questions.label.dtype)
    parts = []
    for first in range(0, slots, _PAIRS):
        rows = slice(first, min(first + _PAIRS, slots))
        obs, act = questions.obs[:, rows], questions.act[:, rows]
        value = worth(learner, obs.flatten(1, 2), act.flatten(1, 2)).unflatten(1, (-1, 2))
        parts.append(value[..., 1] - value[..., 0])
    label = torch.where(questions.state == ANSWERED, questions.label, 0.5)[:, :slots]
    return losses.accuracy(torch.cat(parts, dim=1), label)
