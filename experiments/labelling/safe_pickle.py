"""Pickles of numbers from strangers: numpy arrays, lists and numbers, and nothing else, is ever built.

A pickle is a program. Python's unpickler runs whatever functions it names; this one knows those for numpy's arrays,
and refuses every other name before it is looked up.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy._core import multiarray
from numpy.typing import NDArray

from pbrl.errors import InputError

LARGEST = 64 * 2**20


def _latin(text: str, encoding: str) -> bytes:
    """Bytes, as protocol 2 writes them."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"the encoding {encoding}")
    return text.encode("latin1")


def _from_buffer(buffer: bytes, dtype: Any, shape: tuple[int, ...], order: Literal["C", "F"]) -> NDArray[Any]:
    """An array, as protocol 5 writes it."""
    return np.frombuffer(buffer, dtype=dtype).reshape(shape, order=order)


_HARMLESS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _latin,
    **{
        (f"numpy.{core}.multiarray", name): getattr(multiarray, name)
        for core in ("core", "_core")
        for name in ("_reconstruct", "scalar")
    },
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
}


class _Restricted(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """What a pickle names."""
        if (module, name) not in _HARMLESS:
            raise pickle.UnpicklingError(f"{module}.{name}")
        return _HARMLESS[module, name]

    def persistent_load(self, pid: Any) -> Any:
        """Nothing is kept elsewhere."""
        raise pickle.UnpicklingError(f"an object kept elsewhere ({str(pid)[:40]})")


def load_integers(path: Path) -> NDArray[np.int64]:
    """[N] the whole numbers of a pickle that holds a list of them, or a numpy array.

    Raises:
        InputError: no such file, too large, no pickle, one that names anything else, or something else in it.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected a pickle of whole numbers")
    if path.stat().st_size > LARGEST:
        raise InputError(f"{path}: {path.stat().st_size} bytes, expected at most {LARGEST}")
    try:
        found = _Restricted(io.BytesIO(path.read_bytes())).load()
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path}: holds or names {error}, expected a pickle of whole numbers alone: nothing else is loaded"
        ) from None
    except Exception as error:  # a damaged pickle may raise anything
        raise InputError(f"{path}: unreadable pickle ({type(error).__name__}), expected an intact one") from None
    if isinstance(found, list) and not all(isinstance(item, int | float | np.number) for item in found):
        raise InputError(f"{path}: a list of other things than numbers, expected whole numbers")
    if not isinstance(found, list | np.ndarray):
        raise InputError(f"{path}: holds a {type(found).__name__}, expected a list or an array of whole numbers")
    values = np.asarray(found)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1 or values.dtype.kind not in "iuf" or not np.array_equal(values, np.round(values)):
        raise InputError(f"{path}: {values.dtype} numbers of shape {list(values.shape)}, expected whole numbers [N]")
    return values.astype(np.int64)
