"""Learning from preferences between trajectories in a finite MDP whose rewards are never seen.

In each round a learner names two policies. Both are played for one episode from first states of their own; then the
learner may ask which of the two trajectories a person prefers, and is told label 1 with probability

    P(the second is preferred) = sigmoid(return of the second - return of the first)

and 0 otherwise. Regret counts both episodes, 2 V* - V(first) - V(second), by exact values; queries are counted.
It matters which steps belonged to one episode, so that trajectories are rolled out and not drawn as counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from .. import rng
from ..errors import InputError
from .check import Measured
from .episodic import backward_induction, from_start
from .learner import Metrics
from .mdps import EpisodicMDP, Floats, law
from .measures import RESAMPLES, resampled
from .regret import RegretTrace

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
BLOCK = 256


@dataclass(frozen=True, eq=False)
class DuelingSpec:
    """What a learner may know before it has seen or asked anything.

    Attributes:
        features: [S, A, d], in which transitions and rewards are linear at each stage.
        horizon: H.
        bound: rewards of a step are in [0, bound].
        models: [M, H, S, A, S'] finitely many transitions, one of which is the truth; None if there is no such class.
        rewards: [J, H, S, A] finitely many rewards, one of which is the truth.
        start: [S] law of the first state; state 0 if None.

    Raises:
        InputError: shapes that do not fit, a horizon or bound that is not positive, or models without rewards.
    """

    features: Floats
    horizon: int
    bound: float
    models: Floats | None = None
    rewards: Floats | None = None
    start: Floats | None = None

    def __post_init__(self) -> None:
        if self.features.ndim != 3 or not np.isfinite(self.features).all():
            raise InputError(f"features are {list(self.features.shape)}, expected finite ones [S, A, d]")
        if self.horizon < 1 or not self.bound > 0.0:
            raise InputError(f"horizon {self.horizon} and bound {self.bound}, expected both to be positive")
        if (self.models is None) != (self.rewards is None):
            raise InputError("a class of models needs both transitions and rewards, found one of the two")
        if self.models is not None and self.rewards is not None:
            if law(self.models, "models").shape[1:] != (*self.shape, self.shape[1]):
                raise InputError(f"models are {list(self.models.shape)}, expected [M, H, S, A, S]")
            if self.rewards.shape[1:] != self.shape:
                raise InputError(f"rewards are {list(self.rewards.shape)}, expected [J, H, S, A] {list(self.shape)}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """H, S and A."""
        return self.horizon, self.features.shape[0], self.features.shape[1]

    @property
    def first(self) -> Floats:
        """[S] the law of the first state."""
        return np.eye(self.shape[1])[0] if self.start is None else self.start


class Duel(NamedTuple):
    """Two deterministic policies of P members: the action in every state of every stage.

    Attributes:
        first: [P, H, S].
        second: [P, H, S].
    """

    first: Ints
    second: Ints


class Trajectories(NamedTuple):
    """One episode of each member.

    Attributes:
        states: [P, H + 1].
        actions: [P, H].
    """

    states: Ints
    actions: Ints


@runtime_checkable
class DuelingLearner(Protocol):
    """P members that learn from preferences in lock-step."""

    @property
    def keys(self) -> Ints:
        """[P] the members' keys."""
        ...

    @property
    def rounds(self) -> int:
        """How many rounds have been played."""
        ...

    def plan(self) -> Duel:
        """The two policies of the next round; the same until ``update``."""
        ...

    def asks(self, first: Trajectories, second: Trajectories) -> Bools:
        """[P] whether to ask which of these two is preferred."""
        ...

    def update(self, first: Trajectories, second: Trajectories, asked: Bools, label: Floats) -> Metrics:
        """Take in a round; ``label`` [P] is 1 where the second was preferred, and means nothing where not asked."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything that learning changes, as arrays and numbers."""
        ...

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restores it."""
        ...


class Draws:
    """Numbers that are a function of a member's key, a purpose and the round alone, drawn for many rounds at once."""

    def __init__(self, keys: Ints, purpose: str, count: int, *, normal: bool = False) -> None:
        self.keys, self.purpose, self.count, self.normal = torch.from_numpy(keys.copy()), purpose, count, normal
        self._block = lru_cache(maxsize=1)(self._draw)

    def at(self, step: int) -> Floats:
        """[P, count] of the round ``step``."""
        return self._block(step // BLOCK)[:, step % BLOCK]

    def _draw(self, block: int) -> Floats:
        draw = rng.normal if self.normal else rng.uniform
        drawn: Floats = draw(rng.fold(self.keys, self.purpose, block), BLOCK, self.count, dtype=torch.float64).numpy()
        return drawn


@dataclass(frozen=True, eq=False)
class DuelTrace:
    """What P members played and asked in N rounds.

    Attributes:
        regret: two episodes a round, each worth the mean of the two policies' values, so that regrets add up.
        asked: [N, P] whether they asked.
    """

    regret: RegretTrace
    asked: Bools

    @property
    def rounds(self) -> int:
        """N."""
        return len(self.asked)

    def final_regret(self, rounds: int | None = None) -> Floats:
        """[P] the sum of 2 V* - V(first) - V(second) over the first ``rounds``; over all if None."""
        total: Floats = self.regret.at([2 * (rounds or self.rounds)])[:, 0]
        return total

    def queries(self) -> Floats:
        """[P] how many questions were asked."""
        asked: Floats = self.asked.sum(0).astype(np.float64)
        return asked

    def slope(self, low: float, high: float, *, seed: int = 0) -> Measured:
        """Exponent at which the mean regret grows between two numbers of rounds, as ``RegretTrace.slope``."""
        return self.regret.slope(2 * low, 2 * high, seed=seed)


def exponent(scale: Floats, values: Floats, *, seed: int = 0, note: str = "") -> Measured:
    """The slope of log mean ``values`` [N, seeds] over log ``scale`` [N]; bootstrapped over the seeds of each point.

    Points need not share seeds: those of each are drawn anew.
    """
    x = np.log(scale) - np.log(scale).mean()
    draw = np.random.default_rng(seed)
    chosen = draw.multinomial(values.shape[1], np.full(values.shape[1], 1 / values.shape[1]), (RESAMPLES, len(values)))

    def rate(mean: Floats) -> Floats:
        slope: Floats = (np.log(np.maximum(mean, 1e-300)) * x).sum(-1) / (x * x).sum()
        return slope

    means = (chosen * values).sum(-1) / values.shape[1]
    return resampled(float(rate(values.mean(1))), rate(means), note)


def duel(learner: DuelingLearner, mdp: EpisodicMDP, rounds: int) -> DuelTrace:
    """Let P members play ``rounds`` rounds in an MDP and ask for preferences in it.

    A learner that has already played goes on from there.

    Raises:
        InputError: no rounds, or an MDP with another number of members.
    """
    size, (horizon, states, _) = len(learner.keys), mdp.shape
    if rounds < 1:
        raise InputError(f"{rounds} rounds, expected at least 1")
    if mdp.reward.ndim == 4 and len(mdp.reward) != size:
        raise InputError(f"{mdp.name} holds {len(mdp.reward)} MDPs for {size} members, expected 1 or as many")
    optimum = np.broadcast_to(from_start(mdp, backward_induction(mdp).value), (size,))
    draws = Draws(learner.keys, "rounds", 2 * (horizon + 1) + 1)
    transition = np.broadcast_to(mdp.transition, (size, *mdp.transition.shape[-4:]))
    reached = transition.cumsum(-1)
    reward = np.broadcast_to(mdp.reward, (size, *mdp.shape))
    start = np.broadcast_to(mdp.first, (size, states))
    value, asked = np.empty((rounds, size)), np.empty((rounds, size), dtype=np.bool_)
    for n in range(rounds):
        chance = draws.at(learner.rounds)
        policies = learner.plan()
        one, two = (
            _roll_out(reached, start, policy, chance[:, i * (horizon + 1) : (i + 1) * (horizon + 1)])
            for i, policy in enumerate(policies)
        )
        value[n] = sum(_values(transition, reward, start, policy) for policy in policies) / 2.0
        asked[n] = learner.asks(one, two)
        gap = returns(reward, two) - returns(reward, one)
        label = (chance[:, -1] * (1.0 + np.exp(-gap)) < 1.0).astype(np.float64)
        learner.update(one, two, asked[n], label)
    counts = np.full(rounds, 2, dtype=np.int64)
    none = np.full_like(value, np.inf)
    return DuelTrace(RegretTrace(counts, value, -none, none, optimum), asked)


def returns(reward: Floats, seen: Trajectories) -> Floats:
    """[P] the sums of ``reward`` [P, H, S, A] along trajectories."""
    member = np.arange(len(seen.actions))
    steps = [reward[member, h, seen.states[:, h], seen.actions[:, h]] for h in range(seen.actions.shape[1])]
    total: Floats = np.sum(steps, axis=0)
    return total


def _roll_out(reached: Floats, start: Floats, policy: Ints, chance: Floats) -> Trajectories:
    """One episode of each member, by inverse distribution functions of the uniform ``chance`` [P, H + 1]."""
    size, horizon, last = len(policy), policy.shape[1], reached.shape[-1] - 1
    member = np.arange(size)
    states, actions = np.empty((size, horizon + 1), dtype=np.int64), np.empty((size, horizon), dtype=np.int64)
    states[:, 0] = np.minimum((chance[:, :1] >= start.cumsum(-1)).sum(-1), last)
    for h in range(horizon):
        here = states[:, h]
        actions[:, h] = policy[member, h, here]
        law_of_next = reached[member, h, here, actions[:, h]]
        states[:, h + 1] = np.minimum((chance[:, h + 1, None] >= law_of_next).sum(-1), last)
    return Trajectories(states, actions)


def _values(transition: Floats, reward: Floats, start: Floats, policy: Ints) -> Floats:
    """[P] exact values of deterministic policies [P, H, S]."""
    size, horizon, states = policy.shape
    member, state = np.arange(size)[:, None], np.arange(states)[None]
    value = np.zeros((size, states))
    for h in reversed(range(horizon)):
        act = policy[:, h]
        value = reward[member, h, state, act] + (transition[member, h, state, act] @ value[..., None])[..., 0]
    total: Floats = (value * start).sum(-1)
    return total
