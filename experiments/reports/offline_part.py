"""The README's part on the offline study, and the study's page, made from its tables; headings included."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from ..offline_study.settings import AGENTS, SMALL_CHANGES, TASKS
from .blocks import README, bullets, joined, picture, seen_from
from .offline_figures import CURVES
from .offline_findings import findings, in_short
from .offline_rows import PUBLISHED, Offline, read_offline, read_published, short
from .offline_tables import best_table, last_table, published_table
from .page import markdown_table, narrow
from .preference_findings import listed

PREFIX, PAGE = "offline_", "offline.md"
TITLE = "What offline agents make of the same data"
MOST = 1_000_000
"""Published updates of most agents."""


def kept_files(folder: Path) -> dict[str, str]:
    """What a study's folder holds -> its name among the committed results, which tells data and budget."""
    ending = ending_of(read_offline(folder))
    files = {"offline.csv": f"offline{ending}.csv"}
    return files | {name: f"{PREFIX}{CURVES}{ending}.{name[-3:]}" for name in (f"{CURVES}.csv", f"{CURVES}.png")}


def ending_of(found: Offline) -> str:
    """``_d4rl`` for D4RL's data, ``_paper`` for the published budget."""
    first = found.members[0]
    return ("_d4rl" if first["source"] == "D4RL" else "") + ("_paper" if first["budget"] == "paper" else "")


LABELS = {
    "": "",
    "_paper": ": the published budget",
    "_d4rl": ": D4RL's data",
    "_d4rl_paper": ": D4RL's data, the published budget",
}
"""Endings of the files -> what headings add."""


def offline_part(results: Path) -> str:
    """What the README says of the study, from ``offline.csv`` and the like with other endings, and their curves.

    Raises:
        InputError: a table is missing or damaged.
    """
    blocks = [f"## {TITLE}"]
    for found, ending in _studies(results):
        blocks += [
            _design(found),
            _missing(found),
            markdown_table(narrow(last_table(found, 0))),
            bullets(in_short(found)),
        ]
        blocks += [_picture(results, ending)]
    blocks += [f"Best scores, all settings, and what others have published: [docs/{PAGE}](docs/{PAGE})."]
    blocks += [_source(found, ending) for found, ending in _studies(results)]
    return joined(blocks)


def offline_page(results: Path, folder: Path) -> str:
    """The whole study, for a page in ``folder``.

    Raises:
        InputError: a table is missing or damaged.
    """
    blocks = [f"# {TITLE}"]
    for found, ending in _studies(results):
        blocks += [_design(found), _missing(found), f"## After the last update{LABELS[ending]}"]
        blocks += [markdown_table(last_table(found)), bullets(findings(found))]
        blocks += [_picture(results, ending, seen_from(folder, results))]
        blocks += [f"## At the best evaluation{LABELS[ending]}", markdown_table(best_table(found))]
        blocks += [f"## Where this comes from{LABELS[ending]}", _settings(found)]
        blocks += [SMALL_CHANGES if found.members[0]["budget"] == "small" else "", _source(found, ending)]
    if (results / PUBLISHED).is_file():
        rows = read_published(results / PUBLISHED)
        blocks += ["## What others have published", "For context only, about D4RL's data sets of the same names:"]
        blocks += [markdown_table(published_table(rows))]
    return joined(blocks) + "\n"


def _studies(results: Path) -> Iterator[tuple[Offline, str]]:
    """What there is among the results, with the endings of its files."""
    for ending in LABELS:
        if (results / f"offline{ending}.csv").is_file():
            yield read_offline(results, PREFIX, ending), ending


def _picture(results: Path, ending: str, root: str = README) -> str:
    return picture(results, f"{PREFIX}{CURVES}{ending}.png", "Scores in training", root)


def _source(found: Offline, ending: str) -> str:
    first = found.members[0]
    seconds = sum({(row["agent"], row["dataset"]): float(row["seconds"]) for row in found.members}.values())
    return (
        f"Made by `{first['command']}` ({first['versions']}; {seconds / 3600:.1f} hours by the clock, summed over "
        f"stacks, {first['device']}); a row per member in experiments/results/offline{ending}.csv."
    )


def _design(found: Offline) -> str:
    first = found.members[0]
    where = sorted({row["env"] for row in found.members})
    kind = (
        f"D4RL's own files, played in Gymnasium's {listed(where)}"
        if first["source"] == "D4RL"
        else f"data that `pbrl data make` made, played in {listed(where)}"
    )
    updates = sorted({int(row["updates"]) for row in found.members})
    widths = sorted({row["widths"].replace(" ", "x") for row in found.members})
    batches = sorted({int(row["batch"]) for row in found.members})
    small = (
        f" Published are {MOST:,} or more: the tables compare the agents at {100 * max(updates) / MOST:.2g} % of that, "
        "on data of one behaviour run per simulator, and say nothing about their order at a large budget."
        if first["budget"] == "small"
        else ""
    )
    return (
        f"{len(found.agents)} agents on {len(found.datasets)} data set{'s' * (len(found.datasets) > 1)} ({kind}; "
        f"{listed([f'{int(n):,}' for n in dict.fromkeys(row['transitions'] for row in found.members)])} transitions), "
        f"{len({row['seed'] for row in found.members})} seeds in one stack: {_or(updates)} updates of {_or(batches)} "
        f"transitions, hidden layers {' or '.join(widths)}.{small}"
    )


def _missing(found: Offline) -> str:
    """What of the whole study was not trained; "" for D4RL's files or the published budget, meant to be parts."""
    if ending_of(found):
        return ""
    parts = []
    for agent in sorted(AGENTS):
        lost = [short(name) for name in TASKS if not found.of(agent=agent, dataset=name)]
        if lost:
            parts.append(f"{agent} on {'all data sets' if len(lost) == len(TASKS) else listed(lost)}")
    return f"**Not trained in the time there was, and missing below: {'; '.join(parts)}.**" if parts else ""


def _or(counts: list[int]) -> str:
    return " or ".join(f"{count:,}" for count in counts)


def _settings(found: Offline) -> str:
    """The settings that differ from the agents' defaults: those of all tasks, then of single ones."""
    parts = []
    for agent in found.agents:
        rows = {name: found.of(agent=agent, dataset=name) for name in found.datasets}
        by_task = {name: dict(json.loads(mine[0]["settings"])) for name, mine in rows.items() if mine}
        common = {
            key: value
            for key, value in next(iter(by_task.values())).items()
            if all(key in one and one[key] == value for one in by_task.values())
        }
        told = [_words(common)] if common else []
        for name, one in by_task.items():
            if own := {key: value for key, value in one.items() if key not in common}:
                told.append(f"on {short(name)} {_words(own)}")
        parts.append(f"{agent} {'; '.join(told) or 'none'}")
    return (
        "Settings other than the agents' defaults, fixed before the study's seeds were run: " + ". ".join(parts) + "."
    )


def _words(settings: dict[str, object]) -> str:
    return ", ".join(f"{name} {_value(value)}" for name, value in settings.items())


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, int | float) else json.dumps(value)
