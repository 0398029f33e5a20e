"""Population-based training on a stack (Jaderberg et al. 2017): worse members become copies of better ones, and vary.

Two pure functions: ``exploit``, from scores to whom each member copies, and ``explore``, from settings to varied ones.
``copy_members`` and ``set_values`` carry them out on a learner: weights, optimiser moments and running statistics are
tensors [P, ...], so that copying a member is copying rows. ``places`` finds where a learner holds its settings.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .. import rng
from ..errors import InputError
from ..members import Members
from ..nets.running import RewardScale
from ..optim import Adam
from .episode_returns import EpisodeReturns


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
    best = min(count, int((~scores.isnan()).sum()))  # nobody becomes one that has no score
    if best:
        drawn = rng.indices(rng.fold(key, "exploit"), count, best)
        source[order[:count]] = order[members - best :][drawn]
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


def stacked(make: Callable[[Members[Any]], nn.Module], members: Members[Any]) -> dict[str, int]:
    """The tensors of a learner's state that have rows for each of P members: name -> G, where there are G P rows.

    Row g P + p is member p's. Found by making the learner twice as large, so that no agent need say it.
    """
    calm = dataclasses.replace(members, compile=False)
    twice = dataclasses.replace(calm, configs=calm.configs * 2, seeds=calm.seeds * 2)
    large, found = dict(_tensors(make(twice))), {}
    for name, tensor in _tensors(make(calm)):
        if tensor.dim() and len(large[name]) == 2 * len(tensor):
            found[name] = len(tensor) // len(members)
    return found


@torch.no_grad()
def copy_members(learner: nn.Module, source: Tensor, stacks: Mapping[str, int], *, wholly: bool = False) -> None:
    """Each member becomes the one that ``source`` [P] names: weights, optimiser moments, statistics and settings.

    A copy keeps its own key, so that it plays other episodes than the member that it was copied from, and what is about
    its own running episodes, which it goes on with.

    Args:
        stacks: see ``stacked``.
        wholly: copy these two as well.
    """
    members, own = len(source), set() if wholly else _own(learner)
    copied = source != torch.arange(members, device=source.device)
    for name, tensor in _tensors(learner):
        if name in stacks and name not in own:
            tensor.copy_(tensor[_rows(source, stacks[name])].clone())
    for module in learner.modules():
        if (
            isinstance(module, EpisodeReturns) and not wholly
        ):  # what another policy has begun says nothing about this one
            changed = copied.repeat(len(module.age) // members)[:, None]
            module.whole.copy_(torch.where(changed, (module.age == 0).to(module.whole.dtype), module.whole))
    _refresh(learner)


def places(
    make: Callable[[Members[Any]], nn.Module], members: Members[Any], names: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """Where a learner holds settings: for each the names of the buffers [G P] that are its values, row for row.

    Found by making learners with other values, so that no agent need say it.

    Raises:
        InputError: a setting that is not a number per member, or that decides about more than such buffers, such as
            what weights begin with.
    """
    calm = dataclasses.replace(members, compile=False)
    before, found = dict(_tensors(make(calm))), {}
    for name in names:
        values = [getattr(config, name) for config in calm.configs]
        if any(type(value) is not float for value in values):
            raise InputError(f"{name} is {values[0]!r}, expected a setting that is a number to explore")
        changed = dataclasses.replace(calm, configs=tuple(_other(config, name) for config in calm.configs))
        old, new, paths = calm.column(name), changed.column(name), []
        for path, tensor in _tensors(make(changed)):
            was = before.get(path)
            if was is not None and torch.equal(was, tensor):
                continue
            many = len(tensor) // len(calm) if was is not None and tensor.dim() == 1 else 0
            if (
                was is None
                or not many
                or not torch.equal(tensor, new.repeat(many))
                or not torch.equal(was, old.repeat(many))
            ):
                raise InputError(f"{name} decides how training begins, expected a setting that can vary on the way")
            paths.append(path)
        if not paths:
            raise InputError(f"{name} is fixed when training begins, expected a setting that can vary on the way")
        found[name] = tuple(paths)
    return found


def values_of(learner: nn.Module, places: Mapping[str, tuple[str, ...]], members: int) -> dict[str, Tensor]:
    """The present values of settings: {name: [P]}."""
    buffers = dict(_tensors(learner))
    return {name: buffers[paths[0]][:members].clone() for name, paths in places.items()}


@torch.no_grad()
def set_values(learner: nn.Module, settings: Mapping[str, Tensor], places: Mapping[str, tuple[str, ...]]) -> None:
    """Settings {name: [P]} go wherever the learner holds them; see ``places``.

    Raises:
        InputError: a setting without a place.
    """
    buffers = dict(_tensors(learner))
    for name, values in settings.items():
        if name not in places:
            raise InputError(f"{name!r} has no place in {type(learner).__name__}, expected one of {', '.join(places)}")
        for path in places[name]:
            buffers[path].copy_(values.repeat(len(buffers[path]) // len(values)))
    _refresh(learner)


def _tensors(learner: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from learner.named_parameters()
    yield from learner.named_buffers()


def _rows(source: Tensor, groups: int) -> Tensor:
    """Whom each of G P rows copies."""
    return (torch.arange(groups, device=source.device)[:, None] * len(source) + source).flatten()


def _own(learner: nn.Module) -> set[str]:
    """The names of a learner's keys, and of buffers about episodes that a member is in the midst of."""
    running = {RewardScale: ("returns",), EpisodeReturns: ("gained", "discount", "age", "whole")}
    episodes = {
        f"{path}.{name}".removeprefix(".")
        for path, module in learner.named_modules()
        for kind, names in running.items()
        if isinstance(module, kind)
        for name in names
    }
    return episodes | {name for name, _ in learner.named_buffers() if name.rpartition(".")[2] == "keys"}


def _other(config: Any, name: str) -> Any:
    """The config with another legal value of a setting.

    Raises:
        InputError: it can have no other value.
    """
    value = getattr(config, name)
    for other in (0.9 * value, 1.1 * value, value + 0.1, value - 0.1):
        try:
            if other != value:
                return dataclasses.replace(config, **{name: other})
        except InputError:
            continue
    raise InputError(f"{name} is {value} and can hardly be anything else, expected another setting to explore")


def _refresh(learner: nn.Module) -> None:
    for module in learner.modules():
        if isinstance(module, Adam):
            module.read_rates()
