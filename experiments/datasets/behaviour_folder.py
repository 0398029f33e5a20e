"""Behaviour from a folder that somebody else's soft actor-critic run left: its replay and the weights of its policies.

Such a folder holds

- ``manifest.json``: ``env``, and ``snapshots`` (names to ``file``, ``env_steps`` and ``return_mean``);
- ``replay.npz``: every transition in order, ``obs, act, rew, next_obs, term, trunc``, act in [-1, 1], obs raw;
- a ``.npz`` per snapshot with kernels [in, out] in flax's naming: ``actor/Dense_{0,1}`` hidden, ``Dense_2`` the mean
  and ``Dense_3`` the log deviation of a tanh-Gaussian; ``critic/Dense_{0,1,2}`` with a leading axis for the twins;
  ``log_alpha``.

The policy with the best return plays the part of the expert in the tiers; the data's metadata say what it really is.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from pbrl.data.checks import check_ends, flags, floats
from pbrl.data.files import about
from pbrl.errors import InputError
from pbrl.labelers.oracle import make_critic
from pbrl.spec import Spec

from .behaviour import Array, Behaviour, Snapshot, Transitions
from .sac_policy import sac_policy

REPLAY = ("obs", "act", "rew", "next_obs", "term", "trunc")
GAMMA = 0.99  # sbx-rl's and stable-baselines3's default; a manifest may name another
_LAYERS = {"actor/Dense_0": "actor/0", "actor/Dense_1": "actor/1", "actor/Dense_2": "actor/mean"}
_LAYERS |= {"actor/Dense_3": "actor/log_std"} | {f"critic/Dense_{depth}": f"critic/{depth}" for depth in range(3)}
_PARTS = {"kernel": "weight", "bias": "bias"}


def behaviour(spec: Spec, folder: Path) -> Behaviour:
    """The run in ``folder``, as one of ours; ``spec`` is that of the environment that data are made for.

    Raises:
        InputError: a file that is missing or damaged, another environment, or arrays that do not fit it.
    """
    manifest = _manifest(folder / "manifest.json")
    if manifest["env"] != spec.name:
        raise InputError(f"{folder}: holds the behaviour of {manifest['env']}, expected that of {spec.name}")
    gamma = float(manifest.get("gamma", GAMMA))
    log = _replay(folder / "replay.npz", spec)
    found: dict[int, Snapshot] = {}
    for entry in manifest["snapshots"].values():
        steps = int(entry["env_steps"])
        path = folder / str(entry["file"])
        weights = {ours: array for name, array in _arrays(path).items() if (ours := _renamed(name))}
        with about(path):
            _check_weights(weights, gamma, spec)
        if not 0 < steps <= len(log):
            raise InputError(f"{folder}: a snapshot is of step {steps}, expected 1 to {len(log)}, the replay's length")
        sample, greedy = sac_policy(weights), sac_policy(weights, greedy=True)
        found[steps] = Snapshot(steps, float(entry["return_mean"]), sample, greedy, weights)
    told = {name: value for name, value in manifest.items() if name not in ("snapshots", "evaluation")}
    about_it = {
        "algorithm": "given in a folder",
        "note": "what the tiers call expert is the best snapshot of one run, whatever its return",
        **told,
    }
    snapshots = tuple(found[steps] for steps in sorted(found))
    return Behaviour(snapshots, log, {"kind": "sac", "gamma": gamma}, about_it)


def _manifest(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected the manifest of a behaviour run")
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
        entries = list(content["snapshots"].values())
        if not entries or not isinstance(content["env"], str):
            raise ValueError
        for entry in entries:
            str(entry["file"]), int(entry["env_steps"]), float(entry["return_mean"])
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{path}: damaged, expected env and snapshots with file, env_steps and return_mean") from None
    return content


def _arrays(path: Path) -> dict[str, Array]:
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected an npz file of a behaviour run")
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: unreadable npz file, expected an intact one without pickles") from error


def _replay(path: Path, spec: Spec) -> Transitions:
    arrays = _arrays(path)
    missing = [name for name in REPLAY if name not in arrays]
    if missing:
        raise InputError(f"{path}: key {missing[0]!r} is missing, found {', '.join(arrays) or 'nothing'}")
    with about(path):
        count = len(arrays["obs"])
        for name, shape in {
            "obs": (count, spec.obs_size),
            "act": (count, spec.act_size),
            "rew": (count,),
            "next_obs": (count, spec.obs_size),
        }.items():
            found = floats(arrays[name], name, (len(shape),))
            if found.shape != shape:
                raise InputError(f"{name} has shape {list(found.shape)}, expected {list(shape)} as {spec.name} has")
            arrays[name] = found.numpy()
        if not count:
            raise InputError("obs has no rows, expected at least one transition")
        term, trunc = (flags(arrays[name], name, count) for name in ("term", "trunc"))
        check_ends(term, trunc)
    arrays |= {"term": term.numpy(), "trunc": trunc.numpy()}
    return Transitions(**{name: arrays[name] for name in REPLAY})


def _renamed(name: str) -> str:
    """The store's name of an array, "" for one that is of no use here."""
    layer, _, part = name.rpartition("/")
    if layer in _LAYERS and part in _PARTS:
        return f"{_LAYERS[layer]}/{_PARTS[part]}"
    return name if name == "log_alpha" else ""


def _check_weights(weights: dict[str, Array], gamma: float, spec: Spec) -> None:
    """Raise InputError unless these make an oracle critic, and a policy, for problems of this spec."""
    make_critic(weights, {"kind": "sac", "gamma": gamma})
    sizes = {"actor/0/weight": (spec.obs_size, 0), "actor/mean/weight": (spec.act_size, 1)}
    sizes |= {"actor/log_std/weight": (spec.act_size, 1), "critic/0/weight": (spec.obs_size + spec.act_size, 1)}
    for name, (size, axis) in sizes.items():
        if weights[name].shape[axis] != size:
            raise InputError(f"{name} has shape {list(weights[name].shape)}, expected {size} on axis {axis}")
