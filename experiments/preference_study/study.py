"""The study: which preference method to pick, on the same labels and the same seeds.

On every task, two labelers answer the same pairs of segments, by partial return and by regret. Members of an agent get
shares of different size of the answers, perfect ones or ones with faults; **all seeds, labels, sizes and faults of an
agent on a task are one stack**, trained in lock-step. A stack is a process of one thread and leaves a file behind, so
that a study that is stopped loses at most the stacks under way, and the same command goes on.

What is compared is fair in this sense: all agents make equally many updates with networks of equal width on normalised
observations, and each has had at most six settings to choose from, on seeds, pairs and episodes of a search that came
before (``--search``; see ``settings``). What is not equal is said in the report: agents that clone or contrast segments
learn from the labelled segments alone, the others from all transitions, too.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console

import agents
from pbrl.errors import InputError

from .. import stacks
from ..datasets.needed import find_data
from ..reports import preference_figures
from ..reports.preference_findings import findings
from ..reports.preference_rows import read_study
from ..reports.preference_tables import budget_table, task_table
from ..reports.score_tables import console_table
from . import records, stack
from .questions import ask
from .settings import AGENTS, Scale, StudyOptions, Task
from .stack import Plan


def preferences(options: StudyOptions) -> None:
    """Train what is not trained yet, and write tables and figures to the folder.

    Raises:
        InputError: missing data, or a folder that cannot be written; before any training.
        KeyboardInterrupt: Ctrl-C, with a word on what is kept.
    """
    console = Console(width=None if sys.stdout.isatty() else 200)
    try:
        study(options, console)
    except KeyboardInterrupt:
        kept = len(list((options.folder / "stacks").glob("*.json")))
        told = f"{kept} stack{'' if kept == 1 else 's'} done and kept"
        raise KeyboardInterrupt(f"{told}, the same command goes on from there") from None


def study(options: StudyOptions, console: Console) -> None:
    """See ``preferences``."""
    folder, scale, began = options.folder, options.scale, time.perf_counter()
    find_data(options.chosen_tasks, options.behaviour)
    stacks.check_writable(folder)
    names = [name for name in options.agents or AGENTS if name in agents.names()]
    if missing := [name for name in options.agents or AGENTS if name not in names]:
        console.print(f"not built yet, hence left out: {', '.join(missing)}", highlight=False)
    plans = {
        one.name: one
        for one in (
            stack.plan(name, task, scale, search=options.search) for name in names for task in options.chosen_tasks
        )
    }
    if not plans:
        raise InputError("bench preferences: none of the agents is built yet, expected one of " + ", ".join(AGENTS))
    rows = _prepare(options.chosen_tasks, scale, folder, options.processes, console)
    train(plans, rows, folder, options.processes, console)
    results = [found for one in plans.values() if (found := stack.finished(one, folder, rows[one.task.dataset]))]
    if options.search:
        records.write_search(results, folder)
        console.print(f"the search: {folder / 'search.csv'}", highlight=False)
        return
    records.write(results, folder, options.command)
    preference_figures.draw(folder)
    told = read_study(folder)
    for table in (task_table(told), budget_table(told)):
        console.print()
        console.print(console_table(table))
        console.print(table.caption, style="dim", highlight=False)
    console.print()
    for sentence in findings(told):
        console.print(sentence, highlight=False)
    console.print(f"{time.perf_counter() - began:.0f} seconds. Tables and figures: {folder}", highlight=False)


def train(plans: Mapping[str, Plan], rows: Mapping[str, str], folder: Path, processes: int, console: Console) -> None:
    """Train the members that are in no file yet, so many stacks at a time; a line for each."""
    rests = {name: stack.left(one, folder, rows[one.task.dataset]) for name, one in plans.items()}
    left = [name for name, rest in rests.items() if rest.members]
    if len(left) < len(plans):
        console.print(f"{len(plans) - len(left)} of {len(plans)} stacks are there already", highlight=False)
    done = 0

    def tick(name: str, seconds: float, score: float) -> None:
        nonlocal done
        done += 1
        members = len(rests[name].members)
        told = f"{done:>3}/{len(left)}  {name}: {members} members, {seconds:.0f} s, mean score {score:.1f}"
        console.print(told, highlight=False)

    stacks.run(stack.work, left, ({name: rests[name] for name in left}, folder), tick, processes)


def _prepare(tasks: Sequence[Task], scale: Scale, folder: Path, processes: int, console: Console) -> dict[str, str]:
    """Have every task's segments scored; the fingerprints of what is learned from, by data set."""
    console.print(f"scores of the segments of {len(tasks)} data sets by both labelers ...", highlight=False)
    by_name = {task.dataset: task for task in tasks}
    return stacks.run(score, list(by_name), (by_name, scale, folder), print, processes)


def score(name: str, tick: Callable[..., None], tasks: Mapping[str, Task], scale: Scale, folder: Path) -> str:  # noqa: ARG001
    """Score the segments of a task; the fingerprint of the rows that are learned from."""
    return ask(tasks[name], scale, folder).dataset.fingerprint
