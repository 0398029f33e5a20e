"""A run's JSON files as tables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pbrl.errors import InputError

from .page import Table

LONGEST = 80  # characters of JSON in a cell


def settings_table(path: Path) -> Table:
    """A JSON file as a table of two columns; a nested list that is too long for a cell is left to the file."""
    rows = tuple((name, _fitting(value, path)) for name, value in leaves(read_json(path)))
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


def leaves(content: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested JSON, by dotted names; lists are leaves."""
    for name, value in content.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def _fitting(value: Any, path: Path) -> str:
    if isinstance(value, list) and all(isinstance(item, str | int | float) for item in value):
        return ", ".join(map(str, value)) or "none"
    text = value if isinstance(value, str) else "-" if value is None else json.dumps(value)
    if isinstance(value, list) and len(text) > LONGEST:
        return f"{len(value)} {'entry' if len(value) == 1 else 'entries'}, see {path.name}"
    return text
