"""The part of ``pbrl train`` that learns in a simulator from answers to its own questions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

import envs
from pbrl import loops
from pbrl.agent import Asker
from pbrl.asking.query_schedule import Interview, QuerySchedule
from pbrl.data.buffer import Buffer
from pbrl.errors import InputError
from pbrl.labelers.desk import AtOnce, Desk
from pbrl.labelers.general import General
from pbrl.labelers.named import EXAMPLES, is_named, make_named
from pbrl.labelers.teachers import Teacher, make_labeler
from pbrl.members import schedule_fields
from pbrl.play.collector import Collector
from pbrl.spec import Spec

from ..labelling.desk import PageDesk
from .arguments import option
from .online_problem import spec_of_simulator
from .options import LabelOptions, TrainOptions
from .problem import DISCOUNTED, IN_REWARD
from .query_options import QUERY_OPTIONS

if TYPE_CHECKING:
    from .plan import Plan

PAGE = "page"
ANSWERED = (*IN_REWARD, "partial_return:mean", DISCOUNTED)
"""Labels that need nothing but what the simulator pays."""


def is_page(labels: str) -> bool:
    """Whether people answer at the page of ``pbrl label``: ``page``, or ``page:FOLDER`` of labels."""
    return labels.partition(":")[0] == PAGE


def label_folder(labels: str, run: Path) -> Path:
    """The folder of labels that a run asks through: its own, or the one that is named."""
    named = labels.partition(":")[2]
    return Path(named).expanduser() if named else run / "labels"


class Asked:
    """What the loop goes on from: the buffer, and what was asked about it."""

    def __init__(self, buffer: Buffer, interview: Interview) -> None:
        self.parts: dict[str, Buffer | Interview] = {"buffer": buffer, "interview": interview}
        self.buffer = buffer

    @property
    def env_steps(self) -> int:
        """How many steps each member has taken."""
        return self.buffer.env_steps

    def state_dict(self) -> Mapping[str, Tensor]:
        """All of it."""
        return {f"{name}.{key}": value for name, part in self.parts.items() for key, value in part.state_dict().items()}

    def load_state_dict(self, state_dict: Mapping[str, Any], /) -> None:
        """Restores it."""
        for name, part in self.parts.items():
            own = {key.partition(".")[2]: value for key, value in state_dict.items() if key.startswith(f"{name}.")}
            part.load_state_dict(own)


def schedule_of(options: TrainOptions) -> QuerySchedule:
    """When a run asks what.

    Raises:
        InputError: settings that do not fit the simulator or each other.
    """
    horizon = spec_of_simulator(options.data.env).horizon or 1
    copies = options.online.envs_per_member
    schedule = options.query.schedule(options.online, options.label.segment_length, horizon * copies)
    if schedule.segment_length > horizon:
        found = f"segment_length is {schedule.segment_length}"
        raise InputError(f"{found}, expected at most the {horizon} steps of an episode of {options.data.env}")
    before = schedule.random_steps + schedule.unsupervised_steps
    if not horizon * copies <= before < options.online.env_steps:
        found = f"the first questions come after {before} of {options.online.env_steps} steps"
        raise InputError(f"{found}, expected after at least {horizon * copies} (whole episodes) and before the end")
    return schedule


def teacher(options: LabelOptions, labels: str, spec: Spec) -> Teacher | General:
    """The scripted teacher that answers.

    Raises:
        InputError: labels that need more than the simulator's rewards, or thresholds without a margin.
    """
    if labels not in ANSWERED and not is_named(labels):
        expected = ", ".join((*ANSWERED, *EXAMPLES, PAGE))
        raise InputError(f"labels {labels!r} cannot answer in the loop, expected one of {expected}")
    margin: float | Literal["moving"] | None = options.label_margin
    if margin is None and (options.label_skip or options.label_equal):
        if labels not in IN_REWARD:
            raise InputError(f"--label-margin is missing, expected a number above 0 in units of {labels!r}")
        margin = "moving"
    faults = {name: getattr(options, f"label_{name}") for name in ("beta", "myopia", "skip", "equal", "mistake")}
    if is_named(labels):
        return make_named(labels, spec, margin=options.label_margin, **faults)
    return make_labeler(
        labels,
        gamma=options.label_gamma if labels == DISCOUNTED else None,
        margin=margin,
        **faults,
    )


def check_effect(options: TrainOptions, given: Collection[str], *, asks: bool, config: Any) -> None:
    """Raise InputError where an option was ``given`` that has no effect on a run that asks, or on one that does not."""
    unused: dict[str, str] = {}
    pages = [labels for labels in options.label.labels if is_page(labels)]
    if pages and not asks:
        raise InputError(
            f"labels {pages[0]!r} answer what an agent asks in a simulator, expected one that does: pebble"
        )
    if pages and len(options.label.labels) > 1:
        raise InputError(f"labels are {' and '.join(options.label.labels)}, expected {pages[0]} alone")
    if not asks:
        unused = dict.fromkeys(QUERY_OPTIONS, "only an agent that asks does so, online and without a data set (pebble)")
    else:
        unused = dict.fromkeys(("pairs", "held_out", "label_seed"), "the agent asks its own questions")
        unused |= {"replay": "there is no data set"}
        unused |= dict.fromkeys(schedule_fields(config, "stage"), "sessions fit the reward (--fit-updates)")
        if options.query.query == "uniform":
            unused["query_candidates"] = "uniform has no choice among candidates"
        if pages:
            faults = [item.name for item in dataclasses.fields(LabelOptions) if item.name.startswith("label_")]
            unused |= dict.fromkeys(faults, "people answer")
    settings = {item.name for item in dataclasses.fields(config)}
    named = set(given) - settings if settings <= set(given) else set(given)  # a resumed run names all of its settings
    for name in sorted(unused.keys() & named):
        raise InputError(f"{option(name)} has no effect: {unused[name]}, expected it left out")


def asking(planned: Plan, folder: Path) -> tuple[Iterator[dict[str, Tensor]], Asked, Callable[[], None]]:
    """The loop of a run (in ``folder``) that asks, what it collects into, and what closes its simulator.

    Raises:
        InputError: a folder of labels with other segments.
    """
    learner, options, on = planned.learner, planned.request.options, planned.machine
    assert isinstance(learner, Asker)
    assert planned.simulator is not None
    members, copies = len(planned.population.members), options.online.envs_per_member
    env = envs.make(planned.simulator.env, members * copies)
    capacity = min(options.online.replay_capacity, max(options.online.env_steps, (env.spec.horizon or 1) * copies))
    buffer = Buffer(env.spec, members, capacity, streams=copies, dtype=on.dtype, device=on.device)
    interview = Interview(env.spec, members, schedule_of(options), dtype=on.dtype, device=on.device)
    labels, people = planned.population.labels, None
    desk: Desk
    if is_page(labels[0]):
        database = label_folder(labels[0], folder) / "labels.sqlite"
        desk = people = PageDesk(database, env.spec, options.label.segment_length, run=folder.name)
    else:
        desk = AtOnce([teacher(options.label, name, env.spec) for name in labels], planned.learner.keys)
    metrics = loops.query_and_learn(
        learner.model,
        learner.agent,
        desk,
        Collector(env, buffer, planned.learner.keys),
        interview,
        options.online.env_steps,
        every=options.online.record_every,
    )
    asked = Asked(buffer, interview)
    if people is None:
        return metrics, asked, env.close
    at_page = people

    def close() -> None:
        env.close()
        at_page.close()

    return at_page.until_done(metrics), asked, close
