"""The options of ``pbrl train`` for agents that find fronts. Their docstrings are the command line's help."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import tyro

from pbrl.errors import InputError

Number = Annotated[float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint="")]


@dataclass(frozen=True)
class Customary:
    """What a problem's fronts are usually measured by: the corner of the hypervolume, and the returns' discount."""

    reference: tuple[float, ...]
    gamma: float


_STAND = Customary((-100.0, -100.0), 0.99)
_STAND_3 = Customary((-100.0, -100.0, -100.0), 0.99)
_CARTS = Customary((-1.0, -1.0, -200.0), 0.98)
CUSTOMARY: Mapping[str, Customary] = {
    "DeepSeaTreasure-v0": Customary((0.0, -25.0), 1.0),
    "DeepSeaTreasureConcave-v0": Customary((0.0, -25.0), 1.0),
    **{f"FruitTree{depth}-v0": Customary((-1.0,) * 6, 1.0) for depth in (5, 6, 7)},
    "ParabolaBandit-v0": Customary((-4.0, -4.0), 1.0),
    "ShiftedParabolaBandit-v0": Customary((0.0, 0.0), 1.0),
    "TwoObjectiveLQR-v0": Customary((-310.0, -310.0), 0.9),
    **dict.fromkeys(("mo-hopper-2d-v4", "mo-hopper-2obj-v5", "mo-ant-2d-v4", "mo-ant-2obj-v5"), _STAND),
    **dict.fromkeys(("mo-humanoid-v4", "mo-humanoid-v5"), _STAND),
    **dict.fromkeys(("mo-hopper-v4", "mo-hopper-v5", "mo-ant-v4", "mo-ant-v5"), _STAND_3),
    **dict.fromkeys(("minecart-v0", "minecart-deterministic-v0"), _CARTS),
    "fruit-tree-v0": Customary((-1.0,) * 6, 0.99),
    "mo-lunar-lander-v3": Customary((-101.0, -1001.0, -101.0, -101.0), 0.99),
}
"""C-MORL's settings where it has the task; for our own small problems those of which the exact front is known."""


@dataclass(frozen=True)
class FrontOptions:
    """How the fronts that an agent such as c_morl finds are measured, where the simulator has several rewards per step.

    At each evaluation policies of the archive play again, and what they return then is measured.
    """

    reference_point: tuple[float, ...] = ()
    """Corner of the hypervolume: a return for each objective. By default the customary one of the simulator; where
    there is none, no hypervolume."""
    front_gamma: Number = None
    """Discount of these returns. By default the customary one of the simulator, or 1."""
    front_policies: int = 20
    """How many policies of an archive play: the extremes, then those farthest from others."""

    def __post_init__(self) -> None:
        if self.front_policies < 1:
            raise InputError(f"front_policies is {self.front_policies}, expected at least 1")
        check_gamma(self.front_gamma)

    def measured(self, env: str) -> tuple[tuple[float, ...] | None, float]:
        """The reference point, if any, and the discount in this simulator."""
        return measured_by(env, self.reference_point, self.front_gamma)


def check_gamma(gamma: float | None) -> None:
    """Raise InputError unless it is a discount, or left out."""
    if gamma is not None and not 0.0 <= gamma <= 1.0:
        raise InputError(f"front_gamma is {gamma:g}, expected at least 0 and at most 1")


def check_reference(point: tuple[float, ...], env: str, objectives: int) -> None:
    """Raise InputError unless a reference point that was given has a finite number for each objective."""
    if point and len(point) != objectives:
        raise InputError(
            f"reference_point has {len(point)} number{'s' * (len(point) > 1)}, expected {objectives}: one for each "
            f"objective of {env}"
        )
    if any(abs(x) == float("inf") or x != x for x in point):
        raise InputError(f"reference_point is {' '.join(f'{x:g}' for x in point)}, expected finite numbers")


def measured_by(env: str, reference: tuple[float, ...], gamma: float | None) -> tuple[tuple[float, ...] | None, float]:
    """The reference point and the discount: those that are given, or the simulator's customary ones, or none and 1."""
    known = CUSTOMARY.get(env)
    corner = reference or (known.reference if known is not None else None)
    return corner, gamma if gamma is not None else known.gamma if known is not None else 1.0
