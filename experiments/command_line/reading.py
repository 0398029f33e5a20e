"""Command line words to dataclasses, by tyro: docstrings are the help, and whatever is wrong is one sentence."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import inspect
import io
import re
import textwrap
import types
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

import tyro

from pbrl.errors import InputError

T = TypeVar("T")
_UNSET: tuple[Any, ...] = (None, ())  # defaults that are told in words, if at all


def docs(cls: type[Any]) -> dict[str, str]:
    """The literal docstring under each field of a dataclass, those of its parents included, as one line each."""
    found: dict[str, str] = {}
    for part in reversed(cls.__mro__[:-1]):
        body = ast.parse(textwrap.dedent(inspect.getsource(part))).body[0]
        assert isinstance(body, ast.ClassDef)
        for statement, after in zip(body.body, body.body[1:]):
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                text = ast.literal_eval(after.value) if isinstance(after, ast.Expr) else ""
                found[statement.target.id] = " ".join(str(text).split())
    return found


def form(cls: type[Any], several: Callable[[dataclasses.Field[Any]], bool] = lambda field: False) -> type[Any]:  # noqa: ARG005
    """A dataclass like ``cls`` for tyro to fill, without its checks, in which some fields hold a tuple of values.

    Args:
        cls: a dataclass whose fields have docstrings.
        several: which fields are to take one value or several.
    """
    texts, hints = docs(cls), get_type_hints(cls, include_extras=True)
    columns: list[Any] = []
    for item in dataclasses.fields(cls):
        many, default = several(item), item.default
        kind: Any = hints[item.name]
        if many:
            kind, default = types.GenericAlias(tuple, (kind, ...)), (default,)
        text = texts[item.name] + (" One value or several." if many else "")
        hint = "" if default in _UNSET else None
        if kind is bool:  # --bounded False, as in config files, and not --no-bounded
            kind = tyro.conf.FlagConversionOff[bool]
        column = Annotated[kind, tyro.conf.arg(help=text, help_behavior_hint=hint, metavar=_metavar(kind))]
        columns.append((item.name, column, dataclasses.field(default=default)))
    return dataclasses.make_dataclass("Form", columns, frozen=True, namespace={"__doc__": inspect.getdoc(cls)})


def _metavar(kind: Any) -> str | None:
    """INT for ``int | None``, where tyro would say {None}|INT; None leaves it to tyro."""
    some = [part for part in get_args(kind) if part is not types.NoneType]
    optional = get_origin(kind) in (types.UnionType, Union) and len(some) == 1
    return some[0].__name__.upper() if optional and isinstance(some[0], type) else None


def read(kind: type[T], arguments: Sequence[str], program: str, description: str | None = None) -> T:
    """A dataclass from the words after ``program``.

    Raises:
        InputError: words that do not fit.
        SystemExit: 0, after printing help.
    """
    _check_values(kind, arguments)
    heard = io.StringIO()
    try:
        with contextlib.redirect_stderr(heard):
            return tyro.cli(
                kind,
                args=list(arguments),
                prog=program,
                description=description,
                config=(tyro.conf.OmitArgPrefixes,),
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise InputError(f"{_complaint(heard.getvalue())} (see {program} --help)") from None


def _check_values(kind: Any, arguments: Sequence[str]) -> None:
    """Raise InputError for an option of several values that is given without any, where leaving it out means all."""
    given = [word for word in arguments if word.startswith("--")]
    for item in dataclasses.fields(kind):
        inner = item.default_factory
        if isinstance(inner, type) and dataclasses.is_dataclass(inner):
            _check_values(inner, arguments)
        name = "--" + item.name.replace("_", "-")
        if item.default != () or name not in given:
            continue
        after = [*arguments, "--"][list(arguments).index(name) + 1]
        if after.startswith("--"):
            raise InputError(f"{name} is given without values, expected one or several, or {name} left out")


_SAID: tuple[tuple[str, str], ...] = (
    (r"Error parsing (--\S+): invalid literal for int\(\) .*?: (.*)", r"\1 is \2, expected a whole number"),
    (r"Error parsing (--\S+): could not convert string to float: (.*)", r"\1 is \2, expected a number"),
    (r"Error parsing (--\S+): Could not find valid parse for arguments: \[(.*)\]", r"\1 is \2, expected numbers"),
    (r"Missing from [^:]*: (--\S+ [A-Z]+|\S+)(?: \[.*?\])? (.*)", r"\1 is missing: \2"),
    (r"Missing value for argument '(.*?)'.*", r"\1 is given without a value, expected one"),
    (r"Unrecognized options: (.*)", r"unexpected \1, expected no more than the help tells"),
    (r"Error parsing \w+: ", ""),
)
"""What tyro says -> as a sentence of ours."""


def _complaint(text: str) -> str:
    """The sentence under the first heading that tyro has printed, in a box where the terminal can draw one."""
    said: list[str] = []
    for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()[1:]:
        words = line.strip(" │|")
        if said and not words.strip("─-"):
            break
        said += [words] if words.strip("─-") else []
    whole = " ".join(said).removesuffix("(required)").strip(" .")
    for theirs, ours in _SAID:
        whole = re.sub(f"^{theirs}", ours, whole)
    if " [INT " in text:
        whole = whole.replace("expected numbers", "expected whole numbers")
    return re.sub(r"expected one of \(.*?\)", _choices, whole.replace(". Expected", ", expected"))


def _choices(found: re.Match[str]) -> str:
    """Choices in order, as tyro lists those of an option that may be left out in any, with what stands for that."""
    return "expected one of " + ", ".join(sorted(set(re.findall(r"'(.*?)'", found[0])) - {"None"}))
