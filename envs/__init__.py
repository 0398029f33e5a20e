"""Environments: things with reset and step; they know no agent.

``make(id, copies)`` gives a vector environment: our own point mass, our own problems with several objectives, or any
task of Gymnasium or mo-gymnasium with Box observations.
"""

from __future__ import annotations

import difflib

from pbrl.errors import InputError

from . import batched_mujoco, mujoco, multi_objective, point_mass

__all__ = ["make", "names"]


Made = point_mass.PointMass | multi_objective.Batched | batched_mujoco.BatchedMuJoCo | mujoco.GymnasiumCopies


def make(env: str, copies: int) -> Made:
    """``copies`` independent copies of an environment, as one vector environment.

    Raises:
        InputError: an unknown id (near ones are suggested), spaces that are not bounded boxes, less than one copy.
    """
    dimension = point_mass.dimension_of(env)
    if dimension is not None:
        return point_mass.PointMass(copies, point_mass.Problem(dimension=dimension), name=env)
    rules = multi_objective.rules(env)
    if rules is not None:
        return multi_objective.Batched(rules, copies)
    if env in multi_objective.locomotion.TASKS:
        return multi_objective.BatchedLocomotion(env, copies)
    if multi_objective.is_task(env):
        return mujoco.GymnasiumCopies(env, copies)
    if env not in {*names(), *mujoco.registered_names()}:
        near = difflib.get_close_matches(env, names(), n=3, cutoff=0.5)  # other tasks may be discrete
        expected = f"did you mean {' or '.join(near)}?" if near else "expected an id such as Reacher-v5 or PointMass-v0"
        raise InputError(f"unknown environment {env!r}: {expected}")
    if env in batched_mujoco.names():
        return batched_mujoco.BatchedMuJoCo(env, copies)
    return mujoco.GymnasiumCopies(env, copies)


def names() -> list[str]:
    """The ids that are known to work: the point mass (in any dimension), problems with several objectives, MuJoCo."""
    points = ["PointMass-v0", *(f"PointMass{d}D-v0" for d in (1, 3, 4))]
    return [*points, *multi_objective.RULES, *mujoco.mujoco_names()]
