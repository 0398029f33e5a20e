"""Behaviour: the policies that collect data, what they did while they learned, and rolling them out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pbrl.play.vector_env import VectorEnv

Array = NDArray[Any]
Policy = Callable[[Array, np.random.Generator], Array]
"""Observations [n, O] and a generator to actions [n, A] in [-1, 1]."""

_COPIES = 20  # episodes that are rolled out side by side


@dataclass(frozen=True, eq=False)
class Transitions:
    """Rows in the order in which they were collected; every episode but the last ends with term or trunc.

    Attributes:
        obs: [N, O].
        act: [N, A] in [-1, 1].
        rew: [N].
        next_obs: [N, O] true successors, also at an episode's end.
        term: [N] bool.
        trunc: [N] bool, also where the recording of an episode was cut, for the value of next_obs counts there.
    """

    obs: Array
    act: Array
    rew: Array
    next_obs: Array
    term: Array
    trunc: Array

    def __len__(self) -> int:
        return len(self.obs)

    def head(self, rows: int) -> Transitions:
        """The first rows; where that cuts an episode, its last row is marked truncated."""
        cut = Transitions(*(getattr(self, field.name)[:rows].copy() for field in fields(self)))
        cut.trunc[-1] |= not cut.term[-1]
        return cut

    def episode_returns(self) -> Array:
        """[episodes] undiscounted sums of rewards."""
        ends = np.flatnonzero(self.term | self.trunc)
        return np.diff(np.cumsum(self.rew, dtype=np.float64)[ends], prepend=0.0)


def concatenate(parts: Sequence[Transitions]) -> Transitions:
    """The rows of all parts in order."""
    return Transitions(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Transitions)))


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A policy at one moment of its learning.

    Attributes:
        steps: environment steps learned from until then.
        score: mean return of ``sample`` over the episodes of the learning curve.
        sample: the stochastic policy, which collects data.
        greedy: its mode.
        oracle: the arrays of the store's ``oracle`` group that belong to this moment.
    """

    steps: int
    score: float
    sample: Policy
    greedy: Policy
    oracle: Mapping[str, Array]


@dataclass(frozen=True, eq=False)
class Behaviour:
    """A finished behaviour run.

    Attributes:
        snapshots: in order of learning, at least one.
        log: all transitions that were learned from, in order.
        oracle_attrs: what is stored with ``Snapshot.oracle``: ``kind`` and ``gamma``.
        about: JSON-able settings and versions of the run.
    """

    snapshots: tuple[Snapshot, ...]
    log: Transitions
    oracle_attrs: Mapping[str, Any]
    about: Mapping[str, Any]

    @property
    def expert(self) -> Snapshot:
        """The snapshot with the best score."""
        return max(self.snapshots, key=lambda snapshot: snapshot.score)

    @property
    def poor(self) -> Snapshot:
        """The snapshot with the worst score."""
        return min(self.snapshots, key=lambda snapshot: snapshot.score)

    def medium(self, random_score: float) -> Snapshot:
        """The snapshot before the expert whose score is nearest to a third of the way from random to expert."""
        expert = self.expert
        target = random_score + (expert.score - random_score) / 3.0
        earlier = [snapshot for snapshot in self.snapshots if snapshot.steps <= expert.steps]
        return min(earlier, key=lambda snapshot: abs(snapshot.score - target))


def uniform_policy(act_size: int) -> Policy:
    """Actions drawn uniformly from [-1, 1]^A."""
    return lambda obs, generator: generator.uniform(-1.0, 1.0, (len(obs), act_size))


def roll_out(env: VectorEnv, policy: Policy, rows: int, seed: Sequence[int]) -> Transitions:
    """Exactly ``rows`` rows of whole episodes, of which the last may be cut.

    Args:
        env: stepped in waves of one episode per copy. A wave is recorded whole, so that short episodes are not
            over-represented; only the last wave is cut, in the order of the copies.
        policy: what acts.
        rows: N >= 1.
        seed: numbers that all randomness (start states and actions) is derived from.

    Returns:
        Transitions with float32 numbers.
    """
    waves: list[Transitions] = []
    while sum(map(len, waves)) < rows:
        waves.append(_wave(env, policy, [*seed, len(waves)]))
    return concatenate(waves).head(rows)


def returns(env: VectorEnv, policy: Policy, episodes: int, seed: Sequence[int]) -> Array:
    """[episodes] returns of whole episodes."""
    waves = [_wave(env, policy, [*seed, number]).episode_returns() for number in range(-(-episodes // env.copies))]
    return np.concatenate(waves)[:episodes]


def _wave(env: VectorEnv, policy: Policy, seed: Sequence[int]) -> Transitions:
    """One whole episode of every copy, one after the other."""
    start, action = np.random.SeedSequence(list(seed)).spawn(2)
    generator = np.random.default_rng(action)
    obs = np.asarray(env.reset([int(number) for number in start.generate_state(env.copies)]), dtype=np.float32)
    alive = np.ones(env.copies, dtype=bool)
    steps: list[tuple[Array, ...]] = []
    while alive.any():
        act = np.clip(policy(obs, generator), -1.0, 1.0).astype(np.float32)
        next_obs, rew, term, trunc = env.step(act)
        next_obs = np.asarray(next_obs, dtype=np.float32)
        steps.append((obs, act, np.asarray(rew, dtype=np.float32), next_obs, term, trunc, alive))
        obs, alive = next_obs, alive & ~(term | trunc)
    *columns, was_alive = (np.stack(column, axis=1) for column in zip(*steps))  # [n, T, ...]
    return Transitions(*(column[was_alive] for column in columns))


def copies_for(rows: int, horizon: int) -> int:
    """How many copies make it quick to collect so many rows."""
    return max(1, min(_COPIES, -(-rows // horizon)))
