"""``pbrl evaluate RUN``: play episodes with the agents of a run, from its folder alone (no data set is needed)."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table

from pbrl import rng
from pbrl.agent import Agent, Learner, Personal
from pbrl.data.answered import answered
from pbrl.data.files import replacing
from pbrl.errors import InputError
from pbrl.evaluation import Scores, normalise
from pbrl.run import Run
from pbrl.spec import Spec

from .options import Flag, Name
from .plan import request_of
from .population import Machine, Population, machine, make_learner, populate
from .problem import check_simulator, load_file
from .reading import read
from .score_table import interval, title
from .train import play


@dataclass(frozen=True)
class EvaluateOptions:
    """Plays the same episodes with every member of a run, and writes evaluation-<env>-<greedy or stochastic>.csv
    into its folder."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run, as pbrl train has printed it."""
    episodes: int = 100
    """Episodes per member."""
    stochastic: Flag = False
    """Draw actions from the policies, instead of taking the likeliest."""
    env: Name = None
    """Another simulator of the same sizes. By default the one of the training."""
    answers: Name = None
    """File of answers (our .hdf5 or .npz of humans) of the user to act for, where the agent serves many, as vpl does.
    By default it acts for nobody known."""


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


def evaluate(arguments: Sequence[str]) -> int:
    """Run the command; the exit code."""
    options = read(EvaluateOptions, arguments, "pbrl evaluate")
    if options.episodes < 1:
        raise InputError(f"episodes is {options.episodes}, expected at least 1")
    run = Run.open(options.run)
    trained = run.config.get("identity", {}).get("simulator")
    restored = restore(run)
    learner = restored.learner
    if not isinstance(learner, Agent):
        raise InputError(f"{options.run}: {run.config['agent']} does not act, expected a run of an agent that does")
    env = options.env or (trained["env"] if trained else None)
    if env is None:
        raise InputError(f"{options.run}: names no simulator, expected --env such as Reacher-v5")
    check_simulator(env, Spec(**run.config["identity"]["spec"]))
    members = len(restored.population.members)
    if options.answers is not None:
        _tell(restored, options.answers, str(options.run))
    keys = rng.fold(learner.keys, "stochastic") if options.stochastic else None
    scores = play(learner, env, members, options.episodes, restored.machine, keys)
    how = "stochastic" if options.stochastic else "greedy"
    whom = "" if options.answers is None else f"-for-{Path(options.answers).stem}"
    path = run.folder / f"evaluation-{env.replace('/', '-')}-{how}{whom}.csv"
    write(path, scores)
    same = trained is not None and trained["env"] == env and trained["reference"] is not None
    reference = (float(trained["reference"][0]), float(trained["reference"][1])) if same else None
    out = Console(width=None if sys.stdout.isatty() else 120)
    out.print(table(restored, scores, reference, f"{env}, {options.episodes} episodes, {how}"))
    out.print(f"every episode: {path}", highlight=False, soft_wrap=True)
    return 0


def _tell(restored: Restored, file: str, run: str) -> None:
    """Let the agents know a user by stored answers.

    Raises:
        InputError: agents that do not ask who the user is, or a file that is damaged or of other sizes.
    """
    learner, stored, on = restored.learner, load_file(file), restored.machine
    if not isinstance(learner, Personal):
        raise InputError(f"{run}: this agent acts alike for all users, expected --answers for one such as vpl")
    segments, spec = stored.pairs.segments, restored.spec
    found = (segments.obs.shape[-1], segments.act.shape[-1])
    if found != (spec.obs_size, spec.act_size):
        sizes = f"{found[0]} observations and {found[1]} actions"
        raise InputError(f"{file}: the segments have {sizes}, expected {spec.obs_size} and {spec.act_size}")
    learner.condition(answered(stored, len(restored.population.members), on.dtype, on.device))


def write(path: Path, scores: Scores) -> None:
    """A CSV file of returns and lengths: member, episode, return, length.

    Raises:
        InputError: it cannot be written.
    """
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("member", "episode", "return", "length"))
        for (member, episode), value in np.ndenumerate(scores.returns):
            rows.writerow((member, episode, repr(float(value)), int(scores.lengths[member, episode])))


def table(restored: Restored, scores: Scores, reference: tuple[float, float] | None, what: str) -> Table:
    """Scores of each group of members that differ in the seed alone."""
    metric = "return" if reference is None else "score"
    values = scores.mean if reference is None else normalise(scores.mean, reference)
    made = Table(title=f"{title(metric)}, after {restored.updates} updates: {what}", title_justify="left")
    made.add_column("members")
    for name in ("seeds", "IQM with 95 % interval", "worst seed", "best seed"):
        made.add_column(name, justify="right")
    groups = restored.population.groups
    for group in dict.fromkeys(groups):
        mine = values[[i for i, name in enumerate(groups) if name == group]]
        finite = mine[np.isfinite(mine)]
        ends = (f"{finite.min():.1f}", f"{finite.max():.1f}") if len(finite) else ("-", "-")
        made.add_row(group, str(len(mine)), interval(mine), *ends)
    return made


def actions(run: Run, obs: torch.Tensor) -> torch.Tensor:
    """Greedy actions [P, B, A] of a run's agents at observations [B, O], as at the first step of an episode.

    Raises:
        InputError: as ``restore``, or agents that do not act.
    """
    restored = restore(run)
    if not isinstance(restored.learner, Agent):
        raise InputError(f"{run.folder}: {run.config['agent']} does not act, expected a run of an agent that does")
    seen = obs.to(restored.machine.device, restored.machine.dtype)
    return restored.learner.act(seen.expand(len(restored.population.members), *seen.shape))
