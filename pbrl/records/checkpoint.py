"""Checkpoints: a learner's state as safetensors, and a JSON file that says whose it is.

    weights-<updates>.safetensors               every tensor of ``state_dict``
    weights-<updates>-<env_steps>.safetensors   the same of a learner that is online,
    collected-<updates>-<env_steps>.safetensors and the state of what it has collected
    checkpoint.json                             agent, config, version, counts, and names and SHA-256 of these files

The weights are complete on the disk before ``checkpoint.json`` is replaced by one that names them, and the old ones go
only afterwards: a kill at any moment leaves the old checkpoint or the new one. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from .. import __version__
from ..agent import Learner
from ..data.files import replacing
from ..errors import InputError

INDEX = "checkpoint.json"


@dataclass(frozen=True)
class Checkpoint:
    """What ``checkpoint.json`` says.

    Attributes:
        agent: name of the algorithm.
        config: hash of everything that the weights depend on.
        pbrl: version that wrote it.
        updates: how many updates had been made.
        weights: name of the file beside it.
        sha256: of that file.
        env_steps: how many steps each member had taken online.
        collected: name of the file with what was collected; None offline.
        collected_sha256: of that file.
    """

    agent: str
    config: str
    pbrl: str
    updates: int
    weights: str
    sha256: str
    env_steps: int = 0
    collected: str | None = None
    collected_sha256: str | None = None


def save(
    folder: Path,
    learner: Learner,
    *,
    agent: str,
    config: str,
    collected: Mapping[str, Tensor] | None = None,
    env_steps: int = 0,
) -> None:
    """Make ``folder`` hold the present state of ``learner``, in place of any older one.

    Args:
        collected: online, the state of the buffer, or of whatever else the loop goes on from.
        env_steps: of each member online.

    Raises:
        InputError: the folder cannot be written, or the disk is full.
    """
    image = _image(learner.state_dict())
    updates = learner.updates
    name = f"{updates}.safetensors" if collected is None else f"{updates}-{env_steps}.safetensors"
    index = Checkpoint(agent, config, __version__, updates, f"weights-{name}", hashlib.sha256(image).hexdigest())
    _write(folder / index.weights, image)
    kept = [index.weights, INDEX]
    if collected is not None:
        image = _image(collected)
        digest = hashlib.sha256(image).hexdigest()
        index = replace(index, env_steps=env_steps, collected=f"collected-{name}", collected_sha256=digest)
        _write(folder / f"collected-{name}", image)
        kept.append(f"collected-{name}")
    _write(folder / INDEX, (json.dumps(asdict(index), indent=2) + "\n").encode())
    for path in folder.iterdir():
        if path.name not in kept:
            with suppress(OSError):
                path.unlink()


def find(folder: Path) -> Checkpoint | None:
    """The checkpoint in ``folder``; None where none has been written yet.

    Raises:
        InputError: a damaged ``checkpoint.json``.
    """
    path = folder / INDEX
    if not path.is_file():
        return None
    try:
        return Checkpoint(**json.loads(path.read_bytes()))
    except (ValueError, TypeError, OSError):
        raise InputError(f"{path}: damaged, expected JSON of agent, config, pbrl, updates, weights, sha256") from None


def load(folder: Path, learner: Learner, *, agent: str, config: str) -> int:
    """Restore ``learner`` from ``folder`` and tell how many updates had been made.

    Raises:
        InputError: no checkpoint, one of another agent, version or config, or damaged files.
    """
    index = find(folder)
    if index is None:
        raise InputError(f"{folder}: has no checkpoint yet, expected {INDEX}")
    if index.agent != agent:
        raise InputError(f"{folder}: the checkpoint is of agent {index.agent!r}, expected {agent!r}")
    if index.pbrl != __version__:
        raise InputError(f"{folder}: the checkpoint was written by pbrl {index.pbrl}, expected {__version__}")
    if index.config != config:
        raise InputError(f"{folder}: the checkpoint is of another config ({index.config}), expected {config}")
    _restore(folder / index.weights, index.sha256, learner)
    return index.updates


def load_collected(folder: Path, whole: Restorable) -> None:
    """Restore what was collected, where the checkpoint in ``folder`` (which ``load`` has accepted) has it.

    Raises:
        InputError: damaged files.
    """
    index = find(folder)
    if index is not None and index.collected is not None:
        _restore(folder / index.collected, str(index.collected_sha256), whole)


class Restorable(Protocol):
    """Anything with a state."""

    def load_state_dict(self, state_dict: Mapping[str, Any], /) -> Any:
        """Restores it."""


def _image(state: Mapping[str, Tensor]) -> bytes:
    # A clone each: safetensors refuses tensors that share storage.
    return safetensors.torch.save({name: value.detach().cpu().clone().contiguous() for name, value in state.items()})


def _restore(path: Path, sha256: str, whole: Restorable) -> None:
    try:
        image = path.read_bytes()
        if hashlib.sha256(image).hexdigest() != sha256:
            raise InputError(f"{path}: damaged, expected a file with the SHA-256 that {INDEX} names")
        whole.load_state_dict(safetensors.torch.load(image))
    except OSError as error:
        raise InputError(f"{path}: unreadable ({error.strerror}), expected a file of the checkpoint") from None
    except (SafetensorError, RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: does not hold the state of this agent ({reason})") from None


def _write(path: Path, content: bytes) -> None:
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    if hasattr(os, "O_DIRECTORY"):  # not on Windows, whose renames need no such thing
        folder = os.open(path.parent, os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
