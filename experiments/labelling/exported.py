"""Answers as ``Preferences`` that agents learn from, and as a table of everything that is known about each."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Literal

import torch

from pbrl.data import By, Pairs, Preferences
from pbrl.data.files import replacing
from pbrl.errors import InputError

from .pairs import restored
from .store import ANSWERS, Said, Store

Rows = Literal["each", "mean"]


def preferences(
    store: Store, *, rows: Rows = "each", annotators: Sequence[str] = (), question: str | None = None
) -> Preferences:
    """The answers of a store; those who said "can't tell" said nothing.

    Args:
        rows: each answer is one (several annotators are users 0, 1, ... in the order of their names, listed in
            ``by.settings``), or one per pair, with the mean of its answers: repeated and mirrored ones count, too.
        annotators: whose; () of all.
        question: to which of several questions.

    Raises:
        InputError: no answers, several questions, or an annotator who is not among them.
    """
    said = store.answers()
    names = sorted({answer.annotator for answer in said})
    for name in annotators:
        if name not in names:
            raise InputError(f"annotator {name!r} is unknown, expected one of {', '.join(names) or 'none yet'}")
    asked = sorted({answer.question for answer in said})
    if question is None and len(asked) > 1:
        raise InputError(f"answers to {len(asked)} questions, expected one, --question {asked[0]!r} or another of them")
    if question is not None and question not in asked:
        raise InputError(f"nobody answered {question!r}, expected one of {', '.join(map(repr, asked)) or 'none yet'}")
    kept = [
        answer
        for answer in said
        if answer.answer != "skip"
        and (not annotators or answer.annotator in annotators)
        and question in (None, answer.question)
    ]
    if not kept:
        raise InputError(f"{store.path} has no answers that say which is better, expected at least one")
    who = sorted({answer.annotator for answer in kept})
    told = [(answer.first, answer.second, _label(answer), who.index(answer.annotator)) for answer in kept]
    if rows == "mean":
        told = _means(told)
    found = list(dict.fromkeys(name for first, second, _, _ in told for name in (first, second)))
    place = {name: i for i, name in enumerate(found)}
    segments = [segment for segment in map(store.segment, found) if segment is not None]
    pairs = Pairs(
        restored(segments),
        torch.tensor([place[first] for first, _, _, _ in told]),
        torch.tensor([place[second] for _, second, _, _ in told]),
    )
    settings = {"annotators": who, "rows": rows, "skipped": sum(answer.answer == "skip" for answer in said)}
    by = By(", ".join(who), kept[0].question, max(answer.answered_at for answer in kept), settings)
    user = torch.tensor([user for _, _, _, user in told]) if rows == "each" and len(who) > 1 else None
    return Preferences(pairs, torch.tensor([label for _, _, label, _ in told], dtype=torch.float32), by, user)


def _label(answer: Said) -> float:
    label = ANSWERS[answer.answer]
    assert label is not None  # skips were left out
    return label


def _means(told: Sequence[tuple[str, str, float, int]]) -> list[tuple[str, str, float, int]]:
    """One row for each two segments, in the order in which they were shown first, with the mean of the labels."""
    labels: dict[tuple[str, str], list[float]] = {}
    for first, second, label, _ in told:
        turned = (second, first) in labels
        labels.setdefault((second, first) if turned else (first, second), []).append(1.0 - label if turned else label)
    return [(first, second, fmean(each), 0) for (first, second), each in labels.items()]


def write_table(store: Store, path: Path) -> None:
    """A CSV file of all answers that were not undone, with everything that is known of each.

    Raises:
        InputError: it cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(field.name for field in dataclasses.fields(Said))
    writer.writerows(_plain(dataclasses.astuple(answer)) for answer in store.answers())
    with replacing(path) as temporary:
        temporary.write_text(text.getvalue())


def _plain(cells: Sequence[object]) -> list[object]:
    """Cells that no table program takes for a formula, as annotators choose their own names; seconds of 3 digits."""
    plain = (f"'{cell}" if isinstance(cell, str) and cell[:1] in tuple("=+-@") else cell for cell in cells)
    return [round(cell, 3) if isinstance(cell, float) else cell for cell in plain]
