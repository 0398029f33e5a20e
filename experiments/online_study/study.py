"""The study: what becomes of agents that were trained on data when they go online.

Every stack (an agent on a task, all seeds in lock-step) is a run of ``pbrl train``, first on the data and then with the
same agent object in the simulator. It leaves its checkpoints behind, so that a study that is stopped goes on within
the stack. All numbers are from evaluations: the same greedy episodes for every member and every time, in environments
of their own, from the last evaluation before the first step online on.

What is equal: the seeds, the data, the counts of updates on data and of environment steps, widths and batch sizes (in
the small budget), one update per step. What is not: each agent draws its batches online from where its authors do
(``settings.PROTOCOL``), and Uni-O4 makes passes over rollouts.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from pbrl import data

from .. import stacks
from ..datasets.needed import find_data
from ..reports import online_figures
from ..reports.online_findings import findings
from ..reports.online_rows import MEMBERS, read_online
from ..reports.online_tables import change_table, regret_table
from ..reports.score_tables import console_table
from . import records, stack
from .options import OnlineStudyOptions
from .stack import Plan


def offline_to_online(options: OnlineStudyOptions) -> None:
    """Train what is not trained yet, and write tables and figures to the folder.

    Raises:
        InputError: missing data, or a folder that cannot be written; before any training.
        KeyboardInterrupt: Ctrl-C, with a word on what is kept.
    """
    console = Console(width=None if sys.stdout.isatty() else 200)
    try:
        _study(options, console)
    except KeyboardInterrupt:
        done = len(list((options.folder / "stacks").glob("*.json")))
        if (options.folder / MEMBERS).is_file():
            online_figures.draw(options.folder)
        told = f"{done} stack{'' if done == 1 else 's'} done and kept, and checkpoints of those under way"
        raise KeyboardInterrupt(f"{told}; the same command goes on from there") from None


def _study(options: OnlineStudyOptions, console: Console) -> None:
    folder, began = options.folder, time.perf_counter()
    find_data(options.chosen_tasks, options.behaviour)
    stacks.check_writable(folder)
    rows = {task.dataset: data.load(task.dataset).fingerprint for task in options.chosen_tasks}
    plans = {
        one.name: one
        for task in options.chosen_tasks
        for agent in options.chosen_agents
        for one in [Plan(agent, task, options.scale, rows[task.dataset])]
    }
    _train(plans, options, console)
    write_tables(plans, folder, options.command)
    online_figures.draw(folder)
    told = read_online(folder)
    for table in (change_table(told), regret_table(told)):
        console.print()
        console.print(console_table(table))
        console.print(table.caption, style="dim", highlight=False)
    console.print()
    for sentence in findings(told):
        console.print(sentence, highlight=False)
    console.print(f"{time.perf_counter() - began:.0f} seconds. Tables and figures: {folder}", highlight=False)


def write_tables(plans: Mapping[str, Plan], folder: Path, command: str) -> None:
    """The tables of the stacks that are finished, so that a study that is cut short leaves what it found."""
    if results := [found for one in plans.values() if (found := stack.finished(one, folder))]:
        records.write(results, folder, command)


def _train(plans: Mapping[str, Plan], options: OnlineStudyOptions, console: Console) -> None:
    """Train the stacks that have no file yet, so many at a time; a line for each."""
    folder = options.folder
    left = [name for name, one in plans.items() if stack.finished(one, folder) is None]
    if len(left) < len(plans):
        console.print(f"{len(plans) - len(left)} of {len(plans)} stacks are there already", highlight=False)
    done = 0

    def tick(name: str, seconds: float, became: str) -> None:
        nonlocal done
        done += 1
        console.print(f"{done:>3}/{len(left)}  {name}: {seconds:.0f} s, {became}", highlight=False)
        write_tables(plans, folder, options.command)

    stacks.run(stack.work, left, ({name: plans[name] for name in left}, folder), tick, options.processes)
