"""The report of one or more run folders, from ``pbrl train`` and ``pbrl demo`` alike: one HTML page, and Markdown.

Everything on the page is read from the folders' files; nothing is trained, played or loaded from elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from pbrl.data.files import replacing
from pbrl.errors import InputError
from pbrl.records.run import CONFIG

from .demo_sections import RESULTS, demo_sections
from .page import Page, Section, html, markdown
from .rows import read_results
from .run_sections import comparison, read_run, run_sections


def write(folders: Sequence[Path], out: Path | None = None) -> None:
    """``publish``, and print where the page is."""
    print(publish(folders, out))


def publish(folders: Sequence[Path], out: Path | None = None) -> Path:
    """Write the report of these run folders; the path of the HTML file, beside which the Markdown lies.

    Args:
        folders: what ``pbrl train`` or ``pbrl demo`` left behind; one that is given twice counts once.
        out: the HTML file; by default ``report.html`` in the folder, or in the one that all folders have in common.

    Raises:
        InputError: no folder, one that is no run or is damaged, a name not in .html, or an unwritable file.
    """
    if not folders:
        raise InputError("report has no run folders, expected at least one")
    folders = list({folder.resolve(): folder for folder in folders}.values())
    for folder in folders:
        if not (folder / RESULTS).is_file() and not (folder / CONFIG).is_file():
            found = "not a run" if folder.is_dir() else "no such folder"
            raise InputError(f"{folder}: {found}, expected a folder that pbrl train or pbrl demo has made")
    out = Path(os.path.commonpath([folder.resolve() for folder in folders])) / "report.html" if out is None else out
    if out.suffix != ".html":
        raise InputError(f"{out}: the name ends in {out.suffix or 'nothing'!r}, expected .html")
    page = make(folders, out.parent / f"{out.stem}_figures")
    for path, text in ((out, html(page)), (out.with_suffix(".md"), markdown(page, out.parent))):
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return out


def make(folders: Sequence[Path], drawings: Path) -> Page:
    """The page; figures of training runs are drawn into the folder ``drawings``."""
    demos = [folder for folder in folders if (folder / RESULTS).is_file()]
    runs = [read_run(folder) for folder in folders if folder not in demos]
    several = len(folders) > 1
    sections: list[Section] = []
    if len(runs) > 1:
        sections.append(comparison(runs, drawings))
    for folder in demos:
        sections.extend(_named(demo_sections(folder), folder.name if several else ""))
    for place, run in enumerate(runs):
        sections.extend(_named(run_sections(run, drawings, place), run.name if several else ""))
    if several:
        return Page(f"{len(folders)} runs", ", ".join(folder.name for folder in folders), tuple(sections))
    if demos:
        rows = read_results(demos[0] / RESULTS)
        agents = len(dict.fromkeys(row["agent"] for row in rows))
        lead = f"{agents} agents, {len(rows)} members, on {rows[0]['data_set']}; played in {rows[0]['env']}."
        return Page("Preference learners compared", lead, tuple(sections))
    run = runs[0]
    return Page(run.name, run.lead, tuple(sections))


def _named(sections: Sequence[Section], name: str) -> Iterator[Section]:
    for section in sections:
        yield Section(f"{name}: {section.title}" if name else section.title, section.blocks)
