"""A run's JSON files as tables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pbrl.errors import InputError

from .page import Table


def settings_table(path: Path) -> Table:
    """A JSON file as a table of two columns."""
    rows = tuple(flat(read_json(path)))
    return Table(("setting", "value"), rows, words=2, fold=path.name if len(rows) > 16 else "")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        InputError: no such file, or something else in it.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: unreadable ({error.strerror}), expected a JSON file of a run") from error
    except (ValueError, RecursionError):
        raise InputError(f"{path}: damaged, expected a JSON file") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}, expected a JSON object")
    return content


def flat(content: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """The leaves of nested JSON, by dotted names."""
    for name, value in content.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", _value(value)


def _value(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(item, str | int | float) for item in value):
        return ", ".join(map(str, value)) or "none"
    return value if isinstance(value, str) else "-" if value is None else json.dumps(value)
