"""The README's part on answers of people, and the page on them, made from the study's table; headings included."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .blocks import bullets, joined
from .human_tables import agreement_table, human_findings, people_table, read_human
from .page import markdown_table
from .rows import Row

HUMAN, PAGE, TITLE = "human_labels.csv", "human_labels.md", "Answers of people"


def human_part(results: Path) -> str:
    """What the README says of agreement with people, from ``human_labels.csv``.

    Raises:
        InputError: the table is missing or damaged.
    """
    rows = read_human(results / HUMAN)
    more = f"Agreement with the script, and what those that act earn: [docs/{PAGE}](docs/{PAGE})."
    table, told = markdown_table(people_table(rows)), bullets(human_findings(rows))
    return joined([f"## {TITLE}", _design(), table, told, more, _source(rows)])


def human_page(results: Path, _folder: Path) -> str:
    """All that was measured, for a page in any folder: it shows no picture.

    Raises:
        InputError: the table is missing or damaged.
    """
    rows = read_human(results / HUMAN)
    table, told = markdown_table(agreement_table(rows)), bullets(human_findings(rows))
    return joined([f"# {TITLE}", _design(), table, told, _source(rows)]) + "\n"


def _design() -> str:
    return (
        "How often agents side with answers of people that they have not seen, on pairs of 100-step segments of D4RL's "
        "Hopper and Walker2d data (one annotator each, published with Preference Transformer), when they learn from "
        "people, and when they learn from a script that answers the same pairs by their returns."
    )


def _source(rows: Sequence[Row]) -> str:
    versions = next(row["versions"] for row in rows if row["versions"])
    return f"Made by `pbrl bench human-labels` ({versions}); rows in experiments/results/{HUMAN}."
