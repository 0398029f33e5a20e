"""The README's part on the preference study, and the study's page, made from its tables; headings included."""

from __future__ import annotations

import json
from pathlib import Path

from .blocks import README, bullets, joined, picture, seen_from
from .page import markdown_table, narrow
from .preference_advice import advice, short_table
from .preference_figures import ACCURACY, BUDGETS, CURVES, ODDS
from .preference_findings import findings, in_short, listed
from .preference_rows import Study, read_study, short
from .preference_tables import accuracy_table, budget_table, task_table
from .rows import Row, read_rows

PREFIX, PAGE, TITLE = "preferences_", "preferences.md", "Which preference method to pick"
NAMES = "What the agents' names stand for: [Agents](#agents)."
SEARCH = "preferences_search.csv"
STUDY_FILES = {
    "preferences.csv": "preferences.csv",
    **{name: f"{PREFIX}{name}" for name in ("curves.csv", "gaps.csv", "odds.csv", BUDGETS, CURVES, ACCURACY, ODDS)},
}
"""What the study's folder holds -> its name among the committed results."""
CAPTIONS = {
    BUDGETS: "Score against the number of labelled pairs, by task and kind of labels",
    CURVES: "Scores in training with the most labels",
    ACCURACY: "Share of held-out pairs ordered as the labeler orders them, by how close the call is",
    ODDS: "Predicted probability of a preference and how often it comes true",
}


def preferences_part(results: Path) -> str:
    """What the README says of the study, from ``preferences.csv`` and the tables beside it.

    Raises:
        InputError: a table is missing or damaged.
    """
    study = read_study(results, PREFIX)
    blocks = [
        f"## {TITLE}",
        bullets(advice(study)),
        NAMES,
        _design(study),
        markdown_table(narrow(short_table(study))) if study.budgets else "",
        bullets(in_short(study)),
        _picture(results, BUDGETS),
        f"All agents on all tasks, faulty answers, held-out accuracy, settings: [docs/{PAGE}](docs/{PAGE}).",
        _source(study),
    ]
    return joined(blocks)


def preferences_page(results: Path, folder: Path) -> str:
    """The whole study, for a page in ``folder``.

    Raises:
        InputError: a table is missing or damaged.
    """
    study = read_study(results, PREFIX)
    root = seen_from(folder, results)
    blocks = [
        f"# {TITLE}",
        bullets(advice(study)),
        _design(study),
        "## With the most labels",
        markdown_table(task_table(study)),
        bullets(findings(study)),
        _picture(results, CURVES, root),
        "## Fewer labels, and wrong ones",
        _picture(results, BUDGETS, root),
        markdown_table(budget_table(study)),
    ]
    if study.gaps:
        blocks += ["## Held-out pairs", markdown_table(accuracy_table(study)), _picture(results, ACCURACY, root)]
        blocks += [_picture(results, ODDS, root)]
    blocks += ["## Where this comes from", _settings(results), _source(study)]
    return joined(blocks) + "\n"


def _picture(results: Path, name: str, root: str = README) -> str:
    return picture(results, f"{PREFIX}{name}", CAPTIONS[name], root)


def _design(study: Study) -> str:
    first = study.members[0]
    pairs = ", ".join(map(str, study.budgets))
    return (
        f"On {len(study.datasets)} data sets ({', '.join(map(short, study.datasets))}), two labelers answer the same "
        f"pairs of segments, by partial return and by regret, and {len(study.agents)} agents learn from {pairs} of the "
        f"answers; IQL gets the true reward instead, and BC nothing. All make {first['updates']} updates with networks "
        "of equal width. SFT and the variants of CPL learn from the labelled segments alone, the others from all "
        "transitions of the data set, too."
    )


def _settings(results: Path) -> str:
    """What the search chose, from its record."""
    path = results / SEARCH
    if not path.is_file():
        return ""
    rows = read_rows(path, ("agent", "dataset", "labels", "settings", "seeds", "chosen"))
    chosen: dict[str, Row] = {row["agent"]: row for row in rows if row["chosen"] == "yes"}
    tried = {agent: len({row["settings"] for row in rows if row["agent"] == agent}) for agent in chosen}
    parts = [f"{agent} {_words(row['settings'])} (of {tried[agent]})" for agent, row in chosen.items()]
    tasks = list(dict.fromkeys(short(row["dataset"]) for row in rows))
    return (
        f"Settings were fixed before, by a search on {listed(tasks)} with other seeds ({rows[0]['seeds']}), pairs and "
        f"episodes, recorded in experiments/results/{SEARCH}: {'; '.join(parts)}."
    )


def _words(settings: str) -> str:
    found = json.loads(settings)
    return " ".join(f"{name} {value:g}" for name, value in found.items()) or "as they are"


def _source(study: Study) -> str:
    first = study.members[0]
    # A stack's rows share its time; an agent has several on a data set where members were added later.
    stacks = {tuple(row[name] for name in ("agent", "dataset", "members", "seconds")) for row in study.members}
    seconds = sum(float(taken) for *_, taken in stacks)
    return (
        f"Made by `{first['command']}` ({first['versions']}; {seconds / 3600:.1f} hours of one core, "
        f"{first['threads']} thread per stack); a row per member in experiments/results/preferences.csv."
    )
