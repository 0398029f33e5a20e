"""Data sets that a study needs: there already, or made on the way where that takes minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from pbrl import data
from pbrl.errors import InputError

from .make import make_data


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


def find_data(task: Needed, behaviour: Path | None) -> None:
    """Make a task's data set, unless there is one.

    Raises:
        InputError: it would take hours, as there is no finished behaviour run to make it from.
    """
    if task.dataset in data.names():
        return
    if task.folder and behaviour is None:
        command = f"pbrl data make {task.env} --tier {task.tier} --steps {task.steps}"
        raise InputError(
            f"data set {task.dataset} is missing, expected it made before ({command}: hours), --behaviour with a folder"
            " of finished runs (minutes), or other --tasks"
        )
    folder = behaviour / task.folder if behaviour is not None and task.folder else None
    make_data(task.env, task.tier, task.steps, 0, data.directory(), folder=folder, progress=False)
