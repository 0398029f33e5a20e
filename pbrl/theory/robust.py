"""Worst and best cases over models near an estimated one: the L1 ball in closed form, and policies' values there."""

from __future__ import annotations

import numpy as np

from .mdps import Floats


def worst_mean(law: Floats, value: Floats, radius: Floats) -> Floats:
    """[..., S, A]: min of q . value over laws q with ||q - law||_1 <= radius.

    Mass min(radius / 2, 1 - law of the lowest) goes from the states of highest value to the one of lowest; one sort per
    value serves all pairs.

    Args:
        law: [..., S, A, S'].
        value: [..., S'].
        radius: [..., S, A].
    """
    order = np.argsort(value, axis=-1, kind="stable")
    ranked = np.take_along_axis(value, order, axis=-1)[..., None, None, :]
    shape = np.broadcast_shapes(law.shape, (*value.shape[:-1], 1, 1, value.shape[-1]))
    index = np.broadcast_to(order[..., None, None, :], shape)
    mass = np.take_along_axis(np.broadcast_to(law, shape), index, axis=-1)
    moved = np.minimum(0.5 * radius, 1.0 - mass[..., 0])
    # What a state gives: all that the states above it could not, up to its own mass; the lowest gives nothing.
    above = np.flip(np.cumsum(np.flip(mass, -1), -1), -1) - mass
    given = np.clip(moved[..., None] - above, 0.0, mass)
    given[..., 0] = 0.0
    worst: Floats = ((mass - given) * ranked).sum(-1) + given.sum(-1) * ranked[..., 0]
    return worst


def best_mean(law: Floats, value: Floats, radius: Floats) -> Floats:
    """[..., S, A]: max of q . value over laws q with ||q - law||_1 <= radius."""
    best: Floats = -worst_mean(law, -value, radius)
    return best


def worst_policy_value(law: Floats, reward: Floats, policy: Floats, radius: Floats) -> Floats:
    """[..., H + 1, S]: the least value of a policy over all models in the rectangular L1 ball, stage by stage.

    A lower confidence bound for every policy at once wherever the ball holds the true model.

    Args:
        law: [..., H, S, A, S'] estimated transitions.
        reward: [..., H, S, A].
        policy: [..., H, S, A].
        radius: [..., H, S, A].
    """
    horizon, states = reward.shape[-3:-1]
    batch = np.broadcast_shapes(law.shape[:-4], reward.shape[:-3], policy.shape[:-3], radius.shape[:-3])
    value = np.zeros((*batch, horizon + 1, states))
    for h in reversed(range(horizon)):
        future = worst_mean(law[..., h, :, :, :], value[..., h + 1, :], radius[..., h, :, :])
        value[..., h, :] = ((reward[..., h, :, :] + future) * policy[..., h, :, :]).sum(-1)
    return value
