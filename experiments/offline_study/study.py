"""The study: offline agents on the same data, with the same updates, widths and evaluation episodes.

All seeds of an agent on a data set are one stack, trained in lock-step in a process of one thread; it leaves a file
behind, and a checkpoint at each evaluation, so that a study that is stopped goes on by the same command.

The settings are the published ones of each task; where a small budget needs others, ``settings.SMALL`` has them. They
were chosen before any score of the study's seeds was seen.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from .. import stacks
from ..datasets.needed import find_data
from ..reports import offline_figures
from ..reports.offline_findings import findings
from ..reports.offline_rows import read_offline
from ..reports.offline_tables import best_table, last_table
from ..reports.score_tables import console_table
from . import records
from .settings import AGENTS, OfflineOptions
from .stack import Plan, finished, load, work


def offline(options: OfflineOptions) -> None:
    """Train what is not trained yet, and write tables and figures to the folder.

    Raises:
        InputError: missing or unfit data, or a folder that cannot be written; before any training.
        KeyboardInterrupt: Ctrl-C, with a word on what is kept.
    """
    console = Console(width=None if sys.stdout.isatty() else 200)
    try:
        study(options, console)
    except KeyboardInterrupt:
        kept = len(list((options.folder / "stacks").glob("*.json")))
        if (options.folder / "offline.csv").is_file():
            offline_figures.draw(options.folder)
        told = f"{kept} stack{'' if kept == 1 else 's'} done and kept"
        raise KeyboardInterrupt(f"{told}, the same command goes on from there") from None


def study(options: OfflineOptions, console: Console) -> None:
    """See ``offline``."""
    folder, scale, began = options.folder, options.scale, time.perf_counter()
    tasks = options.chosen_tasks
    find_data([task for task in tasks if not task.file], options.behaviour)
    rows = {task.dataset: load(task).fingerprint for task in tasks}
    stacks.check_writable(folder)
    names = [name for name in AGENTS if name in (options.agents or AGENTS)]
    made = [Plan(name, task, scale, options.device, rows[task.dataset]) for name in names for task in tasks]
    plans = {one.name: one for one in made}
    train(plans, options, console)
    write_tables(plans, folder, options.command)
    offline_figures.draw(folder)
    told = read_offline(folder)
    for table in (last_table(told), best_table(told)):
        console.print()
        console.print(console_table(table))
        console.print(table.caption, style="dim", highlight=False)
    console.print()
    for sentence in findings(told):
        console.print(sentence, highlight=False)
    console.print(f"{time.perf_counter() - began:.0f} seconds. Tables and figures: {folder}", highlight=False)


def write_tables(plans: Mapping[str, Plan], folder: Path, command: str) -> None:
    """The tables of the stacks that are finished, so that a study that is cut short leaves what it found."""
    if results := [found for one in plans.values() if (found := finished(one, folder))]:
        records.write(results, folder, command)


def train(plans: Mapping[str, Plan], options: OfflineOptions, console: Console) -> None:
    """Train the stacks that have no file yet, so many at a time; a line for each, and the tables anew."""
    folder = options.folder
    left = [name for name, one in plans.items() if finished(one, folder) is None]
    if len(left) < len(plans):
        console.print(f"{len(plans) - len(left)} of {len(plans)} stacks are there already", highlight=False)
    done = 0

    def tick(name: str, seconds: float, score: float) -> None:
        nonlocal done
        done += 1
        told = f"{done:>3}/{len(left)}  {name}: {seconds:.0f} s, mean score {score:.1f}"
        console.print(told, highlight=False)
        write_tables(plans, folder, options.command)

    processes = 1 if options.device == "cuda" else options.processes
    stacks.run(work, left, ({name: plans[name] for name in left}, folder), tick, processes)
