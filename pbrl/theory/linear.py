"""Linear MDPs: transitions and rewards are linear in known features of dimension d, and valid by construction.

    P_h(s' | s, a) = <phi(s, a), mu_h(s')>    r_h(s, a) = <phi(s, a), theta_h>

Features are convex weights over d latent kernels, and each of those is a law, so that every mixture is one (as in Jin,
Yang, Wang & Jordan, COLT 2020). Every Q function is then linear too, and the exact solver works on its weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..errors import InputError
from .instances import Seed
from .mdps import EpisodicMDP, Floats, law


@dataclass(frozen=True, eq=False)
class LinearMDP:
    """An episodic MDP that is linear in features, H stages.

    Attributes:
        features: [S, A, d] convex weights over the latent kernels.
        kernels: [P?, H, d, S'] the latent laws of the next state, mu.
        weights: [P?, H, d] rewards of the latent kernels, theta.
        start: [S] law of the first state; state 0 if None.
        name: what it is called in tables.

    Raises:
        InputError: features or kernels that are no probabilities, or shapes that do not fit.
    """

    features: Floats
    kernels: Floats
    weights: Floats
    start: Floats | None = None
    name: str = "linear"

    def __post_init__(self) -> None:
        features, kernels = law(self.features, f"{self.name}: features"), law(self.kernels, f"{self.name}: kernels")
        weights = np.asarray(self.weights, dtype=np.float64)
        if features.ndim != 3:
            raise InputError(f"{self.name}: features are {list(features.shape)}, expected [S, A, d]")
        states, _, width = features.shape
        if kernels.ndim not in (3, 4) or kernels.shape[-2:] != (width, states):
            raise InputError(f"{self.name}: kernels are {list(kernels.shape)}, expected [P?, H, {width}, {states}]")
        if weights.shape != kernels.shape[:-1] or not np.isfinite(weights).all():
            raise InputError(
                f"{self.name}: weights are {list(weights.shape)}, expected finite ones {list(kernels.shape[:-1])}"
            )
        for name, value in (("features", features), ("kernels", kernels), ("weights", weights)):
            object.__setattr__(self, name, value)

    @property
    def horizon(self) -> int:
        """H."""
        return int(self.kernels.shape[-3])

    def tabular(self) -> EpisodicMDP:
        """The same MDP as tables of S states."""
        transition = np.einsum("ijk,...hkl->...hijl", self.features, self.kernels)
        reward = np.einsum("ijk,...hk->...hij", self.features, self.weights)
        return EpisodicMDP(transition, reward, self.start, self.name)


class LinearSolution(NamedTuple):
    """Values by stage; ``value`` has the stage after the last, where it is 0.

    Attributes:
        weights: [P?, H, d] of Q, which is <phi, weights>.
        value: [P?, H + 1, S].
        policy: [P?, H, S, A] probabilities.
        residual: largest absolute error of the Bellman equation of the tables.
    """

    weights: Floats
    value: Floats
    policy: Floats
    residual: float


def solve_linear(mdp: LinearMDP, policy: Floats | None = None) -> LinearSolution:
    """The optimal values of a linear MDP, or those of ``policy`` [P?, H, S, A], by backward induction on weights.

    Over stages from the last: weights = theta_h + mu_h V_{h+1}, V_h = max_a <phi, weights>.
    """
    states, actions, width = mdp.features.shape
    horizon = mdp.horizon
    batch = np.broadcast_shapes(mdp.kernels.shape[:-3], () if policy is None else policy.shape[:-3])
    weights, value = np.zeros((*batch, horizon, width)), np.zeros((*batch, horizon + 1, states))
    chosen = np.zeros((*batch, horizon, states, actions))
    for h in reversed(range(horizon)):
        weights[..., h, :] = mdp.weights[..., h, :] + (mdp.kernels[..., h, :, :] @ value[..., h + 1, :, None])[..., 0]
        q = np.einsum("ijk,...k->...ij", mdp.features, weights[..., h, :])
        chosen[..., h, :, :] = np.eye(actions)[q.argmax(-1)] if policy is None else policy[..., h, :, :]
        value[..., h, :] = (q * chosen[..., h, :, :]).sum(-1)
    tables = mdp.tabular()
    q = tables.reward + np.einsum("...hijk,...hk->...hij", tables.transition, value[..., 1:, :])
    kept = q.max(-1) if policy is None else (q * chosen).sum(-1)
    return LinearSolution(weights, value, chosen, float(np.abs(kept - value[..., :-1, :]).max()))


def random_linear(
    states: int,
    actions: int,
    horizon: int,
    width: int,
    *,
    seed: Seed,
    concentration: float = 0.3,
    reward: float = 1.0,
    count: int | None = None,
) -> LinearMDP:
    """Dirichlet features and latent kernels, latent rewards uniform in [0, ``reward``]; the first state is 0.

    The smaller ``concentration`` (the Dirichlet parameter of both), the nearer each pair is to one latent kernel, and
    each of those to one next state. With ``count``, so many MDPs on the same features, as a leading axis.

    Raises:
        InputError: fewer than one state, action, stage or feature.
    """
    if min(states, actions, horizon, width) < 1:
        raise InputError(f"{states} states, {actions} actions, {horizon} stages, {width} features, expected 1 or more")
    draw = np.random.default_rng(seed)
    many = () if count is None else (count,)
    features = draw.dirichlet(np.full(width, concentration), size=(states, actions))
    kernels = draw.dirichlet(np.full(states, concentration), size=(*many, horizon, width))
    weights = reward * draw.random((*many, horizon, width))
    name = f"linear S{states} A{actions} H{horizon} d{width}"
    features, kernels = (table / table.sum(-1, keepdims=True) for table in (features, kernels))
    return LinearMDP(features, kernels, weights, name=name)


def one_hot(states: int, actions: int) -> Floats:
    """[S, A, S A]: the features under which every finite MDP is linear."""
    return np.eye(states * actions).reshape(states, actions, -1)
