"""The options of ``pbrl bench offline-to-online``. Their docstrings are the command line's help."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pbrl.errors import InputError

from ..command_line.options import Flag
from .settings import AGENTS, FULL, PAPER, QUICK, QUICK_TASKS, TASKS, Scale, Task

_COMMAND = "bench offline-to-online"


@dataclass(frozen=True)
class OnlineStudyOptions:
    """Trains agents on data and goes on with them online; continues where an earlier call was stopped."""

    out: Path | None = None
    """Folder for what is computed; by default runs/offline-to-online, or that with -quick or -paper."""
    quick: Flag = False
    """A minute or two: one task, few updates and steps."""
    budget: Literal["small", "paper"] = "small"
    """small: sizes for two cores; paper: the published ones, for those with a GPU or days of time."""
    tasks: tuple[str, ...] = ()
    """Data sets; by default all of the study's (with --quick: the point mass alone)."""
    agents: tuple[str, ...] = ()
    """Agents; by default all of the study's."""
    behaviour: Path | None = None
    """Folder with the folders hopper and halfcheetah of finished behaviour runs, from which missing data are made."""
    processes: int = 0
    """Stacks that are trained at the same time, on a core each; 0: as many as there are cores. Scores are the same."""

    def __post_init__(self) -> None:
        if self.quick and self.budget == "paper":
            raise InputError(f"{_COMMAND}: --quick and --budget paper are both given, expected one of them")
        for name, known in (("tasks", TASKS), ("agents", AGENTS)):
            for given in getattr(self, name):
                if given not in known:
                    raise InputError(f"{_COMMAND}: unknown {name} {given!r}, expected of {', '.join(known)}")
                if getattr(self, name).count(given) > 1:
                    raise InputError(f"{_COMMAND}: {name} names {given} twice, expected different ones")
        if self.processes < 0:
            raise InputError(f"{_COMMAND}: processes is {self.processes}, expected at least 0")

    @property
    def scale(self) -> Scale:
        """How much is computed."""
        return QUICK if self.quick else PAPER if self.budget == "paper" else FULL

    @property
    def folder(self) -> Path:
        """Where it is kept."""
        name = "offline-to-online" + ("-quick" if self.quick else "-paper" if self.budget == "paper" else "")
        return self.out or Path("runs") / name

    @property
    def chosen_tasks(self) -> tuple[Task, ...]:
        """The tasks."""
        default: Sequence[str] = QUICK_TASKS if self.quick else tuple(TASKS)
        return tuple(TASKS[name] for name in self.tasks or default)

    @property
    def chosen_agents(self) -> tuple[str, ...]:
        """The agents, the longest first."""
        return tuple(name for name in AGENTS if not self.agents or name in self.agents)

    @property
    def command(self) -> str:
        """The command line that does the same."""
        found = [f"pbrl {_COMMAND}"]
        found += ["--quick"] if self.quick else ["--budget paper"] if self.budget == "paper" else []
        for name in ("tasks", "agents"):
            found += [f"--{name} {' '.join(getattr(self, name))}"] if getattr(self, name) else []
        return " ".join(found)
