"""The README's part on agents that go online, made from the study's tables; headings included."""

from __future__ import annotations

from pathlib import Path

from ..online_study.settings import AGENTS, TASKS, published_counts
from .online_figures import FIGURE
from .online_findings import findings
from .online_rows import CURVES, MEMBERS, OnlineStudy, read_online
from .online_tables import change_table, either, regret_table
from .page import markdown_table
from .preference_findings import listed
from .preference_rows import short

PREFIX = "offline_to_online_"
FILES = {MEMBERS: MEMBERS, **{name: f"{PREFIX}{name}" for name in (CURVES, FIGURE)}}
"""What the study's folder holds -> its name among the committed results."""


def online_part(results: Path) -> str:
    """The study, from ``offline_to_online.csv`` and the curves beside it.

    Raises:
        InputError: a table is missing or damaged.
    """
    study = read_online(results, PREFIX)
    picture = f"![Scores online](experiments/results/{PREFIX}{FIGURE})" * (results / f"{PREFIX}{FIGURE}").is_file()
    blocks = [
        "## What becomes of agents that go online",
        _design(study),
        _missing(study),
        markdown_table(change_table(study)),
        "\n".join(f"- {sentence}" for sentence in findings(study)),
        markdown_table(regret_table(study)),
        picture,
        _source(study),
    ]
    return "\n\n".join(block for block in blocks if block)


def _design(study: OnlineStudy) -> str:
    counts = []
    for dataset in study.datasets:
        rows = study.of(dataset=dataset)
        updates, steps = (sorted({int(row[name]) for row in rows}) for name in ("updates", "env_steps"))
        counts.append(f"{short(dataset)} ({either(updates)} updates, then {either(steps)} steps)")
    published = [count for agent in AGENTS for count in published_counts(agent)]
    protocol = [f"{agent} {study.of(agent=agent)[0]['replay']}" for agent in study.agents]
    return (
        f"{len(study.agents)} agents learn from {listed(counts)}, and the same agent objects go on in the simulator, "
        "one update per environment step. What updates draw from online is as each agent's authors have it "
        f"({', '.join(protocol)}): prefill draws from data and new steps as one, mixed takes a share of each batch "
        "from the data, empty leaves the data behind. Published counts are "
        f"{min(published):,} to {max(published):,}: this is what a budget for two cores shows, no comparison of agents "
        "at theirs."
    )


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
