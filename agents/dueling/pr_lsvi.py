"""PR-LSVI: randomised value iteration from preferences, asked for where random rewards disagree (Wu & Sun, ICLR 2024).

In a linear MDP whose rewards are never seen, each round of the algorithm is

    theta_r = argmax of the likelihood of the answers under sigmoid(<phi(second) - phi(first), theta>)
    reward ~ N(theta_r, sigma_r^2 Sigma_r^-1)              Sigma_r = lam I + sum of asked dphi dphi'
    w_h ~ N(Sigma_h^-1 sum phi_h V_{h+1}(s'), sigma_p^2 Sigma_h^-1)     for h = H..1
    Q_h = <phi, reward_h + w_h>, V_h = max_a Q_h
    first policy: greedy in Q; second: the first policy of the round before
    ask if E |<theta - theta', phi(first) - phi(second)>| > epsilon, theta and theta' drawn as the reward is

with phi(trajectory) the features of its H steps in a row. The difference of the two draws is normal, so that the
expectation is (2 / sqrt(pi)) sigma_r |dphi| in the norm of Sigma_r^-1, without draws. The old policy is there because
only differences of rewards can be learned.

Deviations:
- The paper bounds the norm of theta_r and gives sigma_r and sigma_p by its theory; here the likelihood has the ridge
  ``lam`` and the defaults are practical: with the theory's factors small problems are explored without end.
- Values are clipped to what rewards in [0, bound] can give, with both signs, not truncated as by Zanette et al.
- theta_r is fitted anew when a member's answers have grown by ``REFIT``, not in every round.
- ``noise`` and ``random_queries`` are not in the paper: they make the controls without randomisation and with questions
  at random.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pbrl.errors import InputError
from pbrl.members import Members, check_range
from pbrl.theory.dueling import Bools, Draws, Duel, DuelingSpec, Ints, Trajectories
from pbrl.theory.learner import Metrics
from pbrl.theory.logistic import fit_logistic
from pbrl.theory.mdps import Floats
from pbrl.theory.model import column

REFIT = 0.05
UNASKED = -1.0


@dataclass(frozen=True)
class PRLSVIConfig:
    """Settings of PR-LSVI."""

    epsilon: float = 0.5
    """It asks where the expected disagreement of two random rewards is larger than this, in units of the return."""
    sigma_r: float = 2.0
    """Standard deviation of the random reward, in units of Sigma_r."""
    sigma_p: float = 1.0
    """Standard deviation of the random values, in units of Sigma_h."""
    lam: float = 1.0
    """Ridge of both regressions."""
    noise: float = 1.0
    """Factor on what is drawn for the policy, but not on the rule of asking; 0: no randomisation."""
    random_queries: float = 0.0
    """Share of rounds that ask at random instead of by the rule; 0: by the rule."""

    def __post_init__(self) -> None:
        for name in ("epsilon", "sigma_r", "sigma_p", "noise"):
            check_range(self, name, 0.0)
        check_range(self, "lam", 0.0, open_low=True)
        check_range(self, "random_queries", 0.0, 1.0)


class PRLSVI:
    """Stacked PR-LSVI."""

    def __init__(self, spec: DuelingSpec, members: Members[PRLSVIConfig]) -> None:
        size, (horizon, states, actions) = len(members), spec.shape
        self.spec, self.width = spec, spec.features.shape[-1]
        self.flat = spec.features.reshape(states * actions, self.width)
        self.keys: Ints = members.keys.cpu().numpy()
        names = ("epsilon", "sigma_r", "sigma_p", "lam", "noise", "random_queries")
        self.config = {name: column(members, name) for name in names}
        ridge = self.config["lam"]
        long = horizon * self.width
        self.moments = np.zeros((size, horizon, self.width, states))  # sum of phi e_{s'}'
        self.precision = ridge[:, None, None, None] * np.broadcast_to(
            np.eye(self.width), (size, horizon, self.width, self.width)
        )
        self.certainty = ridge[:, None, None] * np.eye(long)  # Sigma_r
        self.theta, self.fitted = np.zeros((size, long)), np.zeros(size)
        self.steps = np.zeros((size, 0, 2, horizon), dtype=np.int32)  # pairs of all rounds, then room for more
        self.labels = np.zeros((size, 0))
        self.previous = np.zeros((size, horizon, states), dtype=np.int64)
        self.rounds = 0
        self.draws = Draws(self.keys, "reward and values", 2 * long, normal=True)
        self.coins = Draws(self.keys, "questions", 1)
        self._planned: Ints | None = None
        self._spread()

    def _spread(self) -> None:
        """Sigma_r^-1 and a root of it, anew."""
        self.spread = np.linalg.inv(self.certainty)
        self.root = np.linalg.cholesky(self.spread)

    def plan(self) -> Duel:
        """The greedy policy of random values, and the one of the round before."""
        if self._planned is None:
            self._planned = self._greedy()
        return Duel(self._planned, self.previous)

    def _greedy(self) -> Ints:
        size, (horizon, states, actions) = len(self.keys), self.spec.shape
        long = horizon * self.width
        drawn = self.draws.at(self.rounds)
        scale_r, scale_p = ((self.config[name] * self.config["noise"])[:, None] for name in ("sigma_r", "sigma_p"))
        reward = self.theta + scale_r * (self.root @ drawn[:, :long, None])[..., 0]
        covariance = np.linalg.inv(self.precision)
        shift = (np.linalg.cholesky(covariance) @ drawn[:, long:].reshape(size, horizon, self.width, 1))[..., 0]
        policy, value = np.empty((size, horizon, states), dtype=np.int64), np.zeros((size, states))
        for h in reversed(range(horizon)):
            mean = (covariance[:, h] @ (self.moments[:, h] @ value[..., None]))[..., 0]
            weights = reward[:, h * self.width : (h + 1) * self.width] + mean + scale_p * shift[:, h]
            q = (self.flat @ weights[..., None]).reshape(size, states, actions)
            policy[:, h] = q.argmax(-1)
            limit = (horizon - h) * self.spec.bound
            value = q.max(-1).clip(-limit, limit)
        return policy

    def _features(self, seen: Trajectories) -> Floats:
        """[P, H d] of trajectories."""
        steps: Floats = self.spec.features[seen.states[:, :-1], seen.actions]
        return steps.reshape(len(steps), -1)

    def asks(self, first: Trajectories, second: Trajectories) -> Bools:
        """Where two random rewards would disagree by more than epsilon about the two, or at random."""
        gap = self._features(second) - self._features(first)
        length = np.sqrt((gap * (self.spread @ gap[..., None])[..., 0]).sum(-1))
        doubts: Bools = 2.0 / np.sqrt(np.pi) * self.config["sigma_r"] * length > self.config["epsilon"]
        share = self.config["random_queries"]
        return np.where(share > 0.0, self.coins.at(self.rounds)[:, 0] < share, doubts)

    def update(self, first: Trajectories, second: Trajectories, asked: Bools, label: Floats) -> Metrics:
        """Add both trajectories to the moments, and the answers to the likelihood."""
        self.previous = self.plan().first
        self._planned = None
        member = np.arange(len(self.keys))
        for seen in (first, second):
            for h in range(self.spec.horizon):
                phi = self.spec.features[seen.states[:, h], seen.actions[:, h]]
                self.precision[:, h] += phi[:, :, None] * phi[:, None, :]
                self.moments[member, h, :, seen.states[:, h + 1]] += phi
        gap = self._features(second) - self._features(first)
        if self.rounds == self.labels.shape[1]:
            self._make_room(max(16, self.rounds))
        for i, seen in enumerate((first, second)):
            self.steps[:, self.rounds, i] = seen.states[:, :-1] * self.spec.shape[2] + seen.actions
        self.labels[:, self.rounds] = np.where(asked, label, UNASKED)
        self.rounds += 1
        if asked.any():
            new = gap[asked]
            self.certainty[asked] += new[:, :, None] * new[:, None, :]
            self.spread[asked] = np.linalg.inv(self.certainty[asked])
            self.root[asked] = np.linalg.cholesky(self.spread[asked])
        count = (self.labels[:, : self.rounds] != UNASKED).sum(1).astype(np.float64)
        for p in np.flatnonzero(count > (1.0 + REFIT) * self.fitted):
            known = self.labels[p, : self.rounds] != UNASKED
            one, two = (
                self.flat[steps].reshape(len(steps), -1) for steps in self.steps[p, : self.rounds][known].swapaxes(0, 1)
            )
            answers = self.labels[p, : self.rounds][known]
            self.theta[p] = fit_logistic(two - one, answers, float(self.config["lam"][p]), self.theta[p])
            self.fitted[p] = count[p]
        return {"queries": count}

    def _make_room(self, more: int) -> None:
        room = np.zeros((len(self.keys), more, *self.steps.shape[2:]), dtype=np.int32)
        self.steps = np.concatenate([self.steps, room], axis=1)
        self.labels = np.concatenate([self.labels, np.full((len(self.keys), more), UNASKED)], axis=1)

    def state_dict(self) -> dict[str, Any]:
        """Moments, answers and the fit."""
        names = ("moments", "precision", "certainty", "theta", "fitted", "previous")
        kept: dict[str, Any] = {name: getattr(self, name).copy() for name in names}
        kept |= {name: getattr(self, name)[:, : self.rounds].copy() for name in ("steps", "labels")}
        return kept | {"rounds": self.rounds}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restores them.

        Raises:
            InputError: a state of another problem or population.
        """
        for name, value in state_dict.items():
            if name in ("steps", "labels", "rounds"):
                continue
            if np.shape(value) != getattr(self, name).shape:
                raise InputError(f"state {name} is {list(np.shape(value))}, expected {list(getattr(self, name).shape)}")
            setattr(self, name, np.copy(value))
        self.steps, self.labels = np.copy(state_dict["steps"]), np.copy(state_dict["labels"])
        self.rounds, self._planned = int(state_dict["rounds"]), None
        self._spread()
