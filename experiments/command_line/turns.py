"""Population-based training of a run: what is ranked, copied and varied, and the turns at which that happens."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import agents
from pbrl import rng
from pbrl.agent import Agent, Judge, Learner
from pbrl.errors import InputError
from pbrl.fronts.front import Frontier
from pbrl.members import Members
from pbrl.parts.population_based import Explored, copy_members, exploit, explore, places, set_values, stacked, values_of
from pbrl.records import lineage
from pbrl.records.run import Run
from pbrl.spec import Spec

from .arguments import Request, option
from .options import TrainOptions
from .population import Population
from .population_options import PopulationOptions
from .problem import Simulator
from .train_asking import is_page


@dataclass(frozen=True, eq=False)
class Turns:
    """How the members of a run are ranked, copied and varied.

    Attributes:
        metric: by which they are ranked.
        share: of them is replaced at a turn.
        specs: how each explored setting varies.
        places: where the learner holds it.
        stacks: which tensors have rows for members (``pbrl.parts.population_based.stacked``).
        key: of all draws.
    """

    metric: str
    share: float
    specs: Mapping[str, Explored]
    places: Mapping[str, tuple[str, ...]]
    stacks: Mapping[str, int]
    key: Tensor

    def begin(self, learner: Learner, run: Run, env_steps: int) -> None:
        """Make ``lineage.csv`` ready to go on from the learner's updates and so many steps."""
        assert isinstance(learner, nn.Module)
        present = values_of(learner, self.places, len(learner.keys))
        lineage.begin(run.folder, _numbers(present), updates=learner.updates, env_steps=env_steps)

    @torch.no_grad()
    def take(self, learner: Learner, run: Run, env_steps: int) -> None:
        """One turn: the worst members become copies of the best and vary. Nothing is copied where nobody has a score.

        It is a function of the learner and of what the run has recorded, so a run that is resumed takes the same ones.
        """
        assert isinstance(learner, nn.Module)
        members, now = len(learner.keys), learner.updates
        scores = torch.from_numpy(self.scores(run, members))
        key = rng.fold(self.key, "turn", now, env_steps)
        source = exploit(scores, self.share, key)
        present = {name: values.cpu() for name, values in values_of(learner, self.places, members).items()}
        varied = explore(present, source, self.specs, key)
        copy_members(learner, source.to(learner.keys.device), self.stacks)
        set_values(learner, varied, self.places)
        settings = _numbers(varied)
        lineage.add(run.folder, source.tolist(), scores.tolist(), settings, updates=now, env_steps=env_steps)

    def scores(self, run: Run, members: int) -> np.ndarray[Any, np.dtype[np.float64]]:
        """[P] the mean of what was recorded of the metric since the last turn; NaN where that is nothing."""
        before = lineage.last(run.folder)
        found: list[list[float]] = [[] for _ in range(members)]
        for row in run.metrics():
            later = (int(row["updates"]), int(row["env_steps"])) > before
            value = float(row["value"]) if later and row["name"] == self.metric else math.nan
            if math.isfinite(value):
                found[int(row["member"])].append(value)
        return np.array([float(np.mean(values)) if values else math.nan for values in found])


def turns_of(
    request: Request, spec: Spec, population: Population, learner: Learner, where: Simulator | None, *, held_out: bool
) -> Turns | None:
    """The turns of a run; None where it is not population-based.

    Args:
        where: the simulator that is played in, if any.
        held_out: whether there are labels to test on.

    Raises:
        InputError: options without effect, one member, members of different labelers, nothing to rank by, or settings
            that cannot be explored.
    """
    options, chosen = request.options, request.options.population
    if not chosen.population_based:
        own = {item.name for item in dataclasses.fields(PopulationOptions)} - {"population_based"}
        for name in sorted(own & request.given - set(request.shared) - set(request.swept)):
            raise InputError(f"{option(name)} has no effect without --population-based, expected both or neither")
        return None
    members = population.members
    if len(members) < 2:
        raise InputError("--population-based has one member, expected several, as in --seed 0 1 2 3")
    if len(set(population.labels)) > 1:
        found = " and ".join(dict.fromkeys(population.labels))
        raise InputError(f"--population-based ranks members by one measure, found labels {found}: expected one of them")
    if any(map(is_page, population.labels)):
        raise InputError(
            "--population-based goes on alone, found labels of a page: expected a teacher that answers at once"
        )
    names = [name.replace("-", "_") for name in chosen.explore] or _swept(request)
    fields = {field.name for field in dataclasses.fields(members.shared)}
    for name in names:
        if name not in request.swept:
            reason = "is the same for all members of a stack" if name in fields else "is no setting"
            expected = f"expected some of {', '.join(sorted(request.swept))}"
            raise InputError(f"--explore has {name}, which {reason} of {request.agent}: {expected}")
    specs = {name: _spec(members, name, chosen) for name in names}

    def make(some: Members[Any]) -> nn.Module:
        made = agents.find(request.agent).make(spec, some)
        assert isinstance(made, nn.Module)
        return made

    assert isinstance(learner, nn.Module)
    found_places = places(make, members, names)
    metric = _metric(options, learner, where, spec, held_out=held_out)
    key = rng.fold(rng.keys([options.run.seed[0]])[0], "population")
    return Turns(metric, chosen.exploit_share, specs, found_places, stacked(make, members), key)


