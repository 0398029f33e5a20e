"""``pbrl check``: claims of papers as checks, their verdicts as a table, JSON and a page."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from pbrl.data.files import unwritable
from pbrl.errors import InputError
from pbrl.theory.check import Check, Result, Size, correct

from .. import checks, suite
from ..reports.theory import CHECKS, write_checks
from .reading import read

ABOUT = """Runs claims of papers as checks, each with a control that must fail; exit code 1 if any check fails.

pbrl check explain ID tells a check's setting, assumptions and bound."""
COLOUR = {"PASS": "green", "FAIL": "red", "INCONCLUSIVE": "yellow"}


@dataclass(frozen=True)
class CheckOptions:
    """Options of ``pbrl check``."""

    ids: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[ID ...]", help_behavior_hint="")] = ()
    """Checks to run, by id; all of the size where none is named."""
    size: Size = "standard"
    """How much: smoke takes seconds, standard some minutes, full much longer. Named checks run whatever their size."""
    paper: Annotated[str | None, tyro.conf.arg(metavar="PAPER", help_behavior_hint="")] = None
    """Only checks of papers whose name holds this."""
    list: Annotated[tyro.conf.FlagCreatePairsOff[bool], tyro.conf.arg(help_behavior_hint="")] = False
    """Tell the checks and run none."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """Write the results (or the list) as JSON."""
    file: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """A Python file with checks of your own; they run alone, or beside the checks that are named."""
    seed: int = 0
    """Everything random in the checks follows from it."""
    jobs: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="")] = None
    """Processes; as many as there are cores by default."""
    resume: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="")] = None
    """Go on in the folder of a run that was stopped, with the same checks, size and seed."""
    out: Path = Path("runs")
    """Folder of all runs: results.json, report.html and figures go to check/<time> in it."""

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise InputError(f"seed is {self.seed}, expected at least 0")
        if self.jobs is not None and self.jobs < 1:
            raise InputError(f"jobs is {self.jobs}, expected at least 1")
        if self.json is not None and not self.json.absolute().parent.is_dir():
            raise InputError(f"{self.json}: there is no folder {self.json.absolute().parent} to write it in")


def check(arguments: Sequence[str]) -> int:
    """Run the command; the exit code: 1 if a check failed."""
    if arguments and arguments[0] == "explain":
        return _explain(arguments[1:])
    options = read(CheckOptions, arguments, "pbrl check", ABOUT)
    own = checks.take(options.file) if options.file is not None else []
    chosen = [check for check in own if check.id not in options.ids]
    if options.ids or not own:
        size = "full" if options.list and not options.ids else options.size
        chosen += checks.choose(options.ids, size, options.paper)
    out = Console(width=None if sys.stdout.isatty() else 160)
    if options.list:
        _print_list(chosen, out)
        if options.json is not None:
            suite.write_json(suite.listing(chosen), options.json)
        return 0
    done = suite.kept(options.resume, chosen, options.size, options.seed) if options.resume is not None else {}
    folder = options.resume or _folder(options.out)
    screen = Console(stderr=True)
    screen.print(
        f"{len(chosen)} check{'' if len(chosen) == 1 else 's'} at size {options.size}"
        f"{f', {len(done)} of them done before' if done else ''}",
        highlight=False,
    )
    command = shlex.join(["pbrl", "check", *arguments])

    def keep() -> list[Result]:
        """What there is, in the checks' order, as JSON that --resume reads; the results after Holm's correction."""
        results = [done[check.id] for check in chosen if check.id in done]
        suite.write_json([result.row() for result in results], folder / suite.RESULTS)
        return correct(results)

    try:
        _run([check for check in chosen if check.id not in done], options, folder, done, keep, screen)
    except (KeyboardInterrupt, InputError) as stop:
        written = suite.write(keep(), folder)
        again = command if options.resume is not None else f"{command} --resume {folder}"
        told = f"{len(done)} of {len(chosen)} checks are done and kept ({written}), go on with: {again}"
        raise type(stop)("; ".join(filter(None, [str(stop), told]))) from None
    results = keep()
    for path in filter(None, (folder / suite.RESULTS, options.json)):
        suite.write_json([result.row() for result in results], path)
    made = suite.write(results, folder)
    write_checks(results, chosen, options.seed, command, folder / CHECKS)
    out.print(_table(results))
    for result in results:
        if result.verdict != "PASS" and result.note:
            out.print(f"{result.check}: {result.note}", highlight=False, markup=False, soft_wrap=True)
    out.print(f"{suite.tally(results)} -> {made}", highlight=False, soft_wrap=True)
    return 1 if any(result.verdict == "FAIL" for result in results) else 0


def _run(
    left: Sequence[Check],
    options: CheckOptions,
    folder: Path,
    done: dict[str, Result],
    keep: Callable[[], object],
    screen: Console,
) -> None:
    """Run the checks that are left; each result goes to ``done``, and is kept, as it ends."""
    jobs = options.jobs or suite.cores()
    figures = folder / suite.FIGURES
    with closing(suite.run(left, options.size, options.seed, jobs, figures, options.file)) as results:
        for result in results:
            done[result.check] = result
            keep()
            screen.print(f"[{COLOUR[result.verdict]}]{result.verdict:<12}[/] {result.check} ({result.seconds:.1f} s)")


def _explain(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: pbrl check explain ID [ID ...]\n\nTells a check's setting, assumptions, bound and control.")
        return 0
    for found in map(checks.find, arguments):
        print("\n".join([found.id, *(f"  {line}" for line in suite.explain(found))]))
    return 0


def _folder(out: Path) -> Path:
    folder = out / "check" / datetime.now().strftime("%Y%m%d-%H%M%S")
    with unwritable(folder):
        number = 1
        while folder.exists():
            number += 1
            folder = folder.with_name(f"{folder.name.split('_')[0]}_{number}")
        (folder / suite.FIGURES).mkdir(parents=True)
    return folder


def _table(results: Sequence[Result]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in suite.HEADER:
        right = name in ("slack", "seconds", "statistic")
        ratio = {"claim": 3, "paper": 1}.get(name)
        table.add_column(name, justify="right" if right else "left", ratio=ratio)
    for result in results:
        row = list(suite.cells(result))
        row[3] = f"[{COLOUR[result.verdict]}]{row[3]}[/]"
        table.add_row(*row)
    return table


def _print_list(chosen: Sequence[Check], out: Console) -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("id", "paper", "claim", "control", "size"):
        table.add_column(name)
    for row in suite.listing(chosen):
        table.add_row(*map(str, row.values()))
    out.print(table)
