"""``pbrl bench morl``: fronts of C-MORL with and without its extension stage, beside a sweep of fixed weights.

On every task, all ways to a front take equally many environment steps. Those are counted that C-MORL's archive
measures its policies by, in copies of the environment that are played greedily and not learned from: the sweep, whose
first stage is the same, takes them too, though it has no use for them. In the end all policies of a set, archived or
last ones, are measured in the same new episodes, acting greedily; these steps are the study's and count for nobody.

A piece of the study is the first stage on a task, for all seeds in one stack, or one of the ways on from there. It is a
process of one thread and leaves a file behind, so that a study that is stopped loses at most the pieces under way, and
the same command goes on.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from pbrl.data.files import replacing

from .. import side_by_side
from ..reports import morl_figures
from ..reports.morl_findings import findings
from ..reports.morl_rows import read_fronts
from ..reports.morl_tables import quality_table, volume_table
from ..reports.score_tables import console_table
from . import records
from .fronts import START, finished, pieces, still, work
from .settings import Plan, StudyOptions


def morl(options: StudyOptions) -> None:
    """Train what is not trained yet, and write tables and figures to the folder.

    Raises:
        InputError: a folder that cannot be written; before any training.
        KeyboardInterrupt: Ctrl-C, with a word on what is kept.
    """
    console = Console(width=None if sys.stdout.isatty() else 200)
    try:
        study(options, console)
    except KeyboardInterrupt:
        kept = len(list((options.folder / "pieces").glob("*.json")))
        told = f"{kept} piece{'' if kept == 1 else 's'} done and kept"
        raise KeyboardInterrupt(f"{told}, the same command goes on from there") from None


def study(options: StudyOptions, console: Console) -> None:
    """See ``morl``."""
    folder, plans, began = options.folder, options.plans, time.perf_counter()
    probe = folder / ".writable"
    with replacing(probe) as temporary:
        temporary.touch()
    probe.unlink()
    starts = [f"{name}/{START}" for name in plans if _lacks_start(plans[name], folder)]
    total = len(plans) * (1 + len(pieces(next(iter(plans.values())))))
    ways = [piece for plan in plans.values() for piece in pieces(plan) if _of(piece, plans, folder) is None]
    if total > len(starts) + len(ways):
        console.print(f"{total - len(starts) - len(ways)} of {total} pieces are there already", highlight=False)
    tick = _counter(console, len(starts) + len(ways))
    for names in (starts, ways):
        _run(names, plans, folder, tick, options.processes)
    results = {
        name: found
        for plan in plans.values()
        for name in (f"{plan.name}/{START}", *pieces(plan))
        if (found := _of(name, plans, folder)) is not None
    }
    stills = {name: still(plan) for name, plan in plans.items()}
    records.write(list(plans.values()), results, stills, folder, options.command)
    morl_figures.draw(folder)
    told = read_fronts(folder)
    for table in (volume_table(told, told.agents), quality_table(told)):
        console.print()
        console.print(console_table(table))
        console.print(table.caption, style="dim", highlight=False)
    console.print()
    for sentence in findings(told):
        console.print(sentence, highlight=False)
    console.print(f"{time.perf_counter() - began:.0f} seconds. Tables and figures: {folder}", highlight=False)


def _of(name: str, plans: Mapping[str, Plan], folder: Path) -> dict[str, object] | None:
    task, _, piece = name.rpartition("/")
    return finished(plans[task], piece, folder)


def _lacks_start(plan: Plan, folder: Path) -> bool:
    """Whether the first stage is to be trained: it was not, or its checkpoint is gone while a way needs it."""
    if finished(plan, START, folder) is None:
        return True
    needed = any(finished(plan, name.rpartition("/")[2], folder) is None for name in pieces(plan))
    return needed and not (folder / "starts" / plan.name / "checkpoint.json").is_file()


def _counter(console: Console, total: int) -> Callable[[str, float], None]:
    done = 0

    def tick(name: str, seconds: float) -> None:
        nonlocal done
        done += 1
        console.print(f"{done:>3}/{total}  {name}: {seconds:.0f} s", highlight=False)

    return tick


def _run(names: Sequence[str], plans: Mapping[str, Plan], folder: Path, tick: Callable[..., None], wanted: int) -> None:
    if names:
        processes = min(wanted or side_by_side.cores(), len(names))
        side_by_side.run(work, names, (dict(plans), folder), tick, processes=processes)