def _swept(request: Request) -> list[str]:
    several = [name for name, values in request.swept.items() if len(values) > 1]
    if not several and "lr" not in request.swept:
        raise InputError(
            f"--population-based has nothing to explore, expected --explore with settings of {request.agent}"
        )
    return several or ["lr"]


def _spec(members: Members[Any], name: str, chosen: PopulationOptions) -> Explored:
    """How a setting varies: within multiples of its values at the beginning, and within what it may be at all."""
    values = [getattr(config, name) for config in members.configs]
    if any(type(value) is not float for value in values):
        raise InputError(f"--explore has {name}, which is {values[0]!r}, expected a setting that is a number")
    if min(values) <= 0.0:
        raise InputError(f"--explore has {name}, which begins at {min(values):g}, expected all of its values above 0")
    low, high = (
        _legal(members.shared, name, end, end * factor)
        for end, factor in zip((min(values), max(values)), chosen.explore_range)
    )
    if not low < high:
        raise InputError(f"--explore has {name}, which can be nothing but {low:g}, expected one that can vary")
    return Explored(low, high, chosen.explore_factors, chosen.explore_resample, log=True)


def _legal(config: Any, name: str, good: float, wanted: float) -> float:
    """The value nearest to ``wanted`` that the config takes, on the way from a ``good`` one."""

    def takes(value: float) -> bool:
        try:
            dataclasses.replace(config, **{name: value})
        except InputError:
            return False
        return True

    if takes(wanted):
        return wanted
    for _ in range(60):
        middle = 0.5 * (good + wanted)
        good, wanted = (middle, wanted) if takes(middle) else (good, middle)
    return good


def _metric(options: TrainOptions, learner: Learner, where: Simulator | None, spec: Spec, *, held_out: bool) -> str:
    """What members are ranked by.

    Raises:
        InputError: there is nothing.
    """
    if where is not None and options.run.episodes and isinstance(learner, Agent):
        if isinstance(learner, Frontier):
            return "hypervolume" if options.front.measured(where.env)[0] is not None else "expected_utility"
        return "score" if where.reference is not None else "return"
    if options.online.env_steps and spec.objectives == 1:
        return "episode_return"
    if held_out and isinstance(learner, Judge) and not options.online.env_steps:
        return "held_out_accuracy"
    expected = "expected a simulator and --episodes above 0" + (
        " (or --held-out)" if isinstance(learner, Judge) else ""
    )
    raise InputError(f"--population-based has nothing to rank members by, {expected}")


def _numbers(settings: Mapping[str, Tensor]) -> dict[str, list[float]]:
    """In as few digits as tell them: 0.0001 where float32 has 9.999999747378752e-05."""
    return {name: [float(str(x)) for x in values.cpu().numpy()] for name, values in settings.items()}


def summary(folder: Path) -> str:
    """What the turns of a run came to, in a sentence; "" where there were none."""
    rows = lineage.read(folder)
    descent = lineage.founders(rows)
    if len(descent) < 2:
        return ""
    copies = sum(row["member"] != row["source"] for row in rows)
    left = len(set(descent[-1]))
    return (
        f"{len(descent) - 1} turns, {copies} copies: the {len(descent[-1])} members at the end descend from {left} of "
        f"the beginning ({folder / lineage.NAME})"
    )
