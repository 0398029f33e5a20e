"""Data sets that a study needs: there already, or made on the way where that takes minutes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from pbrl import data
from pbrl.errors import InputError

from .make import default_behaviour_steps, has_learned, make_data

STEPS_PER_HOUR = 450_000
"""Of SAC in Hopper-v5 on two cores without a GPU, as measured: 125 per second."""


class Needed(Protocol):
    """A data set, and how it is made."""

    @property
    def dataset(self) -> str:
        """Its name."""
        ...

    @property
    def env(self) -> str:
        """Gymnasium id, or the point mass."""
        ...

    @property
    def tier(self) -> str:
        """Of skill, see ``make``."""
        ...

    @property
    def steps(self) -> int:
        """Transitions asked for."""
        ...

    @property
    def folder(self) -> str:
        """Of a finished behaviour run, inside the folder that is given; "": none is needed."""
        ...


def find_data(tasks: Sequence[Needed], behaviour: Path | None) -> None:
    """Make the tasks' data sets that are not there.

    Raises:
        InputError: some would take hours, as there is no finished behaviour run to make them from; before any is made.
    """
    there = set(data.names())
    missing = [task for task in tasks if task.dataset not in there]
    long = [task for task in missing if task.folder and behaviour is None and not _learned(task)]
    if long:
        raise InputError(_long(long))
    for task in missing:
        folder = behaviour / task.folder if behaviour is not None and task.folder else None
        make_data(task.env, task.tier, task.steps, 0, data.directory(), folder=folder, progress=False)


def _learned(task: Needed) -> bool:
    return has_learned(task.env, data.directory())


def _long(tasks: Sequence[Needed]) -> str:
    """What is missing, and the command for each simulator that makes it, with its time."""
    first = {task.env: task for task in reversed(tasks)}
    commands = [
        f"pbrl data make {task.env} --tier {task.tier} --steps {task.steps} (about "
        f"{default_behaviour_steps(task.env) / STEPS_PER_HOUR:.0f} hours on two cores)"
        for task in reversed(first.values())
    ]
    names = ", ".join(task.dataset for task in tasks)
    return (
        f"{'data set' if len(tasks) == 1 else 'data sets'} {names} {'is' if len(tasks) == 1 else 'are'} missing, "
        f"expected a behaviour run in {', '.join(first)} before: {', then '.join(commands)}, after which this command "
        "makes what else it needs in minutes; or --behaviour with a folder of finished runs (minutes); or other --tasks"
    )
