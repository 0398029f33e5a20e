"""Human preferences from npz files with ``obs_1 obs_2 action_1 action_2 label``.

The form in which several projects share the labels of Preference Transformer (Kim et al. 2023): 1 means that the second
segment was preferred, 0 the first, 0.5 neither. There are no rewards, no successors and no row numbers. An array
``user`` of whole numbers, one per pair, may say which of several users answered.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import InputError
from .checks import bounded, floats, integers
from .files import about
from .preferences import By, Pairs, Preferences
from .segments import Segments

KEYS = ("obs_1", "obs_2", "action_1", "action_2", "label")


def load_human(
    path: str | Path, *, who: str = "human", question: str = "Which of the two segments is better?", when: str = ""
) -> Preferences:
    """Read N answered pairs of segments; segment i of ``obs_1`` comes i-th and of ``obs_2`` (N + i)-th.

    Args:
        path: ends in .npz.
        who: the annotator.
        question: what was asked.
        when: ISO time.

    Raises:
        InputError: not an intact npz file, pickled arrays (which are never loaded), a missing key, shapes that do not
            fit, NaN, actions outside [-1, 1], or labels other than 0, 0.5 and 1.
    """
    path = Path(path)
    arrays = {key: torch.Tensor() for key in KEYS}
    stored = _read(path)
    with about(path):
        for key in KEYS:
            arrays[key] = floats(stored[key], key, (1,) if key == "label" else (3,))
        label = arrays["label"]
        for first, second in (("obs_1", "obs_2"), ("action_1", "action_2")):
            if arrays[first].shape != arrays[second].shape:
                found = f"{first} {list(arrays[first].shape)} and {second} {list(arrays[second].shape)}"
                raise InputError(f"{found} differ in shape, expected the same")
        if arrays["obs_1"].shape[:2] != arrays["action_1"].shape[:2] or len(label) != len(arrays["obs_1"]):
            found = ", ".join(f"{key} {list(arrays[key].shape)}" for key in ("obs_1", "action_1", "label"))
            raise InputError(f"{found} do not fit together, expected [N, T, O], [N, T, A] and [N]")
        wrong = (label != 0) & (label != 0.5) & (label != 1)
        if wrong.any():
            pair = int(wrong.nonzero()[0])
            raise InputError(
                f"label is {label[pair].item():g} at pair {pair}, expected 0 (first), 0.5 (tie) or 1 (second)"
            )
        obs = torch.cat([arrays["obs_1"], arrays["obs_2"]])
        act = torch.cat([bounded(arrays[key], key) for key in ("action_1", "action_2")])
        segments = Segments(
            obs=obs,
            act=act,
            rew=None,
            last_obs=None,
            term=None,
            row=torch.full((len(obs),), -1),
            source=path.name,
            fingerprint=hashlib.sha256(obs.numpy().tobytes() + act.numpy().tobytes()).hexdigest()[:16],
        )
        order = torch.arange(len(obs))
        pairs = Pairs(segments, order[: len(label)], order[len(label) :])
        user = integers(stored["user"], "user", len(label)) if "user" in stored else None
        preferences = Preferences(pairs, label, By(who, question, when, {"file": path.name}), user)
        preferences.check()
    return preferences


def _read(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an npz file that are wanted, none of them pickled."""
    if path.suffix != ".npz":
        raise InputError(f"{path}: the name ends in {path.suffix or 'nothing'!r}, expected .npz")
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected an npz file")
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path}: not an npz file, whatever its name says")
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [key for key in KEYS if key not in file.files]
            if missing:
                found = ", ".join(file.files) or "nothing"
                raise InputError(f"{path}: key {missing[0]!r} is missing, found {found}")
            return {key: file[key] for key in (*KEYS, "user") if key in file.files}
    except InputError:
        raise
    except ValueError as error:
        if "allow_pickle" in str(error):
            raise InputError(
                f"{path}: holds pickled objects, which are never loaded, expected arrays of numbers"
            ) from None
        raise InputError(f"{path}: unreadable npz file ({error}), expected an intact one") from None
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: unreadable npz file ({error}), expected an intact one") from None
