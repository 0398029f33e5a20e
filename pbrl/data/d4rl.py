"""D4RL's HDF5 files, read without d4rl (https://github.com/Farama-Foundation/D4RL, Fu et al. 2020).

Episodes end at ``terminals`` (true ends) and ``timeouts`` (time limits). Old files have no ``timeouts``; then an
episode also ends where the stored successor is not the next observation or, without stored successors, at the task's
step limit. A row with both flags counts as terminal. The collector cuts the last episode without a flag.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .dataset import Dataset
from .files import about, open_hdf5, read
from .reference_scores import D4RL, longest_match

# Steps per episode, from d4rl's registrations; looked up as the reference scores are.
HORIZON = {
    **dict.fromkeys(("halfcheetah", "hopper", "walker2d", "ant", "antmaze", "ant-maze"), 1000),
    **dict.fromkeys(("antmaze-umaze", "ant-maze-u-maze"), 700),
    **dict.fromkeys(("maze2d-open", "maze2d-umaze-v0", "maze2d-umaze-dense-v0"), 150),
    **dict.fromkeys(("maze2d-medium-v0", "maze2d-medium-dense-v0"), 250),
    **dict.fromkeys(("maze2d-large-v0", "maze2d-large-dense-v0"), 600),
    **dict.fromkeys(("maze2d-umaze", "maze2d-eval-umaze"), 300),
    **dict.fromkeys(("maze2d-medium", "maze2d-eval-medium"), 600),
    **dict.fromkeys(("maze2d-large", "maze2d-eval-large"), 800),
    "pen": 100,
    **dict.fromkeys(("hammer", "relocate", "door"), 200),
    "kitchen": 280,
}

# The simulators that are closest to those of the files and still run.
SIMULATOR = {"halfcheetah": "HalfCheetah-v4", "hopper": "Hopper-v4", "walker2d": "Walker2d-v4"}


def load_d4rl(path: str | Path, *, compat: bool = False, horizon: int | None = None) -> Dataset:
    """Read a D4RL file.

    By default successors are the stored ones, and rows at a time limit are kept: their value is bootstrapped. Without
    stored successors those rows are dropped, as ``Dataset.from_arrays`` tells.

    Args:
        path: ends in .hdf5; its name gives data set, step limit, reference scores and simulator.
        compat: reproduce ``d4rl.qlearning_dataset`` to the bit in observations, actions, rewards, successors and
            terminals: the successor is always the next row's observation, also behind an end; rows at a time limit and
            the last row of the file are dropped; without ``timeouts`` the steps are counted as d4rl counts them, from
            0 at first and after a time limit, but from 1 after a terminal.
        horizon: steps per episode, where the name does not tell.

    Raises:
        InputError: not an intact HDF5 file, a missing key, flags other than 0 and 1, contents that a Dataset does not
            admit, or an unknown step limit where it is needed.
    """
    path = Path(path)
    name = _name(path)
    known = known_as(name)
    horizon = longest_match(HORIZON, known) if horizon is None else horizon
    if horizon is not None and horizon < 2:
        raise InputError(f"{path}: horizon is {horizon}, expected at least 2")
    with open_hdf5(path) as file:
        obs, act, rew = (read(file, key, path) for key in ("observations", "actions", "rewards"))
        term = _flags(read(file, "terminals", path), "terminals", path)
        trunc = _flags(read(file, "timeouts", path), "timeouts", path) if "timeouts" in file else None
        next_obs = read(file, "next_observations", path) if "next_observations" in file and not compat else None
    info: dict[str, Any] = {"format": "d4rl", "file": path.name, "compat": compat, "timeouts_stored": trunc is not None}
    if horizon is not None:
        info["horizon"] = horizon
    if (scores := longest_match(D4RL, known)) is not None:
        info["reference"] = list(scores)
    env = simulator(path)
    with about(path):
        _check_rows(obs, next_obs, actions=act, rewards=rew, terminals=term, timeouts=trunc)
        if compat:
            trunc = _counted(term, _needed(horizon, name), after_terminal=1) if trunc is None else trunc
            keep = ~trunc[:-1]
            # The row before a dropped one is where the episode now ends.
            ends = trunc[1:] & ~term[:-1]
            arrays = (obs[:-1], act[:-1], rew[:-1], term[:-1], ends, obs[1:])
            return Dataset.from_arrays(*(array[keep] for array in arrays), name=name, env=env, info=info)
        if trunc is None and next_obs is not None:
            trunc = np.zeros_like(term)
            trunc[:-1] = (next_obs[:-1] != obs[1:]).any(1)
        elif trunc is None:
            trunc = _counted(term, _needed(horizon, name), after_terminal=0)
        if info["timeouts_stored"] and (both := int((term & trunc).sum())):
            info["both_flags"] = f"{both} row{'s' * (both > 1)} had both flags, taken as terminals"
        return Dataset.from_arrays(obs, act, rew, term, trunc & ~term, next_obs, name=name, env=env, info=info)


def simulator(path: Path) -> str:
    """The id of the simulator that a file of this name was made in, or what is nearest to it; "" when unknown."""
    return longest_match(SIMULATOR, known_as(_name(path))) or ""


def _name(path: Path) -> str:
    return path.stem.replace("_", "-").lower()


def known_as(file: str) -> str:
    """The name in d4rl's tables of the data in a file of this name (in lower case, with hyphens), as far as they go.

    The files were named by other rules: sparse rewards are said, version 0 is not, and some tasks have other names.
    """
    name = file.replace("-sparse", "")
    for theirs, ours in (
        ("mini-kitchen-", "kitchen-"),
        ("walker-", "walker2d-"),
        ("minigrid4rooms", "minigrid-fourrooms"),
    ):
        name = ours + name.removeprefix(theirs) if name.startswith(theirs) else name
    return f"{name}-v0" if name.startswith("maze2d-") and not re.search(r"-v\d+$", name) else name


def _flags(values: NDArray[Any], key: str, path: Path) -> NDArray[np.bool_]:
    """[N] bool of flags that some files store as numbers."""
    values = values.reshape(len(values)) if values.shape[1:] == (1,) else values
    if values.ndim != 1 or not np.isin(values, (0, 1)).all():
        raise InputError(f"{path}: {key} is not one column of 0 and 1, expected flags [N]")
    return values.astype(np.bool_)


def _check_rows(obs: NDArray[Any], next_obs: NDArray[Any] | None, **others: NDArray[Any] | None) -> None:
    """Raise InputError unless the arrays have the same rows, at least two of them (compat drops one)."""
    if obs.ndim != 2 or len(obs) < 2:
        raise InputError(f"observations has shape {list(obs.shape)}, expected [N, O] with at least two rows")
    if next_obs is not None and next_obs.shape != obs.shape:
        raise InputError(f"next_observations has shape {list(next_obs.shape)}, expected {list(obs.shape)}")
    for key, array in others.items():
        if array is not None and len(array) != len(obs):
            raise InputError(f"{key} has {len(array)} rows, expected {len(obs)} as observations has")


def _needed(horizon: int | None, name: str) -> int:
    if horizon is None:
        raise InputError(
            f"no timeouts are stored and the step limit of {name!r} is unknown, expected horizon=STEPS "
            "(pbrl data import FILE --horizon STEPS)"
        )
    return horizon


def _counted(term: NDArray[np.bool_], horizon: int, after_terminal: int) -> NDArray[np.bool_]:
    """[N] bool: the rows at which a count of steps, begun anew after each end, reaches the horizon."""
    final = np.zeros_like(term)
    row, step = 0, 0
    for terminal in [*np.flatnonzero(term).tolist(), len(term)]:
        while (limit := row + horizon - 1 - step) <= min(terminal, len(term) - 1):
            final[limit] = True
            row, step = limit + 1, 0
        if row <= terminal:  # otherwise the time limit fell on the terminal row and began the count anew
            row, step = terminal + 1, after_terminal
    return final
