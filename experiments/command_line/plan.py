"""The plan of a run: all checks made, all data loaded, nothing begun; from a request, or from a run to continue."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import agents
from pbrl import __version__
from pbrl.agent import Agent, Asker, Learner, Personal, Staged
from pbrl.data import Dataset, Preferences
from pbrl.data.source import Source
from pbrl.errors import InputError
from pbrl.fronts.front import Frontier
from pbrl.loops.arena import Compared
from pbrl.records.run import Run

from .arguments import Request
from .compared import check_effect as check_compared_effect
from .online_problem import check_effect as check_online_effect
from .online_problem import check_front, check_learner, check_place, spec_of_simulator, wants_online
from .options import TrainOptions
from .population import Machine, Population, fitted, machine, make_learner, populate
from .problem import (
    Answers,
    Simulator,
    absolute,
    answers,
    check_effect,
    check_labels,
    is_file,
    load_dataset,
    load_file,
    simulator,
    spec_of,
    unplaced,
)
from .train_asking import check_effect as check_query_effect
from .train_asking import is_page, schedule_of, teacher
from .turns import Turns, turns_of


@dataclass(frozen=True, eq=False)
class Plan:
    """A run that has passed every check and has not begun.

    Attributes:
        request: what was asked for, with nothing left to choose.
        machine: what to compute on.
        population: the members.
        learner: which trains them.
        source: what it draws from, or None where it learns from nothing but the simulator.
        told: [P] labelled pairs that each member learns from, or None.
        held_out: [P] labelled pairs to test each member on, or None.
        simulator: where to play, or None.
        identity: all that the final weights depend on, as JSON has it.
        notes: sentences that the user should read.
        turns: of population-based training, or None.
    """

    request: Request
    machine: Machine
    population: Population
    learner: Learner
    source: Source | None
    told: tuple[Preferences | None, ...]
    held_out: tuple[Preferences | None, ...]
    simulator: Simulator | None
    identity: dict[str, Any]
    notes: tuple[str, ...]
    turns: Turns | None = None


def plan(request: Request) -> Plan:
    """Check a request and load all that it needs.

    Raises:
        InputError: whatever is wrong with it.
    """
    options = request.options
    online = options.online.env_steps > 0
    asked = request
    request, notes = fitted(asked)
    on = machine(options.machine, options.all_updates)
    dataset = load_dataset(options.data)
    named = options.label.labels
    stored = load_file(named[0]) if dataset is None and named and is_file(named[0]) else None
    alone = online and dataset is None and stored is None
    spec = spec_of_simulator(options.data.env) if alone else spec_of(dataset, stored)
    where = simulator(options.data, dataset, spec) if options.run.episodes or online else None
    population = populate(request, named or ("none",), on)
    learner = make_learner(request, spec, population)
    if alone and (rollouts := _rollouts(learner, options)):
        request, notes = fitted(asked, rollouts)  # each of them is one update
        population = populate(request, named or ("none",), on)
        learner = make_learner(request, spec, population)
    check_learner(learner, request.agent, population.members.shared, options)
    check_online_effect(options, request.given, on_policy="rollout" in wants_online(learner), agent=request.agent)
    check_front(learner, request.agent, options, request.given)
    asks = online and isinstance(learner, Asker)
    check_query_effect(options, request.given, asks=asks, config=population.members.shared)
    if online:
        check_place(where, options)
    ranked, compares = "rankings" in learner.wants(), isinstance(learner, Compared)
    wants_pairs = ranked or "pairs" in learner.wants()
    labels = check_labels(named, request.agent, wants_pairs or compares)
    if compares:
        check_compared_effect(request.agent, request.given)
    if labels != named:
        population = populate(request, labels, on)
    check_effect(options.label, labels, request.agent, wants_pairs or compares, request.given, ranked=ranked)
    if ranked and len(labels) > 1:
        raise InputError(
            f"labels are {' and '.join(labels)}, expected one of them: all members learn the same rankings"
        )
    scripted = [name for name in labels if not is_page(name)] if asks or compares else []
    teachers = [teacher(options.label, name, spec) for name in scripted]
    schedule = schedule_of(options) if asks else None
    stored_answers = wants_pairs and not asks
    where_from = (dataset, options.data.dataset)
    told = [answers(options.label, name, *where_from, ranked=ranked) for name in labels] if stored_answers else []
    of_member = [told[labels.index(name)] for name in population.labels] if told else []
    preferences = [each.train for each in of_member] if len(told) > 1 else told[0].train if told else None
    source = None
    if not alone:
        rankings = told[0].rankings if ranked else None
        lessons_of = (dataset, None if ranked else preferences)
        source = Source.of(*lessons_of, rankings=rankings, dtype=on.dtype, device=on.device)
        _check_wanted(learner, source)
    notes = [*notes, *_rounded(learner, options)]
    if not isinstance(learner, Agent):
        where = None
    elif where is None and options.run.episodes:
        notes = [*notes, "no evaluation: the data name no simulator, choose one with --env"]
    notes = [*notes, *(each.note for each in told if each.note), *_one_user(learner, request.agent, told)]
    identity = _identity(request, on, population, labels, told, dataset, where, spec=dataclasses.asdict(spec))
    if schedule is not None:
        identity["asking"] = {"by": list(map(str, teachers)), **dataclasses.asdict(schedule)}
    if isinstance(learner, Frontier) and where is not None and options.run.episodes:
        reference, gamma = options.front.measured(where.env)
        corner, most = None if reference is None else list(reference), options.front.front_policies
        identity["front"] = {"reference": corner, "gamma": gamma, "policies": most}
        if reference is None:
            expected = "give --reference-point, a return below all that count for each objective"
            notes = [*notes, f"no hypervolume: {where.env} has no customary reference point, {expected}"]
    if compares:
        identity["compared"] = [{"by": str(each), "margin": getattr(each, "margin", None)} for each in teachers]
    turns = turns_of(request, spec, population, learner, where, held_out=any(each.held_out for each in told))
    if turns is not None:
        identity["population_based"] = {
            **json.loads(json.dumps(dataclasses.asdict(options.population))),
            "metric": turns.metric,
            "eval_every": options.eval_every,
            "episodes": options.run.episodes,
        }
    nobody = (None,) * len(population.members)
    lessons = tuple(each.train for each in of_member) or nobody
    tests = tuple(each.held_out for each in of_member) or nobody
    return Plan(request, on, population, learner, source, lessons, tests, where, identity, tuple(notes), turns)


def _per_rollout(learner: Learner) -> int:
    """Environment steps of a member's rollout; 0 for learners of single steps."""
    return wants_online(learner).get("rollout", 0) * int(getattr(learner, "environments", 1))


