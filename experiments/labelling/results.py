"""Do annotators agree with each other, and with themselves?

    python -m experiments.labelling.results DATABASE       prints ``summary`` as JSON; the server calls it, so that the
                                                           libraries for statistics do not hold up who is labelling

- Agreement of two annotators on the pairs that both answered (first, second or equal; skips do not count): the share
  of equal answers and Cohen's kappa (1960), (p - e) / (1 - e) with e the share that chance would give by both
  annotators' own frequencies. Of all annotators together: Fleiss' kappa (1971), each pair with the annotators that it
  has. Intervals are percentile bootstraps over pairs, of 95 %.
- Consistency: how often an annotator answers a repeated pair as before, and a mirrored pair the other way round, with
  Wilson's interval of 95 %.
- How often the clip on the left is preferred, among decided pairs: far from a half, somebody presses one key.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from pbrl.statistics import Interval, stratified_bootstrap, wilson

from .store import Said, Store

CHOICES = ("first", "second", "equal")
MIRRORED = {"first": "second", "second": "first", "equal": "equal"}


def kappa(one: Sequence[str], other: Sequence[str], seed: int = 0) -> Interval:
    """Cohen's kappa of two annotators' answers to the same pairs, in order.

    NaN where chance alone explains all: both always say the same word. A resample in which they do counts as 1.
    """
    a, b = (np.array([CHOICES.index(word) for word in words]) for words in (one, other))

    def statistic(places: Any, axis: int = -1) -> Any:
        at = np.asarray(places).astype(np.int64)
        same = (a[at] == b[at]).mean(axis)
        chance = sum((a[at] == k).mean(axis) * (b[at] == k).mean(axis) for k in range(len(CHOICES)))
        return _beyond(same, chance)

    if len(set(one) | set(other)) == 1:
        return _unknown()
    return stratified_bootstrap(np.arange(len(a)), statistic, seed=seed)


def fleiss(answers: Sequence[Sequence[str]], seed: int = 0) -> Interval:
    """Fleiss' kappa of several annotators: for each pair the answers that it got, at least two; NaN as in ``kappa``."""
    counts = np.array([[words.count(word) for word in CHOICES] for words in map(list, answers)])  # [pairs, 3]
    raters = counts.sum(-1)
    same = (counts * (counts - 1)).sum(-1) / (raters * (raters - 1))

    def statistic(places: Any, axis: int = -1) -> Any:
        at = np.asarray(places).astype(np.int64)
        share = counts[at].sum(axis - 1) / raters[at].sum(axis)[..., None]
        return _beyond(same[at].mean(axis), (share**2).sum(-1))

    if (counts.sum(0) > 0).sum() == 1:
        return _unknown()
    return stratified_bootstrap(np.arange(len(counts)), statistic, seed=seed)


def _beyond(same: Any, chance: Any) -> Any:
    certain = chance >= 1.0 - 1e-12
    return np.where(certain, 1.0, (same - chance) / np.where(certain, 1.0, 1.0 - chance))


def _unknown() -> Interval:
    return Interval(math.nan, math.nan, math.nan)


def summary(store: Store) -> dict[str, Any]:
    """All of it, as JSON can hold it; null where nothing is known."""
    said = store.answers()
    by_pair: dict[str, dict[str, Said]] = {}
    for answer in said:
        by_pair.setdefault(answer.pair, {})[answer.annotator] = answer
    names = sorted({answer.annotator for answer in said})
    decided = [
        {who: answer.answer for who, answer in answers.items() if answer.answer != "skip"}
        for answers in by_pair.values()
        if next(iter(answers.values())).original is None
    ]
    agreement = []
    for one, other in combinations(names, 2):
        both = [(answers[one], answers[other]) for answers in decided if one in answers and other in answers]
        if both:
            first, second = zip(*both)
            same = sum(a == b for a, b in both)
            value = kappa(first, second)
            agreement.append({"annotators": [one, other], "pairs": len(both), "same": same, "kappa": _numbers(value)})
    several = [list(answers.values()) for answers in decided if len(answers) > 1]
    return {
        "question": store.about().get("question", ""),
        "annotators": [_annotator(name, [a for a in said if a.annotator == name], by_pair) for name in names],
        "agreement": agreement,
        "overall": {"pairs": len(several), "kappa": _numbers(fleiss(several)) if several else None},
        "answers": len(said),
    }


def _annotator(name: str, mine: Sequence[Said], by_pair: dict[str, dict[str, Said]]) -> dict[str, Any]:
    again: dict[bool, list[bool]] = {False: [], True: []}
    for answer in mine:
        before = by_pair.get(answer.original or "", {}).get(name)
        if before is None or "skip" in (answer.answer, before.answer):
            continue
        expected = MIRRORED[before.answer] if answer.mirrored else before.answer
        again[answer.mirrored].append(answer.answer == expected)
    counts = {word: sum(a.answer == word for a in mine) for word in (*CHOICES, "skip")}
    return {
        "name": name,
        "answers": counts,
        "median_seconds": round(median(a.seconds for a in mine), 3),
        "repeated": _share(sum(again[False]), len(again[False])),
        "mirrored": _share(sum(again[True]), len(again[True])),
        "first": _share(counts["first"], counts["first"] + counts["second"]),
    }


def _share(successes: int, n: int) -> dict[str, Any]:
    return {"count": successes, "of": n, "share": _numbers(wilson(successes, n)) if n else None}


def _numbers(value: Interval) -> dict[str, float] | None:
    """An interval as JSON can hold it; its ends are missing where nothing is known of them."""
    if math.isnan(value.point):
        return None
    return {name: part for name, part in value._asdict().items() if not math.isnan(part)}


def main(words: Sequence[str]) -> int:
    """Print the summary of the database that is named."""
    store = Store(Path(words[0]))
    try:
        print(json.dumps(summary(store)))
    finally:
        store.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
