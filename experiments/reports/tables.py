"""The README's tables and findings, made from files.

``python -m experiments.reports.tables`` writes the README anew between its markers: the demo's table from
``experiments/results/demo.csv`` and ``demo_labels.csv``, and the list of agents from ``agents/``. With the folder of a
demo (``python -m experiments.reports.tables runs/demo``) it takes that demo's results over first.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import agents
from pbrl.data.files import replacing
from pbrl.errors import InputError

from .findings import findings
from .page import Table, markdown_table
from .rows import read_labels, read_results
from .score_tables import accuracy_table, score_table, words

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "experiments" / "results"


def agents_table() -> Table:
    """The algorithms in ``agents/``, by existing."""
    found = [(one.family, name, one.summary) for name in agents.names() for one in [agents.find(name)]]
    found += [(agents.TABULAR, name, agents.find_tabular(name).summary) for name in agents.tabular_names()]
    return Table(
        header=("name", "family", "what it is"),
        rows=tuple((name, words(family), summary) for family, name, summary in sorted(found)),
        words=3,
    )


def generated() -> dict[str, str]:
    """The README's generated parts, by the names of their markers.

    Raises:
        InputError: the result files are missing or damaged.
    """
    rows, judged = read_results(RESULTS / "demo.csv"), read_labels(RESULTS / "demo_labels.csv")
    first = rows[0]
    source = (
        f"Made by `{first['command']}` on {first['cores']} cores ({float(first['total_seconds']):.0f} seconds, "
        f"torch {first['torch']}, MuJoCo {first['mujoco']}); rows in experiments/results/demo.csv."
    )
    return {
        "demo": "\n\n".join([markdown_table(score_table(rows)), " ".join(findings(rows)), source]),
        "labels": markdown_table(accuracy_table(judged)),
        "agents": markdown_table(agents_table()),
    }


def fill(text: str, parts: Mapping[str, str]) -> str:
    """``text`` with every part put between ``<!-- begin NAME -->`` and ``<!-- end NAME -->``.

    Raises:
        InputError: a pair of markers is missing.
    """
    for name, part in parts.items():
        pattern = re.compile(rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)
        if not pattern.search(text):
            raise InputError(f"README.md: markers '<!-- begin {name} -->' and '<!-- end {name} -->' are missing")
        text = pattern.sub(lambda match, part=part: f"{match[1]}\n{part}\n\n{match[2]}", text)  # type: ignore[misc]
    return text


def take_over(folder: Path) -> None:
    """Copy a demo's tables and its figure to ``experiments/results``.

    Raises:
        InputError: not the folder of a demo.
    """
    read_results(folder / "results.csv")
    read_labels(folder / "labels.csv")
    for name, kept in (("results.csv", "demo.csv"), ("labels.csv", "demo_labels.csv"), ("scores.png", "demo.png")):
        with replacing(RESULTS / kept) as temporary:
            shutil.copyfile(folder / name, temporary)


def main() -> None:
    """Write the README's generated parts."""
    if len(sys.argv) > 1:
        take_over(Path(sys.argv[1]))
    path = ROOT / "README.md"
    with replacing(path) as temporary:
        temporary.write_text(fill(path.read_text(encoding="utf-8"), generated()), encoding="utf-8")


if __name__ == "__main__":
    main()
