"""Command lines made from config dataclasses: swept fields take one value or several, help texts are docstrings."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import inspect
import textwrap
import types
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, get_type_hints

import tyro

from agents import Algorithm
from pbrl.errors import InputError
from pbrl.members import is_shared

from .options import TrainOptions

CONFIG = (tyro.conf.OmitArgPrefixes, tyro.conf.FlagConversionOff)


@dataclass(frozen=True)
class Request:
    """What a command line asked to train.

    Attributes:
        agent: name of the algorithm.
        options: those that all agents share.
        shared: the agent's fields with one value for the whole stack.
        swept: the agent's other fields, with one or more values each.
        given: names of the agent's fields that were named on the command line.
    """

    agent: str
    options: TrainOptions
    shared: dict[str, Any]
    swept: dict[str, tuple[Any, ...]]
    given: frozenset[str]


def docs(config: type[Any]) -> dict[str, str]:
    """The literal docstring under each field of a dataclass, those of its parents included."""
    found: dict[str, str] = {}
    for cls in reversed(config.__mro__[:-1]):
        body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
        assert isinstance(body, ast.ClassDef)
        for statement, after in zip(body.body, body.body[1:]):
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                text = ast.literal_eval(after.value) if isinstance(after, ast.Expr) else ""
                found[statement.target.id] = " ".join(str(text).split())
    return found


def settings(algorithm: Algorithm) -> type[Any]:
    """A dataclass with the fields of an algorithm's config, in which each swept field holds a tuple of values."""
    help_texts, hints = docs(algorithm.config), get_type_hints(algorithm.config)
    columns: list[Any] = []
    for item in sorted(dataclasses.fields(algorithm.config), key=is_shared):
        swept = not is_shared(item)
        kind: Any = types.GenericAlias(tuple, (hints[item.name], ...)) if swept else hints[item.name]
        text = help_texts[item.name] + (" One value or several." if swept else "")
        default = (item.default,) if swept else item.default
        columns.append((item.name, Annotated[kind, tyro.conf.arg(help=text)], field(default=default)))
    name = "Settings"
    return dataclasses.make_dataclass(
        name, columns, frozen=True, namespace={"__doc__": f"Settings of {algorithm.name}."}
    )


def parse(algorithm: Algorithm, arguments: Sequence[str]) -> Request:
    """The request that command line words after ``pbrl train AGENT`` make.

    Raises:
        InputError: an unknown option, several values for a shared field, or values that the options refuse.
        SystemExit: 0 after printing help, 2 after words that do not make values of the right type.
    """
    groups = {item.name: item.type for item in dataclasses.fields(TrainOptions)}
    groups = {name: get_type_hints(TrainOptions)[name] for name in groups} | {algorithm.name: settings(algorithm)}
    fields = {item.name: item for group in groups.values() for item in dataclasses.fields(group)}
    given = words(arguments)
    configured = {item.name: item for item in dataclasses.fields(algorithm.config)}
    for name, values in given.items():
        if name not in fields and name != "help":
            near = difflib.get_close_matches(name, fields, 1)
            hint = f" (did you mean {option(near[0])}?)" if near else ""
            expected = f"expected one that pbrl train {algorithm.name} --help shows"
            raise InputError(f"unknown option {option(name)}{hint}, {expected}")
        single = name in configured and is_shared(configured[name]) and not isinstance(configured[name].default, tuple)
        if single and len(values) > 1:
            raise InputError(f"{name} must be the same for all members of a stack, found {len(values)} values")
    form = dataclasses.make_dataclass(
        "Arguments", [(name, group, field(default_factory=group)) for name, group in groups.items()]
    )
    parsed: Any = tyro.cli(
        form,
        args=list(arguments),
        prog=f"pbrl train {algorithm.name}",
        description=f"{algorithm.doc.strip()}\n\nExample: pbrl train {algorithm.name} --dataset local/reacher/mixed-v1",
        config=CONFIG,
    )
    values = vars(getattr(parsed, algorithm.name))
    options = TrainOptions(**{item.name: getattr(parsed, item.name) for item in dataclasses.fields(TrainOptions)})
    shared = {name: value for name, value in values.items() if is_shared(configured[name])}
    swept = {name: value for name, value in values.items() if name not in shared}
    return Request(algorithm.name, options, shared, swept, frozenset(given.keys() & configured.keys()))


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
