"""``pbrl demo``, ``pbrl report`` and ``pbrl bench``: words to the options of the module that does the work."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import tyro

from pbrl.errors import InputError

from .reading import form, read


@dataclass(frozen=True)
class ReportOptions:
    """Makes one self-contained HTML page of tables and figures, and the same as Markdown."""

    runs: Annotated[
        tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN ...]", help_behavior_hint="")
    ]
    """Folders of one or more runs."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """The page; the Markdown is put beside it. By default report.html in the folder that all runs have in common."""


def demo(arguments: Sequence[str]) -> int:
    """Run the command; the exit code."""
    from ..demo.study import run

    about = "Compares preference learners on data that ships: trains them, plays, and writes tables and a report."
    run(_options(run, arguments, "pbrl demo", about))
    return 0


def report(arguments: Sequence[str]) -> int:
    """Run the command; the exit code."""
    options = read(ReportOptions, arguments, "pbrl report")
    if not options.runs:
        raise InputError("report has no runs, expected folders such as runs/train/20260101-120000-cpl-regret")
    from ..reports.report import write

    write(options.runs, options.out)
    return 0


BENCHES = {
    "speed": ("bench_speed:speed", "member-updates per second of each agent and P"),
    "ucbvi": ("bench_ucbvi:ucbvi", "episodes of a tabular agent that plans before each, beside rlberry-scool's"),
    "rewards": ("bench_rewards:rewards", "updates on given segment pairs, beside a loop over torch modules"),
    "online": ("bench_online:online", "environment steps per second of SAC online, beside stable-baselines3's"),
    "simulators": ("bench_online:simulators", "steps per second of copies of a simulator, beside Gymnasium's"),
    "preferences": (
        "preference_study.study:preferences",
        "which preference method to pick: the same labels and seeds for all",
    ),
    "offline-to-online": (
        "online_study.study:offline_to_online",
        "what becomes of agents that were trained on data when they go online: dip, gain, regret",
    ),
    "offline": ("offline_study.study:offline", "offline agents on the same data, with the same budget for all"),
    "morl": ("morl_study.study:morl", "fronts of C-MORL beside a sweep of fixed weights, at the same number of steps"),
    "morl-speed": ("bench_morl_speed:speed", "environment steps of C-MORL beside a loop of single PPOs"),
    "label": ("bench_label:label", "page turns of the labelling page with several people, and memory"),
    "human-labels": ("human_labels.study:human_labels", "agreement with held-out answers of people"),
}
BENCH_HELP = """usage: pbrl bench COMMAND ...

commands:
{commands}

pbrl bench COMMAND --help tells more.
"""


def bench(arguments: Sequence[str]) -> int:
    """Run the command; the exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        listed = (f"  {name:<19}{summary}" for name, (_, summary) in BENCHES.items())
        print(BENCH_HELP.format(commands="\n".join(listed)), end="")
        return 0
    if arguments[0] not in BENCHES:
        raise InputError(f"unknown command 'bench {arguments[0]}', expected: {', '.join(BENCHES)}")
    module, _, name = BENCHES[arguments[0]][0].partition(":")
    function = getattr(importlib.import_module(f"experiments.{module}"), name)
    function(_options(function, arguments[1:], f"pbrl bench {arguments[0]}"))
    return 0


def _options(function: Callable[..., Any], arguments: Sequence[str], program: str, about: str | None = None) -> Any:
    """The options, of the type that the function's first argument has, that command line words make."""
    kind: Any = next(iter(get_type_hints(function).values()))
    filled = read(form(kind), arguments, program, about)
    return kind(**vars(filled))  # checks itself here: tyro would name the class in front of what it says
