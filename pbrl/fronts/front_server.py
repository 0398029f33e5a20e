"""Acting by an archive: what learners share whose members are whole fronts of policies."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from .. import grouped, pareto
from ..members import Members
from ..parts.actor_critic import ActorCritic
from ..spec import Spec
from .archive import Archive


class FrontServer(nn.Module):
    """P archives of policies, and the preference weights that each acts by; equal ones at first.

    Attributes:
        archive: is made by the learner.
        preference: [P, K] the preference weights.
    """

    archive: Archive
    preference: Tensor

    def __init__(self, spec: Spec, members: Members[Any]) -> None:
        super().__init__()
        self.spec, self.members = spec, members
        equal = torch.full((len(members), spec.objectives), 1.0 / spec.objectives, dtype=members.dtype)
        self.register_buffer("preference", equal.to(members.device))
        # In a tuple: it is filled from the archive whenever it acts, and no part of the state.
        self._server = (ActorCritic(spec, members),)

    @property
    def weights(self) -> Tensor:
        """[P, K] the preference weights that it acts by."""
        return self.preference

    def serve(self, weights: Tensor) -> None:
        """Act from now on by the archive's best policy for preference weights [K] or, one row per member, [P, K].

        Raises:
            InputError: weights off the simplex, or of another length.
        """
        pareto.check_weights(weights.cpu().numpy(), self.spec.objectives)
        self.preference.copy_(weights.to(self.preference).expand_as(self.preference))

    def act(self, obs: Tensor, key: Tensor | None = None) -> Tensor:
        """obs [P, B, O] -> [P, B, A], by the policy for the weights that ``serve`` was told, at first equal ones."""
        _, policy = self.archive.row(self.archive.assign(self.preference)[:, None])
        self._server[0].load_vectors(policy.squeeze(1))
        return self._server[0].act(obs, key)

    def policies(self, rows: Tensor) -> ActorCritic:
        """Those in rows [P, N] of the archive, as one stack of N P: row n of member p is place n P + p."""
        count = rows.shape[1]
        many = dataclasses.replace(self.members, configs=self.members.configs * count, seeds=self.members.seeds * count)
        stack = ActorCritic(self.spec, many)
        stack.load_vectors(grouped.apart(self.archive.row(rows)[1], count, axis=1).squeeze(1))
        return stack
