"""What pieces of a long study leave behind: a JSON file each, with a description of all that decides it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pbrl.data.files import replacing
from pbrl.errors import InputError


def plain(content: Mapping[str, Any]) -> dict[str, Any]:
    """A description as JSON gives it back: tuples are lists."""
    made: dict[str, Any] = json.loads(json.dumps(content))
    return made


def save(path: Path, result: Mapping[str, Any]) -> None:
    """Write a piece's result, with its ``description``, under its name once complete.

    Raises:
        InputError: unwritable.
    """
    assert "description" in result
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(result) + "\n", encoding="utf-8")


def find(path: Path, description: Mapping[str, Any]) -> dict[str, Any] | None:
    """What an earlier call left behind, if it did what ``description`` says.

    Raises:
        InputError: the file is damaged.
    """
    if not path.is_file():
        return None
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
        same = found["description"] == description
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{path}: damaged, expected the results of a study; remove it to redo it") from None
    return found if same else None
