"""What studies of many stacks share: stacks trained side by side, and a folder that is there to write to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pbrl.data.files import replacing

from . import side_by_side


def run(
    function: Callable[..., Any], names: Sequence[str], shared: tuple[Any, ...], tick: Callable[..., None], wanted: int
) -> dict[str, Any]:
    """``side_by_side.run`` with ``wanted`` pieces at a time, or as many as there are cores (0); {} for none."""
    if not names:
        return {}
    processes = min(wanted or side_by_side.cores(), len(names))
    return dict(side_by_side.run(function, names, shared, tick, processes=processes))


def check_writable(folder: Path) -> None:
    """Make a study's folder.

    Raises:
        InputError: nothing can be written there.
    """
    probe = folder / ".writable"
    with replacing(probe) as temporary:
        temporary.touch()
    probe.unlink()
