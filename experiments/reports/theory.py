"""The theory's page, ``docs/theory.md``, and the README's part on it, made from ``experiments/results/checks.csv``.

``pbrl check`` leaves the table in its run's folder; ``python -m experiments.reports.tables FOLDER`` takes it over with
its figures, and makes both texts.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Sequence
from pathlib import Path

from pbrl.data.files import replacing
from pbrl.errors import InputError
from pbrl.records import environment
from pbrl.theory.check import Check, Result

from .page import Figure, Page, Section, Table, Text, markdown
from .rows import Row, read_rows

CHECKS = "checks.csv"
PREFIX = "check_"
SHOWN = 2
"""Figures that the README has; the page has them all."""
NUMBERS = ("estimate", "low", "high", "bound", "slack", "seconds", "p_value", "control_estimate", "cpu_seconds")
COLUMNS = (
    "id", "paper", "claim", "verdict", "control", "control_what", "at_least", "provenance", *NUMBERS, "size", "seed",
    "note", "after_looking", "caption", "versions", "device", "command",
)  # fmt: skip

SLACK = "slack: share of the bound that was used, at most 1 where it is kept."
PROVED = f"{SLACK} A bound is the paper's, or derived: proved where the check is written, or rounding alone."
OURS = (
    f"{SLACK} No theorem gives these bounds: they are tolerances of ours, set with first outcomes in sight. A PASS "
    "says that the effect is there on the instance, and larger than the tolerance: less than a PASS above says."
)
LOOKED = (
    "Beyond the bounds of our own, all of which were set with first outcomes in sight, these are what the repository's "
    "history shows. An honest reading takes such a check for a measurement, not for a test that could have failed."
)


def write_checks(results: Sequence[Result], known: Sequence[Check], seed: int, command: str, path: Path) -> None:
    """Write the results of a suite as a CSV with a row per check: numbers, verdicts, and where they come from."""
    about = environment.describe()
    versions = " ".join(f"{name} {about[name]}" for name in ("pbrl", "python", "torch", "numpy", "scipy"))
    if about["commit"]:
        versions += f" commit {about['commit'][:7]}{'+' if about['commit'].endswith('+') else ''}"
    checks = {check.id: check for check in known}
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        for result in results:
            check, row = checks[result.check], result.row()
            more = {
                "claim": check.claim,
                "control_what": check.control.what,
                "at_least": int(check.at_least),
                "provenance": check.provenance,
                "after_looking": check.after_looking,
                "seed": seed,
                "caption": result.caption,
                "versions": versions,
                "device": f"{about['processor']}, {about['cores']} cores",
                "command": command,
            }
            numbers = {name: "" if row[name] is None else f"{row[name]:.6g}" for name in NUMBERS}
            words = {name: row[name] for name in ("id", "paper", "verdict", "control", "size", "note")}
            table.writerow(words | more | numbers)


def read_checks(path: Path) -> list[Row]:
    """The rows of ``checks.csv``.

    Raises:
        InputError: a table that is missing or damaged, or a verdict that there is not.
    """
    rows = read_rows(path, COLUMNS)
    for row in rows:
        for name in ("verdict", "control"):
            if row[name] not in ("PASS", "FAIL", "INCONCLUSIVE"):
                raise InputError(f"{path}: {name} of {row['id']} is {row[name]!r}, expected PASS, FAIL or INCONCLUSIVE")
    return rows


def take_checks(folder: Path, results: Path) -> None:
    """Copy the table and the figures of a run of ``pbrl check`` to the committed results; older figures go."""
    rows = read_checks(folder / CHECKS)
    for old in results.glob(f"{PREFIX}*.png"):
        old.unlink()
    kept = {CHECKS: folder / CHECKS}
    for row in rows:
        drawn = folder / "figures" / f"{row['id']}.png"
        if row["caption"] and drawn.is_file():
            kept[f"{PREFIX}{row['id']}.png"] = drawn
    for name, source in kept.items():
        with replacing(results / name) as temporary:
            shutil.copyfile(source, temporary)


def theory_page(results: Path, folder: Path) -> str:
    """The page's Markdown, to be kept in ``folder``.

    Raises:
        InputError: the table is missing or damaged.
    """
    rows = read_checks(results / CHECKS)
    ours = [row for row in rows if row["provenance"] == "practical"]
    proved = [row for row in rows if row["provenance"] != "practical"]
    sections = []
    if proved:
        sections.append(Section("Bounds of the papers, or derived", (_table(proved, PROVED),)))
    if ours:
        sections.append(Section("Bounds of our own", (_table(ours, OURS),)))
    looked = tuple((row["id"], row["after_looking"]) for row in rows if row["after_looking"])
    if looked:
        table = Table(("check", "what was chosen or changed after outcomes had been seen"), looked, words=2)
        sections.append(Section("Set or changed after looking", (Text(LOOKED), table)))
    missed = [row for row in rows if row["verdict"] != "PASS"]
    if missed:
        lines = tuple(Text(f"{row['id']} ({row['verdict']}): {row['claim']} {row['note']}") for row in missed)
        sections.append(Section("What did not hold, or could not be told", lines))
    for row in rows:
        picture = results / f"{PREFIX}{row['id']}.png"
        if row["caption"] and picture.is_file():
            sections.append(
                Section(f"{row['id']}: {row['paper']}", (Text(row["caption"]), Figure(picture, row["claim"])))
            )
    lead = f"{_tally(rows)} {_source(rows)}".replace("`", "")  # a page's text is taken literally
    return markdown(Page("Theory checks", lead, tuple(sections)), folder)


def _table(rows: Sequence[Row], caption: str) -> Table:
    return Table(
        header=("check", "claim", "verdict", "statistic", "bound", "slack", "control, which must FAIL", "CPU seconds"),
        rows=tuple(map(_cells, rows)),
        words=3,
        caption=caption,
    )


def checks_part(results: Path) -> str:
    """The README's part: how many checks held, what did not, and the first figures.

    Raises:
        InputError: the table is missing or damaged.
    """
    rows = read_checks(results / CHECKS)
    drawn = [row for row in rows if row["caption"] and (results / f"{PREFIX}{row['id']}.png").is_file()]
    blocks = [f"{_tally(rows)} [docs/theory.md](docs/theory.md) has them all, with {_figures(drawn)}."]
    if missed := [f"{row['id']} ({row['verdict']})" for row in rows if row["verdict"] != "PASS"]:
        blocks += [f"Not held, or not told apart from chance: {', '.join(missed)}."]
    for row in drawn[:SHOWN]:
        blocks += [f"![{row['id']}: {row['claim']}](experiments/results/{PREFIX}{row['id']}.png)"]
    return "\n\n".join([*blocks, _source(rows)])


def _figures(drawn: Sequence[Row]) -> str:
    return f"{len(drawn)} {'figure' if len(drawn) == 1 else 'figures'}"


def _cells(row: Row) -> tuple[str, ...]:
    exact = row["p_value"] == ""
    interval = "" if exact else f" ({_short(row['low'])} to {_short(row['high'])})"
    return (
        row["id"],
        f"{row['claim']} {row['paper']}",
        row["verdict"],
        f"{_short(row['estimate'])}{interval}",
        f"{'>=' if row['at_least'] == '1' else '<='} {_short(row['bound'])} ({row['provenance']})",
        _short(row["slack"], 2),
        f"{row['control_what']}: {row['control']} ({_short(row['control_estimate'])})",
        _short(row["cpu_seconds"], 2),
    )


def _short(number: str, digits: int = 3) -> str:
    return f"{float(number):.{digits}g}" if number else "-"


def _tally(rows: Sequence[Row]) -> str:
    count = {verdict: sum(row["verdict"] == verdict for row in rows) for verdict in ("PASS", "FAIL", "INCONCLUSIVE")}
    failing = sum(row["control"] == "FAIL" for row in rows)
    papers = len({row["paper"] for row in rows})
    said = ", ".join(f"{number} {verdict}" for verdict, number in count.items())
    return (
        f"{len(rows)} claims of {papers} papers, checked on small problems: {said}; {failing} of {len(rows)} controls "
        "fail, as they must. PASS means not contradicted on these instances at 95 % confidence at either end, and "
        "never proved."
    )


def _source(rows: Sequence[Row]) -> str:
    first = rows[0]
    seconds = sum(float(row["cpu_seconds"] or 0.0) for row in rows)
    return (
        f"Made by `{first['command']}` ({seconds / 60:.1f} minutes of one core, {first['device']}; "
        f"{first['versions']}); rows in experiments/results/{CHECKS}."
    )
