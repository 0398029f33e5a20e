"""PR-TS: posterior sampling from preferences, asked for where samples disagree (Wu & Sun, ICLR 2024).

Over finitely many transitions and rewards, with a uniform prior, each round of the algorithm is

    (P, r) ~ the posterior given all transitions and answers
    first policy: optimal in (P, r); second: the first policy of the round before
    ask if E |r(first) - r(second) - (r'(first) - r'(second))| > epsilon, with r and r' from the posterior

where r(trajectory) sums the rewards of its steps. Both posteriors are exact, as the classes can be gone through one by
one, and so are the optimal policies and the expectation. The regret that its theory bounds is the mean over truths that
are drawn from the prior.

Deviations:
- The paper has general classes of functions; these are finite, and the two posteriors independent.
- ``temperature`` and ``random_queries`` are not in the paper: they make the controls that do not sample and that ask at
  random.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pbrl.errors import InputError
from pbrl.members import Members, check_range
from pbrl.theory.dueling import Bools, Draws, Duel, DuelingSpec, Ints, Trajectories
from pbrl.theory.episodic import backward_induction
from pbrl.theory.learner import Metrics
from pbrl.theory.mdps import EpisodicMDP, Floats
from pbrl.theory.model import column


@dataclass(frozen=True)
class PRTSConfig:
    """Settings of PR-TS."""

    epsilon: float = 0.5
    """It asks where the expected disagreement of two sampled rewards is larger than this, in units of the return."""
    temperature: float = 1.0
    """Of the posterior that is sampled, the power 1 / temperature of the true one; 0 takes the likeliest."""
    random_queries: float = 0.0
    """Share of rounds that ask at random instead of by the rule; 0: by the rule."""

    def __post_init__(self) -> None:
        check_range(self, "epsilon", 0.0)
        check_range(self, "temperature", 0.0)
        check_range(self, "random_queries", 0.0, 1.0)


class PRTS:
    """Stacked PR-TS."""

    def __init__(self, spec: DuelingSpec, members: Members[PRTSConfig]) -> None:
        if spec.models is None or spec.rewards is None:
            raise InputError("pr_ts samples from a finite class, expected a problem with models and rewards")
        self.spec, self.rewards = spec, spec.rewards
        self.keys: Ints = members.keys.cpu().numpy()
        with np.errstate(divide="ignore"):
            self.log_models = np.log(spec.models)
        names = ("epsilon", "temperature", "random_queries")
        self.config = {name: column(members, name) for name in names}
        size, (horizon, states, _) = len(members), spec.shape
        self.of_model, self.of_reward = np.zeros((size, len(spec.models))), np.zeros((size, len(spec.rewards)))
        self.previous = np.zeros((size, horizon, states), dtype=np.int64)
        self.rounds = 0
        self.draws, self.coins = Draws(self.keys, "samples", 2), Draws(self.keys, "questions", 1)
        self.policies = self._solved(spec.models)
        self._planned: Ints | None = None

    def _solved(self, models: Floats) -> Ints:
        """[M, J, H, S] the optimal actions of every pair of transitions and reward."""
        shape = (len(models), len(self.rewards), *self.spec.shape)
        reward = np.broadcast_to(self.rewards[None], shape).reshape(-1, *self.spec.shape)
        both = EpisodicMDP(np.repeat(models, len(self.rewards), 0), reward)
        policy: Ints = backward_induction(both).q.argmax(-1)
        return policy.reshape(*shape[:-1])

    def plan(self) -> Duel:
        """The optimal policy of a sample, and the one of the round before."""
        if self._planned is None:
            chance = self.draws.at(self.rounds)
            model, reward = (self._sample(log, chance[:, i]) for i, log in enumerate((self.of_model, self.of_reward)))
            self._planned = self.policies[model, reward]
        return Duel(self._planned, self.previous)

    def _sample(self, log: Floats, chance: Floats) -> Ints:
        """[P] indices of the tempered posterior, from the uniform ``chance`` [P]."""
        heat = self.config["temperature"]
        weight = posterior(log / np.where(heat > 0.0, heat, 1.0)[:, None])
        drawn = (chance[:, None] >= weight.cumsum(-1)).sum(-1)
        found: Ints = np.where(heat > 0.0, np.minimum(drawn, log.shape[-1] - 1), log.argmax(-1))
        return found

    def _gaps(self, first: Trajectories, second: Trajectories) -> Floats:
        """[P, J] return of the second minus the first, by every reward."""
        stage = np.arange(self.spec.horizon)[None]
        one, two = (self.rewards[:, stage, seen.states[:, :-1], seen.actions].sum(-1).T for seen in (first, second))
        gap: Floats = two - one
        return gap

    def asks(self, first: Trajectories, second: Trajectories) -> Bools:
        """Where two sampled rewards would disagree by more than epsilon about the two, or at random."""
        gap, weight = self._gaps(first, second), posterior(self.of_reward)
        apart = np.abs(gap[:, :, None] - gap[:, None, :]) * weight[:, :, None] * weight[:, None, :]
        doubts = apart.sum((1, 2)) > self.config["epsilon"]
        share = self.config["random_queries"]
        return np.where(share > 0.0, self.coins.at(self.rounds)[:, 0] < share, doubts)

    def update(self, first: Trajectories, second: Trajectories, asked: Bools, label: Floats) -> Metrics:
        """Multiply the likelihoods of all transitions, and of the answer where one was asked for."""
        self.previous = self.plan().first
        self._planned = None
        stage = np.arange(self.spec.horizon)[None]
        for seen in (first, second):
            steps = self.log_models[:, stage, seen.states[:, :-1], seen.actions, seen.states[:, 1:]]
            self.of_model += steps.sum(-1).T
        sign = (2.0 * label - 1.0)[:, None]
        answer = -np.logaddexp(0.0, -sign * self._gaps(first, second))
        self.of_reward += np.where(asked[:, None], answer, 0.0)
        self.rounds += 1
        return {
            "model_certainty": posterior(self.of_model).max(-1),
            "reward_certainty": posterior(self.of_reward).max(-1),
        }

    def state_dict(self) -> dict[str, Any]:
        """The log likelihoods and the last policy."""
        names = ("of_model", "of_reward", "previous")
        return {name: getattr(self, name).copy() for name in names} | {"rounds": self.rounds}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restores them.

        Raises:
            InputError: a state of another problem or population.
        """
        for name in ("of_model", "of_reward", "previous"):
            if np.shape(state_dict[name]) != getattr(self, name).shape:
                raise InputError(
                    f"state {name} is {list(np.shape(state_dict[name]))}, expected {list(getattr(self, name).shape)}"
                )
            setattr(self, name, np.copy(state_dict[name]))
        self.rounds, self._planned = int(state_dict["rounds"]), None


def posterior(log: Floats) -> Floats:
    """[P, N] probabilities of log likelihoods, under a uniform prior."""
    weight = np.exp(log - log.max(-1, keepdims=True))
    normal: Floats = weight / weight.sum(-1, keepdims=True)
    return normal
