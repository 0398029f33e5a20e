"""Checkpoints: a learner's state as safetensors, and a JSON file that says whose it is.

    weights-<updates>.safetensors   every tensor of ``state_dict``
    checkpoint.json                 agent, config, version, updates, and name and SHA-256 of the weights file

The weights are complete on the disk before ``checkpoint.json`` is replaced by one that names them, and the old ones go
only afterwards: a kill at any moment leaves the old checkpoint or the new one. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError

from . import __version__
from .agent import Learner
from .data.files import replacing
from .errors import InputError

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
    """

    agent: str
    config: str
    pbrl: str
    updates: int
    weights: str
    sha256: str


def save(folder: Path, learner: Learner, *, agent: str, config: str) -> None:
    """Make ``folder`` hold the present state of ``learner``, in place of any older one.

    Raises:
        InputError: the folder cannot be written, or the disk is full.
    """
    # A clone each: safetensors refuses tensors that share storage.
    tensors = {name: value.detach().cpu().clone().contiguous() for name, value in learner.state_dict().items()}
    image = safetensors.torch.save(tensors)
    updates = learner.updates
    weights = f"weights-{updates}.safetensors"
    index = Checkpoint(agent, config, __version__, updates, weights, hashlib.sha256(image).hexdigest())
    _write(folder / weights, image)
    _write(folder / INDEX, (json.dumps(asdict(index), indent=2) + "\n").encode())
    for path in folder.iterdir():
        if path.name not in (weights, INDEX):
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
    path = folder / index.weights
    try:
        image = path.read_bytes()
        if hashlib.sha256(image).hexdigest() != index.sha256:
            raise InputError(f"{path}: damaged, expected a file with the SHA-256 that {INDEX} names")
        learner.load_state_dict(safetensors.torch.load(image))
    except OSError as error:
        raise InputError(f"{path}: unreadable ({error.strerror}), expected the weights of the checkpoint") from None
    except (SafetensorError, RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: does not hold the state of this agent ({reason})") from None
    return index.updates


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
