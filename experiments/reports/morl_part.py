"""The README's part on fronts, made from the study's tables; its heading included."""

from __future__ import annotations

from pathlib import Path

from .morl_figures import ARCHIVES, CAPTIONS, DEEP, FLAT, MANY
from .morl_findings import findings
from .morl_rows import FRONTS, GROWTH, MORL, Fronts, read_fronts
from .morl_tables import front_table
from .page import markdown_table

PREFIX = "morl_"
FRONT_FILES = {MORL: MORL, **{name: f"{PREFIX}{name}" for name in (FRONTS, GROWTH, FLAT, DEEP, MANY, ARCHIVES)}}
"""What the study's folder holds -> its name among the committed results."""


def fronts_part(results: Path) -> str:
    """The study, from ``morl.csv`` and the tables beside it.

    Raises:
        InputError: a table is missing or damaged.
    """
    study = read_fronts(results, PREFIX)
    pictures = [
        f"![{CAPTIONS[name]}](experiments/results/{PREFIX}{name})"
        for name in (FLAT, DEEP, MANY, ARCHIVES)
        if (results / f"{PREFIX}{name}").is_file()
    ]
    blocks = [
        "## Fronts of several objectives",
        _design(study),
        markdown_table(front_table(study)),
        "\n".join(f"- {sentence}" for sentence in findings(study)),
        *pictures,
        _source(study),
    ]
    return "\n\n".join(block for block in blocks if block)


def _design(study: Fronts) -> str:
    first = study.rows[0]
    return (
        f"Ways to a set of policies with equally many environment steps. ppo is a sweep: {first['training']} policies "
        "with fixed preference weights spread over the simplex, the last ones of which are the set. c_morl, no "
        "extension keeps an archive of what these were on the way. c_morl ends that after about 60 % of the steps and "
        "extends policies of the archive, one objective at a time, while the others hold their limits: by the log "
        "barrier, or by multipliers (lagrangian). All four share the first stage of equal seeds bit for bit, and in "
        "it the copies of the environment that are played greedily to measure policies for the archive (one in eight; "
        "of the MuJoCo tasks one in three or four): their steps count, for the sweep too, which has no use for them. "
        "The budgets are small, so that the fronts of the MuJoCo tasks are far from what these methods can reach."
    )


def _source(study: Fronts) -> str:
    first = study.rows[0]
    return (
        f"Made by `{first['command']}` ({first['versions']}; {first['threads']} thread per piece); a row per front in "
        f"experiments/results/{MORL}, its points in {PREFIX}{FRONTS}."
    )
