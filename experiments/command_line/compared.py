"""Labels of agents whose own trajectories are compared while they learn (``pbrl.loops.arena``)."""

from __future__ import annotations

from collections.abc import Collection

from pbrl.errors import InputError

from .arguments import option

_UNUSED = {
    **dict.fromkeys(("pairs", "segment_length"), "what is compared are its own new trajectories, of --steps steps"),
    **dict.fromkeys(("held_out", "label_seed"), "there are no stored answers"),
    **dict.fromkeys(("label_users", "label_opposed"), "one teacher compares"),
}


def check_effect(agent: str, given: Collection[str]) -> None:
    """Raise InputError where an option of labels was ``given`` that has no effect on comparisons."""
    for name in sorted(_UNUSED.keys() & set(given)):
        raise InputError(f"{option(name)} has no effect on {agent}: {_UNUSED[name]}, expected it left out")
