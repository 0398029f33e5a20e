"""The README's tables and findings, and the pages of ``docs/`` on studies and theory, made from files.

``python -m experiments.reports.tables`` writes the README anew between its markers: the demo's table from
``experiments/results/demo.csv`` and ``demo_labels.csv``, the list of agents from ``agents/``, and the studies' sections
from their files there. With the folder of a demo, of ``pbrl bench preferences`` (or its search), ``offline``,
``offline-to-online``, ``morl`` or ``human-labels`` (``python -m experiments.reports.tables runs/demo``), or of
``pbrl check``, it takes those results over first.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import agents
from pbrl.data.files import replacing
from pbrl.errors import InputError

from . import human_part, morl_part, offline_part, online_part, preference_part, theory
from .findings import findings
from .human_tables import read_human
from .morl_rows import MORL, read_fronts
from .online_rows import MEMBERS, read_online
from .page import Table, markdown_table
from .preference_rows import read_study
from .rows import read_labels, read_results
from .score_tables import accuracy_table, score_table, words

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "experiments" / "results"


@dataclass(frozen=True)
class Told:
    """Where a study is told of.

    Attributes:
        file: its table among the results.
        part: makes the README's part from the results' folder.
        name: of its page in ``docs/``.
        page: makes that from the results' folder and its own.
    """

    file: str
    part: Callable[[Path], str]
    name: str
    page: Callable[[Path, Path], str]


STUDIES = {
    "preferences": Told(
        "preferences.csv",
        preference_part.preferences_part,
        preference_part.PAGE,
        preference_part.preferences_page,
    ),
    "human_labels": Told(human_part.HUMAN, human_part.human_part, human_part.PAGE, human_part.human_page),
    "offline": Told("offline.csv", offline_part.offline_part, offline_part.PAGE, offline_part.offline_page),
    "offline_to_online": Told(MEMBERS, online_part.online_part, online_part.PAGE, online_part.online_page),
    "morl": Told(MORL, morl_part.fronts_part, morl_part.PAGE, morl_part.fronts_page),
    "checks": Told(theory.CHECKS, theory.checks_part, "theory.md", theory.theory_page),
}
"""By the names of their markers in the README."""


def agents_table() -> Table:
    """The algorithms in ``agents/``, by existing."""
    found = [(one.family, name, one.summary) for name in agents.names() for one in [agents.find(name)]]
    found += [(agents.TABULAR, name, agents.find_tabular(name).summary) for name in agents.tabular_names()]
    found += [(agents.DUELING, name, agents.find_dueling(name).summary) for name in agents.dueling_names()]
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
    parts = {
        "demo": "\n\n".join([markdown_table(score_table(rows)), " ".join(findings(rows)), source]),
        "labels": markdown_table(accuracy_table(judged)),
        "agents": markdown_table(agents_table()),
    }
    return parts | {name: told.part(RESULTS) for name, told in STUDIES.items() if (RESULTS / told.file).is_file()}


def pages() -> dict[Path, str]:
    """The pages of ``docs/`` that are made from results.

    Raises:
        InputError: a result file is damaged.
    """
    folder = ROOT / "docs"
    there = [told for told in STUDIES.values() if (RESULTS / told.file).is_file()]
    return {folder / told.name: told.page(RESULTS, folder) for told in there}


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
    """Copy the tables and figures of a demo or a study to ``experiments/results``.

    Raises:
        InputError: the folder is of neither.
    """
    if (folder / theory.CHECKS).is_file():
        theory.take_checks(folder, RESULTS)
        return
    if (folder / "preferences.csv").is_file():
        read_study(folder)
        files = {name: kept for name, kept in preference_part.STUDY_FILES.items() if (folder / name).is_file()}
    elif (folder / "offline.csv").is_file():
        files = offline_part.kept_files(folder)
    elif (folder / MEMBERS).is_file():
        read_online(folder)
        files = online_part.FILES
    elif (folder / MORL).is_file():
        read_fronts(folder)
        files = {name: kept for name, kept in morl_part.FRONT_FILES.items() if (folder / name).is_file()}
    elif (folder / "search.csv").is_file():
        files = {"search.csv": preference_part.SEARCH}
    elif (folder / human_part.HUMAN).is_file():
        read_human(folder / human_part.HUMAN)
        files = {human_part.HUMAN: human_part.HUMAN}
    else:
        read_results(folder / "results.csv")
        read_labels(folder / "labels.csv")
        files = {"results.csv": "demo.csv", "labels.csv": "demo_labels.csv", "scores.png": "demo.png"}
    for name, kept in files.items():
        with replacing(RESULTS / kept) as temporary:
            shutil.copyfile(folder / name, temporary)


def main() -> None:
    """Write the README's generated parts."""
    if len(sys.argv) > 1:
        take_over(Path(sys.argv[1]))
    for path, text in pages().items():
        path.parent.mkdir(exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    path = ROOT / "README.md"
    with replacing(path) as temporary:
        temporary.write_text(fill(path.read_text(encoding="utf-8"), generated()), encoding="utf-8")


if __name__ == "__main__":
    main()
