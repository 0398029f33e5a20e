"""The README's part on fronts, and the study's page, made from its tables; headings included."""

from __future__ import annotations

from pathlib import Path

from .blocks import README, bullets, folded, joined, picture, seen_from
from .morl_figures import ARCHIVES, CAPTIONS, DEEP, FLAT, MANY
from .morl_findings import LAGRANGIAN, findings, in_short
from .morl_rows import FRONTS, GROWTH, MORL, Fronts, read_fronts
from .morl_tables import quality_table, task_table, volume_table
from .page import markdown_table
from .preference_findings import listed

PREFIX, PAGE, TITLE = "morl_", "multi_objective.md", "Fronts of several objectives"
FRONT_FILES = {MORL: MORL, **{name: f"{PREFIX}{name}" for name in (FRONTS, GROWTH, FLAT, DEEP, MANY, ARCHIVES)}}
"""What the study's folder holds -> its name among the committed results."""


PUBLISHED = {"mo-hopper-v5": 2_000_000, "mo-hopper-2obj-v5": 1_500_000, "FruitTree6-v0": 500_000}
"""Steps that C-MORL's own scripts ask for (``scripts/*.py`` at commit 67473b5), of each of ``COPIES`` environments."""
COPIES = 8


def fronts_part(results: Path) -> str:
    """What the README says of the study, from ``morl.csv`` and the tables beside it.

    Raises:
        InputError: a table is missing or damaged.
    """
    study = read_fronts(results, PREFIX)
    flat, *others = _pictures(results)
    blocks = [
        f"## {TITLE}",
        _ways(study),
        _budget(study),
        markdown_table(volume_table(study, [agent for agent in study.agents if agent != LAGRANGIAN])),
        bullets(in_short(study)),
        flat,
        folded("More objectives, and the archives in training", others),
        f"The Lagrangian's figures, expected utility, sparsity, numbers of points: [docs/{PAGE}](docs/{PAGE}).",
        _source(study),
    ]
    return joined(blocks)


def fronts_page(results: Path, folder: Path) -> str:
    """The whole study, for a page in ``folder``.

    Raises:
        InputError: a table is missing or damaged.
    """
    study = read_fronts(results, PREFIX)
    blocks = [
        f"# {TITLE}",
        _design(study),
        _budget(study),
        "## Hypervolume",
        markdown_table(volume_table(study, study.agents)),
        bullets(findings(study)),
        *_pictures(results, seen_from(folder, results)),
        "## Utility, sparsity and size",
        markdown_table(quality_table(study)),
        "## Where this comes from",
        markdown_table(task_table(study)),
        _source(study),
    ]
    return joined(blocks) + "\n"


def _pictures(results: Path, root: str = README) -> list[str]:
    return [picture(results, f"{PREFIX}{name}", CAPTIONS[name], root) for name in (FLAT, DEEP, MANY, ARCHIVES)]


def _ways(study: Fronts) -> str:
    """What is compared, in few words."""
    return (
        "Four ways to a set of policies for all weights of the objectives, with equally many environment steps. ppo: "
        f"{study.rows[0]['training']} policies with fixed weights, a sweep; the last ones are the set. c_morl, no "
        "extension: an archive of what these were on the way. c_morl: after about 60 % of the steps policies of the "
        "archive are extended, one objective at a time, while a log barrier (lagrangian: multipliers) holds the "
        "others. Steps that measure policies for the archive count for all, though the sweep has no use for them."
    )


def _design(study: Fronts) -> str:
    first = study.rows[0]
    return (
        f"Ways to a set of policies with equally many environment steps. ppo is a sweep: {first['training']} policies "
        "with fixed preference weights spread over the simplex, the last ones of which are the set. c_morl, no "
        "extension keeps an archive of what these were on the way. c_morl ends that after about 60 % of the steps and "
        "extends policies of the archive, one objective at a time, while the others hold their limits: by the log "
        "barrier, or by multipliers (lagrangian). All four share the first stage of equal seeds bit for bit, and in "
        "it the copies of the environment that are played greedily to measure policies for the archive (one in eight; "
        "of the MuJoCo tasks one in three or four): their steps count, for the sweep too, which has no use for them."
    )


def _budget(study: Fronts) -> str:
    """How small the budgets are."""
    shares = [
        f"{100 * int(study.of(env=env)[0]['env_steps']) / (COPIES * steps):.1f} % on {env}"
        for env, steps in PUBLISHED.items()
        if study.of(env=env)
    ]
    steps = [int(row["env_steps"]) for row in study.rows]
    told = (
        f"The budgets are small ({min(steps):,} to {max(steps):,} steps for a front), so that the fronts of the MuJoCo "
        "tasks are far from what these methods can reach"
    )
    return f"{told}: of the steps that C-MORL's own scripts take, {listed(shares)}." if shares else f"{told}."


def _source(study: Fronts) -> str:
    first = study.rows[0]
    return (
        f"Made by `{first['command']}` ({first['versions']}; {first['threads']} thread per piece); a row per front in "
        f"experiments/results/{MORL}, its points in {PREFIX}{FRONTS}."
    )
