"""The README's parts on the preference study and on human answers, made from their tables; headings included."""

from __future__ import annotations

import json
from pathlib import Path

from .human_tables import agreement_table, human_findings, read_human
from .page import markdown_table
from .preference_figures import ACCURACY, BUDGETS, CURVES, ODDS
from .preference_findings import findings, listed
from .preference_rows import Study, read_study, short
from .preference_tables import accuracy_table, budget_table, task_table
from .rows import Row, read_rows

PREFIX = "preferences_"
SEARCH = "preferences_search.csv"
STUDY_FILES = {
    "preferences.csv": "preferences.csv",
    **{name: f"{PREFIX}{name}" for name in ("curves.csv", "gaps.csv", "odds.csv", BUDGETS, CURVES, ACCURACY, ODDS)},
}
"""What the study's folder holds -> its name among the committed results."""


def preferences_part(results: Path) -> str:
    """The study, from ``preferences.csv`` and the tables beside it.

    Raises:
        InputError: a table is missing or damaged.
    """
    study = read_study(results, PREFIX)
    blocks = [
        "## Which preference method to pick",
        _design(study),
        markdown_table(task_table(study)),
        _picture(results, BUDGETS, "Score against the number of labelled pairs, by task and kind of labels"),
        markdown_table(budget_table(study)),
        "\n".join(f"- {sentence}" for sentence in findings(study)),
    ]
    if study.gaps:
        blocks += ["How often an agent orders held-out pairs as the labeler does, and how good its odds are:"]
        blocks += [markdown_table(accuracy_table(study))]
        blocks += [_picture(results, ODDS, "Predicted probability of a preference and how often it comes true")]
    blocks += [_picture(results, CURVES, "Scores in training with the most labels"), _settings(results), _source(study)]
    return "\n\n".join(block for block in blocks if block)


def human_part(results: Path) -> str:
    """Agreement with people, from ``human_labels.csv``.

    Raises:
        InputError: the table is missing or damaged.
    """
    rows = read_human(results / "human_labels.csv")
    versions = next(row["versions"] for row in rows if row["versions"])
    blocks = [
        "## Answers of people",
        "How often agents side with answers of people that they have not seen, on pairs of 100-step segments of D4RL's "
        "Hopper and Walker2d data (one annotator each, published with Preference Transformer), and with a script that "
        "answers the same pairs by their returns:",
        markdown_table(agreement_table(rows)),
        "\n".join(f"- {sentence}" for sentence in human_findings(rows)),
        f"Made by `pbrl bench human-labels` ({versions}); rows in experiments/results/human_labels.csv.",
    ]
    return "\n\n".join(block for block in blocks if block)


def _picture(results: Path, name: str, caption: str) -> str:
    return f"![{caption}](experiments/results/{PREFIX}{name})" if (results / f"{PREFIX}{name}").is_file() else ""


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
    seconds = sum({(row["agent"], row["dataset"]): float(row["seconds"]) for row in study.members}.values())
    return (
        f"Made by `{first['command']}` ({first['versions']}; {seconds / 3600:.1f} hours of one core, "
        f"{first['threads']} thread per stack); a row per member in experiments/results/preferences.csv."
    )
