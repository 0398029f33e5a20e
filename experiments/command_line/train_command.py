"""``pbrl train AGENT ...`` and ``pbrl train --resume RUN``: a plan, a bar while it runs, a table at its end."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

import agents
from pbrl import loops
from pbrl.agent import Agent
from pbrl.errors import InputError
from pbrl.records.checkpoint import Checkpoint
from pbrl.records.run import Run

from . import plan as planning
from . import score_table
from .arguments import parse, words
from .progress import bar
from .train import train as fit
from .train_asking import is_page, label_folder

HELP = """usage: pbrl train AGENT [options]
       pbrl train --resume RUN

Trains one agent on a data set, in a simulator, or first on the one and then in the other: every combination of seeds
and swept values is a member of one stack.

agents (pbrl train AGENT --help tells their settings):
{agents}

examples:
  pbrl train cpl --dataset local/reacher/mixed-v1 --labels regret --seed 0 1 2 3 --alpha 0.1 0.2
  pbrl train iql --dataset local/reacher/mixed-v1 --expectile 0.7 0.9 --seed 0 1
  pbrl train sac --env PointMass-v0 --env-steps 20000 --seed 0 1 2 3
  pbrl train iql --dataset local/reacher/mixed-v1 --updates 10000 --env-steps 20000
  pbrl train ppo --env PointMass-v0 --env-steps 50000 --seed 0 1 2 3 4 5 6 7 --population-based --explore lr clip
  pbrl train c_morl --env mo-hopper-2obj-v5 --env-steps 1000000 (then: pbrl evaluate RUN --weights 0.3 0.7)
  pbrl train --resume runs/train/20260101-120000-cpl-regret
"""


def train(arguments: Sequence[str]) -> int:
    """Run the command; the exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        width = max(map(len, agents.names())) + 2
        listed = (f"  {name:<{width}}{agents.find(name).summary}" for name in agents.names())
        print(HELP.format(agents="\n".join(listed)), end="")
        return 0
    folder = _resumed(arguments)
    if folder is not None:
        run = Run.open(folder)
        planned = planning.again(run)
    else:
        if arguments[0].startswith("-"):
            raise InputError(f"pbrl train begins with {arguments[0]!r}, expected an agent: {', '.join(agents.names())}")
        planned = planning.plan(parse(agents.find(arguments[0]), arguments[1:]))
        run = planning.start(planned)
    return _follow(planned, run)


def _resumed(arguments: Sequence[str]) -> Path | None:
    """The run to continue, if that is what the words ask for."""
    given = words(arguments if arguments[0].startswith("-") else arguments[1:])
    if "resume" not in given:
        return None
    others = [name for name in given if name != "resume"]
    if list(arguments) == ["--resume"]:
        raise InputError("--resume is given without a run, expected the folder that pbrl train has printed")
    if others or not arguments[0].startswith("-") or len(given["resume"]) != 1:
        found = f"--{others[0].replace('_', '-')}" if others else " ".join(arguments)
        raise InputError(f"--resume takes everything from the run, found also {found!r}, expected --resume RUN alone")
    return Path(given["resume"][0])


def reached(saved: Checkpoint) -> str:
    """How far a checkpoint is, such as "300 updates"."""
    steps = f" and {saved.env_steps} environment steps" if saved.env_steps else ""
    return f"{saved.updates} updates{steps}"


def _follow(planned: planning.Plan, run: Run) -> int:
    """Train to the end, in view of the user."""
    screen, out = Console(stderr=True), Console(width=None if sys.stdout.isatty() else 120)
    options = planned.request.options
    members, total = len(planned.population.members), options.offline_updates + options.online.env_steps
    for note in planned.notes:
        screen.print(f"[yellow]note:[/yellow] {note}", highlight=False, soft_wrap=True)
    saved = run.saved()
    since = min(saved.updates, options.offline_updates) + saved.env_steps if saved is not None else 0
    what = f"{members} member{'s' * (members > 1)} of {planned.request.agent}"
    out.print(
        f"{what} -> {run.folder}" + (f" (from {reached(saved)} on)" if saved is not None else ""),
        highlight=False,
        soft_wrap=True,
    )
    if is_page(planned.population.labels[0]):
        place = label_folder(planned.population.labels[0], run.folder)
        out.print(f"people answer with: pbrl label {place}", highlight=False, soft_wrap=True)
    try:
        unit = "member-steps/s" if options.online.env_steps else "member-updates/s"
        with bar(screen, planned.request.agent, members, since, total, unit) as watch:
            fit(planned, run, watch)
    except KeyboardInterrupt:
        saved = run.saved()
        updates, steps = (saved.updates, saved.env_steps) if saved is not None else (0, 0)
        done = f"{updates} of {options.offline_updates} updates"
        if options.online.env_steps:
            done = f"{updates} updates and {steps} of {options.online.env_steps} environment steps"
        raise KeyboardInterrupt(f"{done} are kept, go on with: pbrl train --resume {run.folder}") from None
    score_table.draw(planned, run)
    for line in score_table.render(planned, run):
        out.print(line)
    lost = loops.diverged(planned.learner, members)  # type: ignore[arg-type]
    if lost:
        names = ", ".join(planned.population.names[i] for i in lost)
        screen.print(f"[red]diverged[/red] (weights that are not finite): {names}", highlight=False)
    if isinstance(planned.learner, Agent) and len(lost) < members:
        env = "" if planned.simulator is not None else " --env NAME"
        out.print(f"evaluate more: pbrl evaluate {run.folder} --episodes 100{env}", highlight=False, soft_wrap=True)
    return 1 if len(lost) == members else 0  # a script must notice when nothing is left
