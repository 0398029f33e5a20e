"""What a policy does while it is extended: it improves one objective, and the others hold what they had."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from .constraints import barrier_force, lagrangian_step, limits

_DUAL_RATE = 1.0

Constraint = Literal["barrier", "lagrangian", "reference"]


class Extension(nn.Module):
    """The aims and limits of R policies, in raw returns.

    Args:
        objective: [R] the number of the objective that each improves.
        beta: [R] share of a policy's return in the others that must be kept.
        barrier: [R] t of the log barrier.
        objectives: K.

    Attributes:
        aim: [R, K] 1 for what is improved, 0 for what holds a limit.
        limit: [R, K]; of no meaning for the aim.
        duals: [R, K] multipliers of the Lagrangian.
        guessed: [R] whether the limit is still the archive's, since no episode of the policy has ended yet.
    """

    aim: Tensor
    limit: Tensor
    duals: Tensor
    guessed: Tensor
    beta: Tensor
    barrier: Tensor

    def __init__(self, objective: Tensor, beta: Tensor, barrier: Tensor, objectives: int) -> None:
        super().__init__()
        self.register_buffer("aim", nn.functional.one_hot(objective, objectives).to(beta))
        self.register_buffer("limit", torch.zeros_like(self.aim))
        self.register_buffer("duals", torch.zeros_like(self.aim))
        self.register_buffer("guessed", torch.zeros_like(objective, dtype=torch.bool))
        self.register_buffer("beta", beta)
        self.register_buffer("barrier", barrier)

    @torch.no_grad()
    def begin(self, points: Tensor) -> None:
        """Other policies are extended from now on, worth ``points`` [R, K] by the archive's account."""
        self.limit.copy_(limits(points, self.beta))
        self.guessed.fill_(True)
        self.duals.zero_()

    @torch.no_grad()
    def see(self, mean: Tensor, count: Tensor) -> None:
        """The policies gained ``mean`` [R, K] in the ``count`` [R] episodes that ended in a rollout.

        The first such rollout was played by the policies that are extended: what they gained sets the limits.
        """
        known = self.guessed & (count > 0)
        self.limit.copy_(torch.where(known[:, None], limits(mean, self.beta), self.limit))
        self.guessed &= ~known
        self.duals.copy_(lagrangian_step(self.duals, self.aim, mean - self.limit, _DUAL_RATE))

    def force(self, constraint: Constraint, margin: Tensor, scale: Tensor) -> Tensor:
        """[R, K] what each objective's advantage counts; ``scale`` [R, K] weighs broken limits against each other."""
        if constraint == "lagrangian":
            return self.aim + self.duals
        return barrier_force(self.aim, margin, self.barrier, scale)

    def broken(self, margin: Tensor) -> Tensor:
        """[R] 1 where a limit does not hold: ``margin`` [R, K] is G - limit."""
        return ((margin <= 0.0) & (self.aim == 0.0)).any(1).to(margin.dtype)
