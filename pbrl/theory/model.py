"""The estimated model of a tabular learner: counts, frequencies, and confidence widths with their derivations.

For an event of probability at least 1 - delta over all stages, pairs and counts n at once:

- ``n KL(estimate || truth) <= log(2 S A H / delta) + (S - 1) log(e (1 + n / (S - 1)))`` (uniform in n, for laws on S
  points; Jonsson et al. 2020, Menard et al. 2021), so by Pinsker's inequality the L1 distance is at most ``l1_radius``.
- ``|(estimate - truth) V| <= span sqrt((log(2 S A H / delta) + log(e (1 + n))) / (2 n))`` for one fixed V of that span,
  which is all that optimism about V* needs: ``hoeffding``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import InputError
from ..members import Members
from .learner import Metrics, TabularSpec
from .mdps import Floats


class CountedModel:
    """Counts of P members and the frequencies that they give; tabular learners own one.

    Attributes:
        spec: the problem.
        keys: [P].
        counts: [P, H, S, A, S'] how often each transition was seen.
        episodes: how many episodes that took, without the offline ones.

    Raises:
        InputError: a problem for another number of members.
    """

    def __init__(self, spec: TabularSpec, members: Members[Any]) -> None:
        self.spec = spec
        self.keys = members.keys.cpu().numpy()
        size, (horizon, states, actions) = len(members), spec.shape
        if spec.reward.ndim == 4 and len(spec.reward) != size:
            raise InputError(f"the problem holds {len(spec.reward)} MDPs for {size} members, expected 1 or as many")
        self.counts = np.zeros((size, horizon, states, actions, states))
        if spec.offline is not None:
            self.counts += spec.offline
        self.episodes = 0
        self.reward = np.broadcast_to(spec.reward, (size, *spec.shape))

    @property
    def visits(self) -> Floats:
        """[P, H, S, A] how often each pair was seen."""
        visits: Floats = self.counts.sum(-1)
        return visits

    @property
    def law(self) -> Floats:
        """[P, H, S, A, S'] frequencies, uniform where nothing was seen."""
        visits = self.visits[..., None]
        law: Floats = np.where(visits > 0, self.counts / np.maximum(visits, 1.0), 1.0 / self.counts.shape[-1])
        return law

    def add(self, counts: Floats, episodes: int) -> Metrics:
        """Take in counts [P, H, S, A, S']; the share of pairs that have been visited is the metric."""
        self.counts = self.counts + counts
        self.episodes += episodes
        return {"visited": (self.visits > 0).mean((1, 2, 3))}

    def state_dict(self) -> dict[str, Any]:
        """Counts and episodes."""
        return {"counts": self.counts.copy(), "episodes": self.episodes}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restores them."""
        self.counts = np.array(state_dict["counts"], dtype=np.float64)
        self.episodes = int(state_dict["episodes"])

    def from_start(self, value: Floats) -> Floats:
        """[P] the mean over first states of values [P, S]."""
        mean: Floats = (value * self.spec.start).sum(-1)
        return mean


def column(members: Members[Any], name: str) -> Floats:
    """[P] a swept field in float64."""
    return np.array([float(getattr(config, name)) for config in members.configs])


def l1_radius(visits: Floats, delta: Floats) -> Floats:
    """[P, H, S, A] radius of the L1 ball around the frequencies that holds the true laws; at most 2.

    Args:
        visits: [P, H, S, A].
        delta: [P] probability that it does not, anywhere and ever.
    """
    horizon, states, actions = visits.shape[1:]
    many = max(states - 1, 1)
    level = np.log(2.0 * states * actions * horizon / delta)[:, None, None, None]
    beta = level + many * np.log(np.e * (1.0 + visits / many))
    radius: Floats = np.where(visits > 0, np.minimum(np.sqrt(2.0 * beta / np.maximum(visits, 1.0)), 2.0), 2.0)
    return radius


def hoeffding(visits: Floats, delta: Floats) -> Floats:
    """[P, H, S, A] deviation of the estimated mean of one fixed value, per unit of its span; inf where unvisited.

    Args:
        visits: [P, H, S, A].
        delta: [P] probability that it is exceeded, anywhere and ever.
    """
    horizon, states, actions = visits.shape[1:]
    level = np.log(2.0 * states * actions * horizon / delta)[:, None, None, None]
    seen = np.maximum(visits, 1.0)
    deviation: Floats = np.where(visits > 0, np.sqrt((level + np.log(np.e * (1.0 + visits))) / (2.0 * seen)), np.inf)
    return deviation
