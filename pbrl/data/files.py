"""Reading and writing files so that nothing is ever half-written and every failure names the file."""

from __future__ import annotations

import io
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

SUFFIXES = (".hdf5", ".h5")


@contextmanager
def about(place: str | Path) -> Iterator[None]:
    """Put ``place`` in front of the sentence of an InputError raised inside."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{place}: {error}") from None


@contextmanager
def unwritable(path: Path) -> Iterator[None]:
    """Turn a failure to write inside into an InputError (permissions, full disk)."""
    try:
        yield
    except OSError as error:
        expected = "expected a writable folder with free space"
        raise InputError(f"{path}: cannot be written ({_reason(error)}), {expected}") from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its name once the block has ended well, and vanishes otherwise.

    Raises:
        InputError: the folder cannot be made, or the file cannot be written (permissions, full disk).
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        with unwritable(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            os.replace(temporary, path)
    finally:
        with suppress(OSError):  # usually there is nothing left; a second error must not hide the first
            temporary.unlink()


@contextmanager
def new_hdf5(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file to fill, which is put under ``path`` once the block has ended well.

    It is built in memory and then written in one piece, as the HDF5 library crashes the process on a full disk.

    Raises:
        InputError: wrong suffix, or the file cannot be written.
    """
    check_suffix(path)
    image = io.BytesIO()
    with h5py.File(image, "w", track_order=True) as file:
        yield file
    with replacing(path) as temporary:
        temporary.write_bytes(image.getbuffer())


def check_suffix(path: Path) -> None:
    """Raise InputError unless the name ends as an HDF5 file's."""
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path}: the name ends in {path.suffix or 'nothing'!r}, expected {' or '.join(SUFFIXES)}")


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """The HDF5 file, open for reading.

    Raises:
        InputError: wrong suffix, no such file, not HDF5, or unreadable (also when damage shows up inside the block).
    """
    check_suffix(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected an HDF5 file")
    try:
        if not h5py.is_hdf5(path):
            if not os.access(path, os.R_OK):
                raise InputError(f"{path}: no permission to read the file, expected a readable HDF5 file")
            raise InputError(f"{path}: not an HDF5 file, whatever its name says")
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError) as error:  # h5py reports damage as any of them
        raise InputError(f"{path}: unreadable HDF5 file ({_reason(error)}), expected an intact one") from error


def read(group: Any, key: str, path: Path) -> NDArray[Any]:
    """The array stored under ``key`` of a file or group of ``path``.

    Raises:
        InputError: no such key, or a group where an array should be.
    """
    full = f"{group.name}/{key}".strip("/")
    if key not in group:
        found = ", ".join(sorted(group)) or "nothing"
        raise InputError(f"{path}: key {full!r} is missing, found {found}")
    if not isinstance(group[key], h5py.Dataset):
        raise InputError(f"{path}: key {full!r} is a group, expected an array")
    return np.asarray(group[key][()])


def _reason(error: Exception) -> str:
    """What an error says, on one line."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__
