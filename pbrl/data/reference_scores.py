"""Reference returns of D4RL and the normalised score.

A score is 100 (R - min) / (max - min): min is the mean return of a random policy, max that of an expert (Fu et al.
2020; numbers of the package d4rl 1.1, infos.py, and for maze2d v0 and eval of its registrations). Data sets made by
this library carry their own ``info["reference"] = [min, max]``, as they come from another version of the simulator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..errors import InputError
from .files import about

V = TypeVar("V")
Returns = TypeVar("Returns", float, NDArray[np.float64], NDArray[np.float32], Tensor)

# (min, max) by the beginning of a name, up to a hyphen; the longest beginning counts.
D4RL: dict[str, tuple[float, float]] = {
    "halfcheetah": (-280.178953, 12135.0),
    "hopper": (-20.272305, 3234.3),
    "walker2d": (1.629008, 4592.3),
    "ant": (-325.6, 3879.7),
    "antmaze": (0.0, 1.0),
    "ant-maze": (0.0, 1.0),  # as its files are called
    "kitchen": (0.0, 4.0),
    "maze2d-open-v0": (0.01, 20.66),
    "maze2d-umaze-v0": (0.94, 62.6),
    "maze2d-medium-v0": (5.77, 85.14),
    "maze2d-large-v0": (4.83, 191.99),
    "maze2d-umaze-v1": (23.85, 161.86),
    "maze2d-medium-v1": (13.13, 277.39),
    "maze2d-large-v1": (6.7, 273.99),
    "maze2d-eval-umaze-v1": (36.63, 141.4),
    "maze2d-eval-medium-v1": (13.07, 204.93),
    "maze2d-eval-large-v1": (16.4, 302.22),
    "maze2d-open-dense-v0": (11.17817, 27.166538620695782),
    "maze2d-umaze-dense-v0": (23.249793, 81.78995240126592),
    "maze2d-medium-dense-v0": (19.47762, 96.03474232952358),
    "maze2d-large-dense-v0": (27.38831, 215.09965671563742),
    "maze2d-umaze-dense-v1": (68.537689, 193.66285642381482),
    "maze2d-medium-dense-v1": (44.264742, 297.4552547777125),
    "maze2d-large-dense-v1": (30.569041, 303.4857382709002),
    "maze2d-eval-umaze-dense-v1": (56.95455, 178.21373133248397),
    "maze2d-eval-medium-dense-v1": (42.28578, 235.5658957482388),
    "maze2d-eval-large-dense-v1": (56.95455, 326.09647655082637),
    "pen": (96.262799, 3076.8331017826877),
    "hammer": (-274.856578, 12794.134825156867),
    "relocate": (-6.425911, 4233.877797728884),
    "door": (-56.512833, 2880.5693087298737),
    "minigrid-fourrooms": (0.01442, 2.89685),
    "flow-ring": (-165.22, 24.42),
    "flow-merge": (118.67993, 330.03179),
    "carla-lane": (-0.8503839912088142, 1023.5784385429523),
    "carla-town": (-114.81579500772153, 2440.1772022247314),
    "bullet-halfcheetah": (-1275.766996, 2381.6725),
    "bullet-hopper": (20.058972, 1441.8059623430963),
    "bullet-ant": (373.705955, 2650.495),
    "bullet-walker2d": (16.523877, 1623.6476303317536),
    "bullet-maze2d-open": (8.75, 64.15),
    "bullet-maze2d-umaze": (32.46, 153.99),
    "bullet-maze2d-medium": (14.87, 238.05),
    "bullet-maze2d-large": (1.82, 285.92),
}


def longest_match(table: Mapping[str, V], name: str) -> V | None:
    """The value of the longest key that is ``name`` or its beginning up to a hyphen, in lower case."""
    parts = name.lower().split("-")
    beginnings = ("-".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((table[key] for key in beginnings if key in table), None)


def d4rl_reference(name: str) -> tuple[float, float]:
    """The (min, max) return of a D4RL data set (``hopper-medium-v2``) or of its task (``hopper``, ``Hopper-v4``).

    The numbers are of the simulator of 2020; later versions of a task shift its returns a little.

    Raises:
        InputError: a name that D4RL does not know.
    """
    found = longest_match(D4RL, name)
    if found is None:
        raise InputError(
            f"no reference score for {name!r}, expected a D4RL name such as hopper-medium-v2, or a reference"
        )
    return found


def normalise(returns: Returns, reference: Sequence[float]) -> Returns:
    """D4RL's scale: 100 (R - min) / (max - min) of undiscounted returns R, a number or any shape.

    Args:
        reference: [min, max], mean returns of a random policy and of an expert.

    Raises:
        InputError: not two rising numbers.
    """
    if len(reference) != 2 or not reference[0] < reference[1]:
        raise InputError(f"the reference returns are {list(reference)}, expected [min, max] with min below max")
    low, high = reference
    return 100.0 * (returns - low) / (high - low)


def normalized_score(name: str, returns: Returns, reference: Sequence[float] | None = None) -> Returns:
    """``normalise`` by the name of a data set or task that D4RL knows.

    Args:
        name: of a data set or task, see ``d4rl_reference``.
        returns: a number or any shape.
        reference: [min, max] to use in place of D4RL's, e.g. a data set's ``info["reference"]``.

    Raises:
        InputError: a name that D4RL does not know, or a reference that is not two rising numbers.
    """
    with about(name):
        return normalise(returns, d4rl_reference(name) if reference is None else reference)
