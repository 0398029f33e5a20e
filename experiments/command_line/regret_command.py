"""``pbrl regret STUDY``: regret curves with bands, for any tabular agents on a named problem."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table

import agents
from pbrl.data.files import unwritable
from pbrl.errors import InputError
from pbrl.theory.figures import regret_figure
from pbrl.theory.hardness import hardness

from ..regret import curves, studies
from .online_options import MOST
from .reading import read

HELP = """usage: pbrl regret STUDY [options]

Plays tabular agents in a finite MDP, every seed a member of one stack, and draws their regret. Values are exact.

studies:
{studies}

agents:
{agents}

example:
  pbrl regret safe --agents ucbvi step_mix eps_mix --seeds 32 --episodes 1000000
  pbrl regret STUDY --help tells the options
"""


@dataclass(frozen=True)
class RegretOptions:
    """Options of ``pbrl regret``."""

    agents: tuple[str, ...] = ("ucbvi", "step_mix", "eps_mix")
    """Tabular agents."""
    seeds: int = 20
    """How many seeds, from 0 on."""
    episodes: int = 1_000_000
    """Episodes of each seed."""
    growth: float = 0.05
    """Plan anew when the episodes have grown by this share; 0 plans for every episode."""
    delta: float = 0.1
    """Probability that a confidence bound fails."""
    width: tuple[float, ...] = (1.0,)
    """Factors on the confidence widths: 1 is what the proofs need."""
    baseline: Annotated[str, tyro.conf.arg(metavar="{given,cloned,pessimistic}")] = "given"
    """The safe policy: given, or learned from the offline episodes."""
    offline: int = 0
    """Episodes that the baseline has played before, shown to the agents."""
    sharpness: float = 5.0
    """Of the baseline, the policy proportional to exp(sharpness Q*)."""
    share: float = 0.9
    """The threshold, as a share of the baseline's value."""
    epsilon: float = 0.5
    """Learners from preferences ask where random rewards are expected to disagree by more, in units of the return."""
    instance: int = 2
    """Seed of the instance."""
    out: Path = Path("runs")
    """Folder of all runs: regret.csv and regret.png go to regret/<time>-STUDY in it."""

    def __post_init__(self) -> None:
        if twice := [name for name in self.agents if self.agents.count(name) > 1]:
            raise InputError(f"agents names {twice[0]} twice, expected different ones")
        for name, low in (
            ("seeds", 1),
            ("episodes", 10),
            ("offline", 0),
            ("instance", 0),
            ("growth", 0.0),
            ("sharpness", 0.0),
            ("epsilon", 0.0),
        ):
            if not low <= getattr(self, name) < math.inf:
                raise InputError(f"{name} is {getattr(self, name)}, expected at least {low:g}")
        for name in ("seeds", "episodes", "offline"):
            if getattr(self, name) > MOST:
                raise InputError(f"{name} is {getattr(self, name)}, expected at most {MOST}")
        if not 0.0 <= self.share <= 1.0:
            raise InputError(f"share is {self.share:g}, expected 0 to 1: no baseline keeps a threshold above its value")
        if self.baseline not in ("given", "cloned", "pessimistic"):
            raise InputError(f"baseline is {self.baseline!r}, expected given, cloned or pessimistic")
        if self.baseline != "given" and not self.offline:
            raise InputError(f"a {self.baseline} baseline is learned from offline episodes, expected also --offline N")
        if not self.agents or not self.width:
            raise InputError("pbrl regret has no agents or no width, expected at least one of each")


def regret(arguments: Sequence[str]) -> int:
    """Run the command; the exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        shown = (f"  {name:<14}{what}" for name, (what, _) in studies.INSTANCES.items())
        known = [f"  {name:<14}{agents.find_tabular(name).summary}" for name in agents.tabular_names()]
        known += [f"  {name:<14}{agents.find_dueling(name).summary}" for name in agents.dueling_names()]
        print(HELP.format(studies="\n".join(shown), agents="\n".join(known)), end="")
        return 0
    if arguments[0].startswith("-"):
        raise InputError(f"pbrl regret begins with {arguments[0]!r}, expected a study: {', '.join(studies.INSTANCES)}")
    filled = read(RegretOptions, arguments[1:], f"pbrl regret {arguments[0]}")
    return _run(arguments[0], filled)


def _run(name: str, options: RegretOptions) -> int:
    study = studies.make(
        name,
        episodes=options.episodes,
        seed=options.instance,
        sharpness=options.sharpness,
        share=options.share,
        offline=options.offline,
    )
    for agent in set(options.agents) - set(agents.dueling_names()):
        agents.find_tabular(agent)
    out, screen, seeds = Console(width=None if sys.stdout.isatty() else 140), Console(stderr=True), range(options.seeds)
    hard = hardness(study.mdp)
    out.print(
        f"{study.mdp.name}: V* {study.optimum:.4g}, baseline {study.baseline:.4g}, threshold {study.threshold:.4g}; "
        f"minimal gap {hard.minimal_gap:.3g}, value norm {hard.value_norm:.3g}, range {hard.value_range:.3g}",
        highlight=False,
        soft_wrap=True,
    )
    found: list[curves.Curve] = []
    planned = [(each, width) for each in options.agents for width in _widths(each, options)]
    folder = _folder(options.out, name)
    try:
        for agent, width in planned:
            settings: dict[str, Any] = {"delta": options.delta, "width": width, "baseline": options.baseline}
            settings["epsilon"] = options.epsilon
            curve = curves.run(agent, study, seeds, options.episodes, options.growth, settings)
            label = agent if width == 1.0 else f"{agent} width {width:g}"
            found.append(curves.Curve(label, curve.trace, curve.seconds))
            many = f"{options.seeds} seed{'s' * (options.seeds > 1)}"
            screen.print(f"{label}: {many} in {curve.seconds:.1f} s", highlight=False)
            _keep(found, study, seeds, folder)
    except KeyboardInterrupt:
        if not found:
            raise
        _show(out, found, study, folder)
        kept = f"the first {len(found)} of {len(planned)} learners are kept, in {folder}"
        raise KeyboardInterrupt(kept) from None
    finally:
        if not found:
            folder.rmdir()
    _show(out, found, study, folder)
    return 0


def _widths(agent: str, options: RegretOptions) -> tuple[float, ...]:
    """Learners from preferences have no confidence widths."""
    return options.width if agent not in agents.dueling_names() else (1.0,)


def _keep(found: Sequence[curves.Curve], study: studies.Study, seeds: Sequence[int], folder: Path) -> None:
    """Write what there is so far: the rest may take hours, and never come."""
    curves.write(found, study, seeds, folder / "regret.csv")
    title = f"{study.mdp.name}: regret of {len(seeds)} seed{'s' * (len(seeds) > 1)}"
    regret_figure({c.name: c.trace for c in found}, folder / "regret.png", title=title, threshold=study.threshold)


def _show(out: Console, found: Sequence[curves.Curve], study: studies.Study, folder: Path) -> None:
    table = Table(box=None, pad_edge=False)
    for column in curves.HEADER:
        table.add_column(column)
    for curve in found:
        table.add_row(*curves.row(curve, study))
    out.print(table)
    out.print(f"-> {folder}", highlight=False, soft_wrap=True)


def _folder(out: Path, name: str) -> Path:
    folder = out / "regret" / f"{datetime.now().strftime('%Y%m%d-%H%M%S')}-{name}"
    with unwritable(folder):
        number = 1
        while folder.exists():
            number += 1
            folder = folder.with_name(f"{folder.name.split('+')[0]}+{number}")
        folder.mkdir(parents=True)
    return folder
