"""``pbrl evaluate RUN``: play episodes with the agents of a run, from its folder alone (no data set is needed).

Of an agent for several objectives that keeps an archive of policies, ``--weights .3 .7`` plays the policy for these
preference weights, and ``--front`` all of them. The same from Python:

    agent = policy_for(Run.open("runs/train/20260101-120000-c_morl-mo-hopper-2obj-v5"), [0.3, 0.7])
    act = agent.act(obs)                        # [P, B, O] -> [P, B, A], by each member's own archive
"""

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
from pbrl.agent import Agent, Personal
from pbrl.data.answered import answered
from pbrl.data.files import replacing
from pbrl.data.reference_scores import normalise
from pbrl.errors import InputError
from pbrl.evaluation import Scores
from pbrl.fronts.front import Frontier
from pbrl.records.run import Run

from .evaluate_front import check_front, check_weights, front_lines
from .options import Count, Flag, Name, Number
from .problem import check_simulator, load_file
from .reading import read
from .restored import Restored, restore
from .score_table import interval, title
from .train import play, returns_of

Floats = Annotated[tuple[float, ...], tyro.conf.arg(metavar="FLOAT [FLOAT ...]", help_behavior_hint="")]


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
    weights: Floats = ()
    """Preference weights, one for each objective, none below 0 and in all 1: play the policy for them, of a run of an
    agent that keeps an archive of policies, as c_morl does. By default equal ones."""
    front: Flag = False
    """Play the policies of the archive, and measure their front. Writes front-<env>.csv."""
    reference_point: Floats = ()
    """With --front: corner of the hypervolume, a return for each objective. By default the run's."""
    front_gamma: Number = None
    """With --front: discount of the returns. By default the run's."""
    front_policies: Count = None
    """With --front: how many policies of an archive play at most, the extremes first. By default all."""


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
    check_simulator(env, restored.spec)
    out = Console(width=None if sys.stdout.isatty() else 120)
    check_front(options, learner, run.config["agent"], restored.spec)
    if options.front:
        for line in front_lines(options, run, restored, env):
            out.print(line, highlight=False, soft_wrap=isinstance(line, str))
        return 0
    served = _serve(restored, options.weights) if options.weights else None
    members = len(restored.population.members)
    if options.answers is not None:
        _tell(restored, options.answers, str(options.run))
    keys = rng.fold(learner.keys, "stochastic") if options.stochastic else None
    scores = play(learner, env, members, options.episodes, restored.machine, keys)
    how = "stochastic" if options.stochastic else "greedy"
    whom = "" if options.answers is None else f"-for-{Path(options.answers).stem}"
    whom += "".join(f"-{weight:g}" for weight in options.weights)
    path = run.folder / f"evaluation-{env.replace('/', '-')}-{how}{whom}.csv"
    write(path, scores)
    same = trained is not None and trained["env"] == env and trained["reference"] is not None
    reference = (float(trained["reference"][0]), float(trained["reference"][1])) if same else None
    out.print(table(restored, scores, reference, f"{env}, {options.episodes} episodes, {how}"))
    if served is not None:
        out.print(_served(restored, served, scores))
    out.print(f"every episode: {path}", highlight=False, soft_wrap=True)
    return 0


def policy_for(run: Run, weights: Sequence[float]) -> Frontier:
    """A run's agents, which act from now on by their best policies for these preference weights, one per objective.

    Raises:
        InputError: as ``restore``, an agent without an archive of policies, weights off the simplex or of another
            number.
    """
    restored = restore(run)
    check_weights(tuple(weights), restored.learner, run.config["agent"], restored.spec)
    _serve(restored, weights)
    assert isinstance(restored.learner, Frontier)  # just checked
    return restored.learner


def _serve(restored: Restored, weights: Sequence[float]) -> torch.Tensor:
    """Let the agents act by their policies for these weights; [P, K] what their archives say of these."""
    learner = restored.learner
    assert isinstance(learner, Frontier)  # checked before
    learner.serve(torch.tensor(weights, dtype=torch.float64))
    row = learner.archive.assign(learner.weights)
    return learner.archive.row(row[:, None])[0].squeeze(1)


def _served(restored: Restored, told: torch.Tensor, scores: Scores) -> Table:
    """What each member's policy for the weights returned, and what its archive says of it."""
    made = Table(title="the policy for the weights: mean return of each objective", title_justify="left")
    made.add_column("member")
    for name in ("played", "when it was archived (discounted)"):
        made.add_column(name, justify="right")
    for name, played, known in zip(restored.population.names, scores.mean, told.tolist()):
        made.add_row(name, *(" ".join(f"{x:.4g}" for x in point) for point in (played, known)))
    return made


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
    """A CSV file of returns and lengths: member, episode, return (or of several objectives return_0, ...), length.

    Raises:
        InputError: it cannot be written.
    """
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        several = scores.returns.ndim == 3
        names = [f"return_{k}" for k in range(scores.returns.shape[2])] if several else ["return"]
        rows.writerow(("member", "episode", *names, "length"))
        for (member, episode), length in np.ndenumerate(scores.lengths):
            values = np.atleast_1d(scores.returns[member, episode])
            rows.writerow((member, episode, *map(repr, values.tolist()), int(length)))


def table(restored: Restored, scores: Scores, reference: tuple[float, float] | None, what: str) -> Table:
    """Scores of each group of members that differ in the seed alone."""
    metric = "return" if reference is None else "score"
    assert isinstance(restored.learner, Agent)  # checked before
    returns = returns_of(restored.learner, scores)
    values = returns.pop("return") if reference is None else normalise(scores.mean, reference)
    several = reference is None and bool(returns)
    reached = f"{restored.updates} update{'s' * (restored.updates != 1)}"
    made = Table(title=f"{'weighed ' * several}{title(metric)}, after {reached}: {what}", title_justify="left")
    made.add_column("members")
    for name in ("seeds", "IQM with 95 % interval", "worst seed", "best seed"):
        made.add_column(name, justify="right")
    for name in returns if several else ():
        made.add_column(name, justify="right")
    groups = restored.population.groups
    for group in dict.fromkeys(groups):
        chosen = [i for i, name in enumerate(groups) if name == group]
        mine = values[chosen]
        finite = mine[np.isfinite(mine)]
        ends = (f"{finite.min():.1f}", f"{finite.max():.1f}") if len(finite) else ("-", "-")
        each = [interval(column[chosen]) for column in returns.values()] if several else []
        made.add_row(group, str(len(mine)), interval(mine), *ends, *each)
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
