"""Runs checks in parallel processes and keeps what they found: results.json, a page with figures, the figures."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
import threading
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from pbrl.data.files import replacing
from pbrl.errors import InputError
from pbrl.theory.check import SIZES, Check, Provenance, Result, Size, Trial, execute

from . import checks
from .reports.page import Block, Figure, Page, Section, Table, Text, html, markdown

ORIGINS: dict[Provenance, str] = {
    "paper": "the paper's own",
    "derived": "proved in the check's file or the dossier",
    "practical": "a tolerance of ours, which no theorem gives and which was set with first outcomes in sight",
}
RESULTS, FIGURES = "results.json", "figures"
HEADER = ("check", "paper", "claim", "verdict", "control", "statistic", "interval", "bound", "slack", "seconds")


def cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(
    chosen: Sequence[Check],
    size: Size,
    seed: int,
    jobs: int,
    figures: Path | None,
    file: Path | None = None,
) -> Generator[Result, None, None]:
    """Each check's result as it ends, before Holm's correction; long checks come first where there are processes.

    A check whose own size is above ``size`` (it was named) runs at its own. ``file`` holds checks of somebody's own,
    for processes that have not read it.

    Raises:
        InputError: a process was killed.
    """
    trials = [Trial(at(check, size), seed) for check in chosen]
    if jobs == 1 or len(chosen) <= 1:
        for check, trial in zip(chosen, trials):
            yield execute(check, trial, figures)
        return
    # Long checks first, so that none is left over at the end. Spawned: torch's threads do not survive a fork.
    order = sorted(zip(chosen, trials), key=lambda pair: -SIZES.index(pair[0].size))
    context = multiprocessing.get_context("spawn")
    others = set(multiprocessing.active_children())
    with ProcessPoolExecutor(min(jobs, len(chosen)), context, _prepare, (file,)) as pool:
        with _born_deaf():
            waiting = [pool.submit(_execute, check.id, trial, figures) for check, trial in order]
        try:
            for done in as_completed(waiting):
                yield done.result()
        except BrokenProcessPool:
            raise InputError(
                "a process that ran checks was killed, perhaps for want of memory: expected more, or --jobs 1"
            ) from None
        except BaseException:  # Ctrl-C, or nobody wants more: a check under way may have minutes to go
            pool.shutdown(wait=False, cancel_futures=True)
            for process in set(multiprocessing.active_children()) - others:
                process.kill()
            raise


def at(check: Check, size: Size) -> Size:
    """The size at which a check runs: its own where that is larger."""
    return max(size, check.size, key=SIZES.index)


@contextmanager
def _born_deaf() -> Iterator[None]:
    """Processes that start in the block ignore Ctrl-C, which reaches the whole group: the parent tells and kills."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # what is ignored stays ignored in a new program
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _prepare(file: Path | None) -> None:
    """Processes share the cores among themselves; threads of their own would only wait for each other."""
    import torch

    torch.set_num_threads(1)
    if file is not None:
        checks.take(file)


def _execute(id: str, trial: Trial, figures: Path | None) -> Result:
    return execute(checks.find(id), trial, figures)


def listing(chosen: Sequence[Check]) -> list[dict[str, Any]]:
    """What ``pbrl check --list --json`` writes."""
    return [{"id": c.id, "paper": c.paper, "claim": c.claim, "control": c.control.what, "size": c.size} for c in chosen]


def write_json(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write rows as JSON, all or nothing."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(list(rows), indent=1) + "\n", encoding="utf-8")


def cells(result: Result) -> tuple[str, ...]:
    """A result's row under ``HEADER``."""
    check = checks.find(result.check)
    interval = "exact" if result.p_value is None else f"[{result.low:.3g}, {result.high:.3g}]"
    sign = ">=" if check.at_least else "<="
    return (
        result.check,
        result.paper,
        check.claim,
        result.verdict,
        f"{result.control} ({result.control_estimate:.3g})",
        f"{result.estimate:.3g}",
        interval,
        f"{sign} {result.bound:.3g} ({check.provenance})",
        f"{result.slack:.2g}",
        f"{result.seconds:.1f}",
    )


def page(results: Sequence[Result], title: str) -> Page:
    """The page: a table of all results, then each check in words with its figure."""
    papers = {result.paper for result in results}
    lead = (
        f"{len(results)} checks of {len(papers)} papers: {tally(results)}. PASS means not contradicted on these "
        "instances at 95 % confidence at either end, never proved; every control is a broken variant that must FAIL."
    )
    table = Table(
        header=HEADER,
        rows=tuple(map(cells, results)),
        words=5,
        caption="slack: share of the bound that was used, at most 1 where it is kept. Statistical failures are "
        "corrected by Holm over the suite.",
    )
    sections = [Section("Results", (table,))]
    for result in results:
        check = checks.find(result.check)
        blocks: list[Block] = [Text(line) for line in explain(check)]
        blocks += [Text(f"Seen: {result.note}")] if result.note else []
        blocks += [Figure(result.figure, result.caption)] if result.figure is not None and result.caption else []
        sections.append(Section(f"{check.id}: {result.verdict}", tuple(blocks)))
    return Page(title, lead, tuple(sections))


def tally(results: Sequence[Result]) -> str:
    """12 PASS, 1 FAIL, 0 INCONCLUSIVE."""
    return ", ".join(f"{sum(r.verdict == v for r in results)} {v}" for v in ("PASS", "FAIL", "INCONCLUSIVE"))


def explain(check: Check) -> list[str]:
    """A check in sentences."""
    needs = "; ".join(check.assumptions) or "none beyond the setting"
    sign = "at least" if check.at_least else "at most"
    origin = ORIGINS[check.provenance]
    return [
        f"Claim: {check.claim}",
        f"Paper: {check.paper}",
        f"Setting: {check.setting}",
        f"Assumptions: {needs}",
        f"Bound: {sign} {check.bound:g} ({check.provenance}: {origin}): {check.bound_says}",
        f"Control, which must FAIL: {check.control.what}",
        *([f"Set after looking at outcomes: {check.after_looking}"] if check.after_looking else []),
        f"Size: {check.size}",
    ]


def kept(folder: Path, chosen: Sequence[Check], size: Size, seed: int) -> dict[str, Result]:
    """What a run that was stopped has left in its folder, by id; not the checks that broke with an error.

    Raises:
        InputError: no such results, damaged ones, or of other checks, sizes or seeds.
    """
    path = folder / RESULTS
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        found = [Result.of_row(row, folder / FIGURES / f"{row['id']}.png") for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: no results can be read ({error}), expected those of a stopped pbrl check") from None
    sizes = {check.id: at(check, size) for check in chosen}
    for one in found:
        if one.check not in sizes:
            raise InputError(f"{folder} holds the result of {one.check}, expected only checks that this command names")
        if (one.size, one.seed) != (sizes[one.check], seed):
            raise InputError(
                f"{folder} holds {one.check} at size {one.size} with seed {one.seed}, expected size {sizes[one.check]} "
                f"and seed {seed}"
            )
    return {one.check: one for one in found if not math.isnan(one.estimate)}


def write(results: Sequence[Result], folder: Path) -> Path:
    """Write report.html and report.md into ``folder``; the page's path."""
    drawn = [r if r.figure is None or r.figure.exists() else replace(r, figure=None) for r in results]
    made = page(drawn, "Theory checks")
    for name, text in (("report.html", html(made)), ("report.md", markdown(made, folder))):
        with replacing(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return folder / "report.html"