def _rollouts(learner: Learner, options: TrainOptions) -> int:
    """How many rollouts a member plays; 0 for learners of single steps."""
    size = _per_rollout(learner)
    return -(-options.online.env_steps // size) if size else 0


def _rounded(learner: Learner, options: TrainOptions) -> list[str]:
    """What to tell where steps come in whole rollouts, and more are taken than were asked for."""
    per_rollout = _per_rollout(learner)
    taken = _rollouts(learner, options) * per_rollout
    if taken in (0, options.online.env_steps):
        return []
    asked = f"--env-steps {options.online.env_steps}"
    return [f"{taken} environment steps are taken for {asked}: a rollout has {per_rollout}, in all copies together"]


def _one_user(learner: Learner, agent: str, told: Sequence[Answers]) -> list[str]:
    """What to tell where a learner for many users hears of one."""
    alike = [each for each in told if each.train.user is None or len(each.train.user.unique()) == 1]
    if not isinstance(learner, Personal) or not alike:
        return []
    expected = "an array user in the file, or --label-users, tells users apart"
    return [f"all answers count as one user's, of whom {agent} learns no more than p_iql does: {expected}"]


def _check_wanted(learner: Learner, source: Source) -> None:
    """Raise InputError where the data lack what the first update, or the preparation of a stage, takes."""
    prepared = learner.prepare(source) if isinstance(learner, Staged) else source
    prepared.draw(learner.wants(), learner.keys, 0)


def _identity(
    request: Request,
    on: Machine,
    population: Population,
    labels: tuple[str, ...],
    told: Sequence[Answers],
    dataset: Dataset | None,
    where: Simulator | None,
    spec: dict[str, Any],
) -> dict[str, Any]:
    kept = {"name", "obs_size", "act_size", "horizon", "objectives", "actions"}
    identity = {
        "agent": request.agent,
        "settings": {**request.shared, **request.swept},
        "seeds": request.options.run.seed,
        "updates": request.options.run.updates,
        "labels": labels,
        "dataset": None if dataset is None else {"name": dataset.name, "fingerprint": dataset.fingerprint},
        "answers": [_describe(each) for each in told],
        "spec": {name: value for name, value in spec.items() if name in kept},
        "simulator": None if where is None else dataclasses.asdict(where),
        "members": len(population.members),
        "online": dataclasses.asdict(request.options.online) if request.options.online.env_steps else None,
        **dataclasses.asdict(on),
    }
    return json.loads(json.dumps(identity))  # type: ignore[no-any-return]


def _describe(told: Answers) -> dict[str, Any]:
    sides = {"train": told.train, "held_out": told.held_out}
    content: dict[str, Any] = {"by": dataclasses.asdict(told.train.by)}
    for side, preferences in sides.items():
        if preferences is None:
            content[side] = None
            continue
        digest = hashlib.sha256(preferences.pairs.segments.fingerprint.encode())
        for tensor in (preferences.pairs.segments.row, preferences.pairs.first, preferences.pairs.second):
            digest.update(tensor.cpu().numpy().tobytes())
        digest.update(preferences.label.cpu().numpy().tobytes())
        if preferences.user is not None:
            digest.update(preferences.user.cpu().numpy().tobytes())
        content[side] = {"pairs": len(preferences), "fingerprint": digest.hexdigest()[:16]}
    return content


def start(planned: Plan) -> Run:
    """The folder of a new run.

    Raises:
        InputError: it cannot be written.
    """
    options = planned.request.options
    labels = planned.identity["labels"]
    named = tuple(name.rsplit("/", 1)[-1] for name in labels)
    if options.online.env_steps and planned.simulator is not None:
        named = (planned.simulator.env.replace("/", "-"),)
    title = "-".join((planned.request.agent, *named)) if options.run.name is None else options.run.name
    data, label = options.data, options.label
    kept = dataclasses.replace(
        options,
        data=dataclasses.replace(data, dataset=absolute(data.dataset)),
        label=dataclasses.replace(label, labels=tuple(absolute(name) or name for name in label.labels)),
    )
    config = {
        "agent": planned.request.agent,
        "pbrl": __version__,
        "identity": planned.identity,
        "options": kept.to_json(),
    }
    return Run.create(options.run.out, "train", title.replace(":", "_"), config, planned.population.rows)


def again(run: Run) -> Plan:
    """The plan of a run, from its ``config.json`` alone.

    Raises:
        InputError: a damaged config, or data, labels or machine that are not what they were.
    """
    request = request_of(run)
    planned = plan(request)
    before, now = _comparable(run.config["identity"]), _comparable(planned.identity)
    for name in (*before, *now):
        if before.get(name) != now.get(name):
            raise InputError(
                f"{run.folder}: {name} was {_short(before.get(name))} when the run began and is "
                f"{_short(now.get(name))} now, expected the same"
            )
    return planned


def _comparable(identity: dict[str, Any]) -> dict[str, Any]:
    """An identity without the folders of its labels' files: what is in these is among the answers."""
    return {**identity, "labels": [unplaced(str(name)) for name in identity.get("labels") or ()]}


def request_of(run: Run) -> Request:
    """What a run was asked to do.

    Raises:
        InputError: a damaged config.
    """
    try:
        identity, options = run.config["identity"], TrainOptions.from_json(run.config["options"])
        algorithm = agents.find(run.config["agent"])
        fields = {field.name: field for field in dataclasses.fields(algorithm.config)}
        settings = {name: tuple(v) if isinstance(v, list) else v for name, v in identity["settings"].items()}
        unknown = settings.keys() ^ fields.keys()
        if unknown:
            raise InputError(f"{run.folder}: config.json and {algorithm.name} differ in the field {min(unknown)!r}")
        shared = {name: value for name, value in settings.items() if fields[name].metadata.get("shared")}
        swept = {name: value for name, value in settings.items() if name not in shared}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{run.folder}: config.json is damaged, expected what pbrl train has written") from None
    # Its schedule is fixed, as if every field had been named; what was named of the options has been checked.
    return Request(algorithm.name, options, shared, swept, frozenset(fields))


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 80 else text[:77] + "..."
