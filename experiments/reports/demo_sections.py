"""The sections of the report that are about a demo."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pbrl.records.run import CONFIG, ENVIRONMENT

from . import demo_figures
from .findings import findings
from .page import Figure, Section, Table, Text
from .rows import Row, read_labels, read_results
from .score_tables import accuracy_table, score_table, words
from .settings_table import settings_table

RESULTS = "results.csv"
STAGES = (
    "SFT and CPL clone all segments in the first half of their updates; P-IQL learns its reward there, and its policy "
    "only begins in the second half."
)


def demo_sections(folder: Path) -> list[Section]:
    """The sections on the demo in a folder.

    Raises:
        InputError: a file that is missing or damaged.
    """
    rows, judged = read_results(folder / RESULTS), read_labels(folder / "labels.csv")
    scores, curves, judges = folder / "scores.png", folder / "curves.png", demo_figures.label_figures(folder)
    if not all(path.is_file() for path in (scores, curves, *judges.values())):
        demo_figures.draw(folder)
    return [
        Section(
            "Scores",
            (
                Figure(scores, "Score of every agent after its last update, by the labels that it learned from."),
                score_table(rows),
                *map(Text, findings(rows)),
            ),
        ),
        Section(
            "Held-out labels",
            (
                Text(
                    "CPL judges a segment by its advantage (the discounted sum of alpha log pi), P-IQL by its learned "
                    "reward, BC and SFT by the likelihood of the actions; BC has seen no labels and is judged by both "
                    "labelers. The pairs are from episodes that no labelled training pair is from."
                ),
                *(
                    Figure(path, f"Held-out pairs by {words(judge)}: mean and range of the seeds, from close to clear.")
                    for judge, path in judges.items()
                ),
                accuracy_table(judged),
            ),
        ),
        Section("Learning curves", (Figure(curves, f"Scores at every evaluation on the way. {STAGES}"),)),
        Section(
            "Settings", (settings_table(folder / CONFIG), Text(f"To repeat it: {rows[0].get('command', 'pbrl demo')}"))
        ),
        Section("Members", (_members(rows),)),
        Section("Environment", (settings_table(folder / ENVIRONMENT),)),
    ]


def _members(rows: Sequence[Row]) -> Table:
    columns = ("agent", "labels", "seed", "score_last", "score_best", "best_at", "label_accuracy", "seconds")
    shown = [column for column in columns if column in rows[0]]
    return Table(
        header=tuple(column.replace("_", " ") for column in shown),
        rows=tuple(tuple(row[column] for column in shown) for row in rows),
        words=2,
        fold=f"All {len(rows)} members",
    )
