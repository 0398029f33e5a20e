"""Population-based training on a stack (Jaderberg et al. 2017): worse members become copies of better ones, and vary.

Two pure functions: ``exploit``, from scores to whom each member copies, and ``explore``, from settings to varied ones.
``copy_members`` and ``set_values`` carry them out on a learner: weights, optimiser moments and running statistics are
tensors [P, ...], so that copying a member is copying rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from . import rng
from .errors import InputError
from .optim import Adam


@dataclass(frozen=True)
class Explored:
    """How a setting varies.

    Attributes:
        low: the least value.
        high: the largest one.
        factors: a copy's value is multiplied by one of these two, at even chances, and kept within the bounds.
        resample: the chance that it is drawn anew from the whole range instead.
        log: whether it is drawn evenly by its logarithm.

    Raises:
        InputError: bounds that do not rise, a logarithm of what is not positive, or a chance outside [0, 1].
    """

    low: float
    high: float
    factors: tuple[float, float] = (0.8, 1.2)
    resample: float = 0.0
    log: bool = False

    def __post_init__(self) -> None:
        if not -math.inf < self.low < self.high < math.inf:
            raise InputError(f"a setting varies from {self.low} to {self.high}, expected finite numbers that rise")
        if self.log and self.low <= 0.0:
            raise InputError(f"a setting varies by its logarithm from {self.low}, expected a bound above 0")
        if not 0.0 <= self.resample <= 1.0:
            raise InputError(f"the chance to resample is {self.resample}, expected at least 0 and at most 1")


def exploit(scores: Tensor, share: float, key: Tensor) -> Tensor:
    """Truncation selection: scores [P] -> [P] int64, whom each member copies (itself where it goes on).

    Each of the worst ceil(share P), at most half, copies one of as many best, drawn evenly by ``key`` (a scalar). Ranks
    decide, so that equal scores do not stop it; a score that is not a number is the worst.

    Raises:
        InputError: a share outside (0, 1/2].
    """
    if not 0.0 < share <= 0.5:
        raise InputError(f"the share that is replaced is {share}, expected above 0 and at most 0.5")
    members = len(scores)
    count = min(math.ceil(share * members), members // 2)
    order = torch.where(scores.isnan(), -math.inf, scores).argsort(stable=True)
    source = torch.arange(members, device=scores.device)
    if count:
        drawn = rng.indices(rng.fold(key, "exploit"), count, count)
        source[order[:count]] = order[members - count :][drawn]
    return source


def explore(
    settings: Mapping[str, Tensor], source: Tensor, specs: Mapping[str, Explored], key: Tensor
) -> dict[str, Tensor]:
    """Settings {name: [P]} after copying from ``source`` [P]: copies vary as ``specs`` says, others stay as they are.

    Draws depend on ``key`` (a scalar), the setting's name and the member's place.

    Raises:
        InputError: a setting that there is not.
    """
    copied = source != torch.arange(len(source), device=source.device)
    result = dict(settings)
    for name, spec in specs.items():
        if name not in settings:
            raise InputError(f"unknown setting {name!r} to explore, expected one of {', '.join(settings)}")
        old = settings[name]
        chance, side, place = rng.uniform(rng.fold(key, "explore", name), 3, len(source), dtype=torch.float64)
        factor = torch.where(side < 0.5, spec.factors[0], spec.factors[1])
        ends = (math.log(spec.low), math.log(spec.high)) if spec.log else (spec.low, spec.high)
        anew = ends[0] + place * (ends[1] - ends[0])
        varied = torch.where(chance < spec.resample, anew.exp() if spec.log else anew, old[source] * factor)
        result[name] = torch.where(copied, varied.clamp(spec.low, spec.high).to(old.dtype), old)
    return result


@torch.no_grad()
def copy_members(learner: nn.Module, source: Tensor, *, keep: tuple[str, ...] = ("keys",)) -> None:
    """Every tensor [P, ...] of a learner's state takes its rows from ``source`` [P], but for buffers named ``keep``.

    A copy has its own key still: it plays other episodes than the member that it was copied from.
    """
    members = len(source)
    for name, tensor in (*learner.named_parameters(), *learner.named_buffers()):
        if name.rpartition(".")[2] not in keep and tensor.dim() and len(tensor) == members:
            tensor.copy_(tensor[source].clone())
    _refresh(learner)


@torch.no_grad()
def set_values(learner: nn.Module, settings: Mapping[str, Tensor]) -> None:
    """Settings {name: [P]} go wherever the learner has a buffer of that name, learning rates included.

    Raises:
        InputError: the learner has no such buffer.
    """
    for name, values in settings.items():
        found = [
            x for path, x in learner.named_buffers() if path.rpartition(".")[2] == name and x.shape == values.shape
        ]
        if not found:
            raise InputError(f"{type(learner).__name__} holds no setting {name!r} per member, expected one of its own")
        for buffer in found:
            buffer.copy_(values)
    _refresh(learner)


def _refresh(learner: nn.Module) -> None:
    for module in learner.modules():
        if isinstance(module, Adam):
            module.read_rates()
