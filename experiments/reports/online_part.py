"""The README's part on agents that go online, and the study's page, made from its tables; headings included."""

from __future__ import annotations

from pathlib import Path

from ..online_study.settings import AGENTS, TASKS, published_counts
from .blocks import README, bullets, joined, picture, seen_from
from .online_figures import FIGURE
from .online_findings import aims, findings, in_short
from .online_rows import CURVES, MEMBERS, OnlineStudy, read_online
from .online_tables import change_table, either, regret_table, short_table
from .page import markdown_table
from .preference_findings import listed
from .preference_rows import short

PREFIX, PAGE = "offline_to_online_", "offline_to_online.md"
TITLE = "What becomes of agents that go online"
FILES = {MEMBERS: MEMBERS, **{name: f"{PREFIX}{name}" for name in (CURVES, FIGURE)}}
"""What the study's folder holds -> its name among the committed results."""


def online_part(results: Path) -> str:
    """What the README says of the study, from ``offline_to_online.csv`` and the curves beside it.

    Raises:
        InputError: a table is missing or damaged.
    """
    study = read_online(results, PREFIX)
    blocks = [
        f"## {TITLE}",
        _design(study),
        _missing(study),
        markdown_table(short_table(study)),
        aims(study),
        bullets(in_short(study)),
        _picture(results),
        f"Intervals, dips, best scores, and where each agent's updates draw from: [docs/{PAGE}](docs/{PAGE}).",
        _source(study),
    ]
    return joined(blocks)


def online_page(results: Path, folder: Path) -> str:
    """The whole study, for a page in ``folder``.

    Raises:
        InputError: a table is missing or damaged.
    """
    study = read_online(results, PREFIX)
    blocks = [
        f"# {TITLE}",
        _design(study),
        _protocol(study),
        _missing(study),
        "## Regret online",
        markdown_table(regret_table(study)),
        aims(study),
        bullets(findings(study)),
        _picture(results, seen_from(folder, results)),
        "## Before and after",
        markdown_table(change_table(study)),
        "## Where this comes from",
        _source(study),
    ]
    return joined(blocks) + "\n"


def _picture(results: Path, root: str = README) -> str:
    return picture(results, f"{PREFIX}{FIGURE}", "Scores online", root)


def _design(study: OnlineStudy) -> str:
    counts = []
    for dataset in study.datasets:
        rows = study.of(dataset=dataset)
        updates, steps = (sorted({int(row[name]) for row in rows}) for name in ("updates", "env_steps"))
        counts.append(f"{short(dataset)} ({either(updates)} updates, then {either(steps)} steps)")
    return (
        f"{len(study.agents)} agents learn from {listed(counts)}, and the same agent objects go on in the simulator, "
        f"one update per environment step. That is {_share(study, 'updates', 0)} of the updates on data and "
        f"{_share(study, 'env_steps', 1)} of the steps that the agents' authors publish: what a budget for two cores "
        "shows, no comparison of agents at theirs."
    )


def _share(study: OnlineStudy, column: str, place: int) -> str:
    """``0.04 to 1 %``: how much of the published counts, over agents and data sets."""
    shares = [100 * int(row[column]) / published_counts(row["agent"])[place] for row in study.members]
    low, high = (f"{end:.2g}" for end in (min(shares), max(shares)))
    return f"{low} %" if low == high else f"{low} to {high} %"


def _protocol(study: OnlineStudy) -> str:
    replay = [f"{agent} {study.of(agent=agent)[0]['replay']}" for agent in study.agents]
    return (
        f"What updates draw from online is as each agent's authors have it ({', '.join(replay)}): prefill draws from "
        "data and new steps as one, mixed takes a share of each batch from the data, empty leaves the data behind. "
        f"Published are {_published(0)} updates and {_published(1)} steps."
    )


def _published(place: int) -> str:
    counts = [published_counts(agent)[place] for agent in AGENTS]
    return f"{min(counts):,} to {max(counts):,}"


def _missing(study: OnlineStudy) -> str:
    """What of the study is not there, as where it was cut short."""
    parts = []
    for dataset in TASKS:
        left = [agent for agent in sorted(AGENTS) if not study.of(agent=agent, dataset=dataset)]
        parts += [f"{listed(left) if len(left) < len(AGENTS) else 'all agents'} on {short(dataset)}"] if left else []
    return f"**Not computed, so not in the tables: {'; '.join(parts)}.**" if parts else ""


def _source(study: OnlineStudy) -> str:
    first = study.members[0]
    seconds = sum({(row["agent"], row["dataset"]): float(row["seconds"]) for row in study.members}.values())
    return (
        f"Made by `{first['command']}` ({first['versions']}; {seconds / 3600:.1f} hours in all, {first['threads']} "
        f"thread per stack, {first['device']}); a row per member, with the `pbrl train` command of its stack, in "
        f"experiments/results/{MEMBERS}."
    )
