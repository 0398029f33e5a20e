"""The parts of ``pbrl evaluate`` that are about preference weights, archives and fronts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from rich.table import Table

import envs
from pbrl import pareto
from pbrl.agent import Learner
from pbrl.errors import InputError
from pbrl.evaluation import Floats, rollout
from pbrl.fronts import front as fronts
from pbrl.fronts.front import Frontier
from pbrl.records.run import Run
from pbrl.spec import Spec

from . import front_file
from .arguments import option
from .front_options import check_gamma, check_reference, measured_by
from .restored import Restored

if TYPE_CHECKING:
    from .evaluate import EvaluateOptions


def check_weights(weights: Sequence[float], learner: Learner, agent: str, spec: Spec) -> None:
    """Raise InputError unless the agent can serve these preference weights."""
    if spec.objectives == 1:
        raise InputError(f"weights are given but {spec.name} has one objective, expected a run with several")
    if not isinstance(learner, Frontier):
        expected = "expected a run of an agent that keeps many, such as c_morl"
        raise InputError(f"weights are given but {agent} keeps no archive of policies: {expected}")
    pareto.check_weights(np.asarray(weights), spec.objectives)
    if not bool(learner.archive.used.any(1).all()):
        raise InputError(f"the archive of {agent} is empty after {learner.updates} updates, expected a longer run")


def check_front(options: EvaluateOptions, learner: Learner, agent: str, spec: Spec) -> None:
    """Raise InputError for options that have no effect or do not fit the run."""
    if options.weights:
        if options.front:
            raise InputError("--weights and --front are both given, expected one policy or all of them")
        check_weights(options.weights, learner, agent, spec)
    if not options.front:
        for name in ("reference_point", "front_gamma", "front_policies"):
            if getattr(options, name) not in (None, ()):
                raise InputError(f"{option(name)} has no effect without --front, expected both or neither")
        return
    if spec.objectives == 1:
        raise InputError(f"--front is given but {spec.name} has one objective, expected a run with several")
    if not isinstance(learner, Frontier):
        expected = "expected a run of an agent such as c_morl"
        raise InputError(f"--front is given but {agent} keeps no archive of policies: {expected}")
    if options.stochastic:
        raise InputError("--stochastic has no effect with --front, which plays greedily: expected one of them")
    if options.front_policies is not None and options.front_policies < 1:
        raise InputError(f"front_policies is {options.front_policies}, expected at least 1")
    check_gamma(options.front_gamma)
    check_reference(options.reference_point, spec.name, spec.objectives)


def front_lines(options: EvaluateOptions, run: Run, restored: Restored, env: str) -> Iterator[Table | str]:
    """Play the front, write its points, and tell what it is worth.

    Raises:
        InputError: a reference point was given that no point of a member dominates, or an archive is empty.
    """
    learner, on = restored.learner, restored.machine
    assert isinstance(learner, Frontier)  # checked before
    identity = run.config["identity"]
    told = (identity.get("front") or {}) if (identity.get("simulator") or {}).get("env") == env else {}
    reference, gamma = measured_by(env, (), None)
    reference = options.reference_point or (tuple(told["reference"]) if told.get("reference") else reference)
    gamma = options.front_gamma if options.front_gamma is not None else float(told.get("gamma", gamma))
    make = partial(envs.make, env)
    play = partial(fronts.play_front, learner, make, device=on.device, dtype=on.dtype)
    front = play(episodes=options.episodes, most=options.front_policies, gamma=gamma)
    names = restored.population.names
    for name, points in zip(names, front.points):
        if not len(points):
            raise InputError(f"the archive of {name} is empty after {restored.updates} updates, expected a longer run")
        if options.reference_point:
            pareto.measure(points, pareto.Convention(options.reference_point, gamma, weight_steps=1))
    path = run.folder / f"front-{env.replace('/', '-')}.csv"
    front_file.write(path, front, updates=restored.updates, env_steps=0)
    yield _table(names, front, reference, f"{env}, {options.episodes} episodes of each policy, greedy")
    yield from _conventions(front, reference, restored.spec)
    if restored.spec.actions is None:
        yield _still(env, options.episodes, gamma, reference)
    yield f"every policy: {path}"


def _table(names: Sequence[str], front: fronts.Front, reference: tuple[float, ...] | None, what: str) -> Table:
    made = Table(title=f"fronts: {what}", title_justify="left")
    made.add_column("member")
    worth = fronts.qualities(front, reference)
    for name in ("policies", *worth):
        made.add_column(name.replace("_", " "), justify="right")
    for place, name in enumerate(names):
        values = (f"{column[place]:.6g}" for column in worth.values())
        made.add_row(name, str(len(front.points[place])), *values)
    return made


def _conventions(front: fronts.Front, reference: tuple[float, ...] | None, spec: Spec) -> Iterator[str]:
    steps = fronts.weight_steps(spec.objectives)
    corner = "none: give --reference-point for a hypervolume" if reference is None else _point(reference)
    yield (
        f"reference point {corner}; discount {front.gamma:g}; expected utility over all weights that are multiples "
        f"of 1/{steps}; sparsity is best for a single point, so read it beside the number of front points"
    )


def _still(env: str, episodes: int, gamma: float, reference: tuple[float, ...] | None) -> str:
    """What doing nothing returns: a hypervolume says something only beside this one."""
    made = envs.make(env, 1)
    size = made.spec.act_size
    try:
        scores = rollout(
            lambda obs, key=None: torch.zeros(*obs.shape[:2], size),  # noqa: ARG005
            made,
            members=1,
            episodes=min(episodes, 10),
            gamma=gamma,
        )
    finally:
        made.close()
    point: Floats = scores.mean
    worth = "" if reference is None else f", hypervolume {pareto.hypervolume(point, reference):.6g}"
    return f"beside it, doing nothing (action 0) returns {_point(point[0])}{worth}"


def _point(values: Sequence[float] | Floats) -> str:
    return " ".join(f"{x:.6g}" for x in values)
