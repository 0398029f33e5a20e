"""Command lines made from config dataclasses: swept fields take one value or several, help texts are docstrings."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from agents import Algorithm
from pbrl.errors import InputError
from pbrl.members import is_shared

from .options import TrainOptions
from .reading import form, read


@dataclass(frozen=True)
class Request:
    """What a command line asked to train.

    Attributes:
        agent: name of the algorithm.
        options: those that all agents share.
        shared: the agent's fields with one value for the whole stack.
        swept: the agent's other fields, with one or more values each.
        given: names of the fields, the agent's and the options', that were named on the command line.
    """

    agent: str
    options: TrainOptions
    shared: dict[str, Any]
    swept: dict[str, tuple[Any, ...]]
    given: frozenset[str]


def parse(algorithm: Algorithm[Any], arguments: Sequence[str]) -> Request:
    """The request that command line words after ``pbrl train AGENT`` make.

    Raises:
        InputError: an unknown option, several values for a shared field, one value twice, or values of another type or
            out of range.
        SystemExit: 0, after printing help.
    """
    hints = get_type_hints(TrainOptions)
    groups = {item.name: hints[item.name] for item in dataclasses.fields(TrainOptions)}
    configured = {item.name: item for item in dataclasses.fields(algorithm.config)}
    given = words(arguments)
    known = [item.name for group in (*groups.values(), algorithm.config) for item in dataclasses.fields(group)]
    for name, values in given.items():
        if name not in known and name != "help":
            near = difflib.get_close_matches(name, known, 1)
            hint = f" (did you mean {option(near[0])}?)" if near else ""
            expected = f"expected one that pbrl train {algorithm.name} --help shows"
            raise InputError(f"unknown option {option(name)}{hint}, {expected}")
        single = name in configured and is_shared(configured[name]) and not isinstance(configured[name].default, tuple)
        if single and len(values) > 1:
            raise InputError(f"{name} must be the same for all members of a stack, found {len(values)} values")
    forms = {name: form(group) for name, group in groups.items()}
    forms[algorithm.name] = form(algorithm.config, several=lambda field: not is_shared(field))
    whole = dataclasses.make_dataclass(
        "Arguments", [(name, each, field(default_factory=each)) for name, each in forms.items()]
    )
    about = f"{algorithm.doc.strip()}\n\nExample: pbrl train {algorithm.name} {_source(algorithm)}"
    parsed: Any = read(whole, arguments, f"pbrl train {algorithm.name}", about)
    settings = vars(getattr(parsed, algorithm.name))
    shared = {name: value for name, value in settings.items() if is_shared(configured[name])}
    swept = {name: value for name, value in settings.items() if name not in shared}
    for name, values in swept.items():
        if len(set(values)) < len(values):
            twice = next(value for value in values if values.count(value) > 1)
            raise InputError(f"{name} has the value {twice} twice, expected each once: equal members learn the same")
    return Request(
        algorithm.name,
        TrainOptions(**{name: group(**vars(getattr(parsed, name))) for name, group in groups.items()}),
        shared,
        swept,
        frozenset(given),
    )


def _source(algorithm: Algorithm[Any]) -> str:
    """Where the algorithm can learn, as options for an example: from data, in a simulator, or of several objectives."""
    if algorithm.family == "multi_objective":
        return "--env mo-hopper-2obj-v5 --env-steps 200000"
    own_rollouts = hasattr(algorithm.make, "draw") and not hasattr(algorithm.make, "go_online")
    asks = "agent" in _annotated(algorithm.make)  # an ``Asker``: only made ones have what the protocol names
    plays = algorithm.family in ("off_policy", "on_policy") or own_rollouts or asks
    return "--env PointMass-v0 --env-steps 20000" if plays else "--dataset local/reacher/mixed-v1"


def _annotated(made: Any) -> set[str]:
    return {name for part in getattr(made, "__mro__", ()) for name in vars(part).get("__annotations__", {})}


def option(name: str) -> str:
    """``bc_updates`` as it is written on the command line."""
    return "--" + name.replace("_", "-")


def words(arguments: Sequence[str]) -> dict[str, list[str]]:
    """The values that follow each ``--option``, by the option's field name.

    Raises:
        InputError: a word that belongs to no option.
    """
    found: dict[str, list[str]] = {}
    values: list[str] | None = None
    for word in arguments:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            values = found.setdefault(name.replace("-", "_"), [])
            values += [value] if equals else []
        elif word == "-h":
            values = found.setdefault("help", [])
        elif values is None:
            raise InputError(f"unexpected {word!r}, expected options such as --updates 1000")
        else:
            values.append(word)
    return found
