"""The agents of a run, restored from its folder alone."""

from __future__ import annotations

from dataclasses import dataclass

from pbrl.agent import Learner
from pbrl.errors import InputError
from pbrl.records.run import Run
from pbrl.spec import Spec

from .plan import request_of
from .population import Machine, Population, machine, make_learner, populate


@dataclass(frozen=True, eq=False)
class Restored:
    """The agents of a run.

    Attributes:
        population: its members.
        learner: with the state of the checkpoint.
        machine: what to compute on.
        spec: what it knows of the problem.
        updates: how many had been made.
    """

    population: Population
    learner: Learner
    machine: Machine
    spec: Spec
    updates: int


def restore(run: Run) -> Restored:
    """The agents of a run, as they were at its checkpoint.

    Raises:
        InputError: a damaged config or checkpoint, or no checkpoint yet.
    """
    request = request_of(run)
    identity = run.config["identity"]
    try:
        spec, labels = Spec(**identity["spec"]), tuple(identity["labels"])
    except (KeyError, TypeError):
        raise InputError(f"{run.folder}: config.json is damaged, expected what pbrl train has written") from None
    on = machine(request.options.machine, request.options.run.updates)
    population = populate(request, labels, on)
    learner = make_learner(request, spec, population)
    return Restored(population, learner, on, spec, run.load(learner))
