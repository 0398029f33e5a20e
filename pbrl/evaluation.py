"""Roll-outs of P members in one vector environment, on the same episodes for every member."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from . import rng
from .errors import InputError
from .play.memory import Memory, Remembering
from .play.vector_env import Flags, VectorEnv

Floats = NDArray[np.float64]

EVALUATION_SEED = 1_000_000
"""Seed of the first evaluation episode, far from the seeds that people train with."""


class Act(Protocol):
    """An agent's way to act."""

    def __call__(self, obs: Tensor, key: Tensor | None = None) -> Tensor:
        """[P, B, O] -> [P, B, A] in [-1, 1]; greedy without keys, drawn with keys [P]."""


@runtime_checkable
class Agent(Protocol):
    """What ``rollout`` needs of an agent; one that remembers the episode (``Remembering``) is told its course."""

    def act(self, obs: Tensor, key: Tensor | None = None) -> Tensor:
        """See ``Act``."""


@dataclass(frozen=True, eq=False)
class Scores:
    """What P members scored.

    Attributes:
        returns: [P, episodes], or [P, episodes, K] where there are K > 1 objectives; NaN for a member that diverged.
        lengths: [P, episodes] steps until the end; a diverged member's count what it lived through.
        diverged: [P] bool, the member gave an action that is not a number.
    """

    returns: Floats
    lengths: NDArray[np.int64]
    diverged: Flags

    @property
    def mean(self) -> Floats:
        """[P] mean return over the episodes, or [P, K]."""
        return np.asarray(self.returns.mean(axis=1))


@dataclass
class _Player:
    """How an agent that remembers acts in one wave of episodes: it begins with an empty memory."""

    agent: Remembering
    memory: Memory

    def __call__(self, obs: Tensor, key: Tensor | None = None) -> Tensor:
        act, self.memory = self.agent.act_with(self.memory, obs, key)
        return act


def _begun(agent: Act | Agent | Remembering, copies: int) -> Act:
    """How the agent acts in a wave of ``copies`` episodes of each member."""
    if isinstance(agent, Remembering):
        return _Player(agent, agent.empty_memory(copies))
    return agent.act if isinstance(agent, Agent) else agent


def rollout(
    act: Act | Agent | Remembering,
    env: VectorEnv,
    *,
    members: int,
    episodes: int,
    seed: int = EVALUATION_SEED,
    gamma: float = 1.0,
    stochastic_keys: Tensor | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Scores:
    """Play the same ``episodes`` with every member: episode i starts from the environment's seed ``seed + i``.

    With k = env.copies / members copies per member, waves of k episodes are played at once. A member's greedy scores do
    not depend on k or on the other members; its stochastic ones depend on k (actions are drawn per wave and step).

    Args:
        act: an agent, or a function like its method ``act`` (which forgets the episode where the agent remembers it).
        gamma: discount per step of the returns, none by default.
        stochastic_keys: [P] keys to draw actions with; None plays greedily.
        device: where the agent is.
        dtype: of the observations that the agent gets.

    Raises:
        InputError: copies that are no multiple of the members, no episodes, no time limit, or actions of another shape.
    """
    per_member, left_over = divmod(env.copies, members) if members > 0 else (0, 0)
    if per_member < 1 or left_over:
        raise InputError(f"evaluation has {env.copies} environment copies for {members} members, expected a multiple")
    if episodes < 1 or env.spec.horizon is None:
        found = f"{episodes} episodes and time limit {env.spec.horizon}"
        raise InputError(f"evaluation of {env.spec.name} has {found}, expected at least 1 and a limit")
    diverged = np.zeros(members, dtype=bool)
    waves = []
    for wave, first in enumerate(range(0, episodes, per_member)):
        seeds = range(seed + first, seed + first + per_member)
        key = None if stochastic_keys is None else rng.fold(stochastic_keys, "evaluation", wave)
        wanted = min(per_member, episodes - first)
        waves.append(_wave(act, env, seeds, wanted, diverged, gamma, key, device, dtype))
    returns, lengths = (np.concatenate(parts, axis=1) for parts in zip(*waves))
    returns[diverged] = np.nan
    return Scores(returns, lengths, diverged)


def _wave(
    act: Act | Agent | Remembering,
    env: VectorEnv,
    seeds: Sequence[int],
    wanted: int,
    diverged: Flags,
    gamma: float,
    key: Tensor | None,
    device: torch.device | str,
    dtype: torch.dtype,
) -> tuple[Floats, NDArray[np.int64]]:
    """The first ``wanted`` of the episodes ``seeds`` [k] of every member: returns [P, wanted, ...] and lengths.

    Marks members in ``diverged`` [P].
    """
    assert env.spec.horizon is not None  # checked by the caller
    shape = (len(diverged), len(seeds))
    obs = env.reset(list(seeds) * len(diverged))
    play = _begun(act, len(seeds))
    alive = np.ones(shape, dtype=bool)
    alive[:, wanted:] = False
    objectives = () if env.spec.objectives == 1 else (env.spec.objectives,)
    returns, lengths = np.zeros((*shape, *objectives)), np.zeros(shape, dtype=np.int64)
    for step in range(env.spec.horizon):
        alive &= ~diverged[:, None]
        if not alive.any():
            break
        seen = torch.as_tensor(obs, dtype=dtype, device=device).reshape(*shape, -1)
        with torch.inference_mode():
            given = play(seen, None if key is None else rng.fold(key, step))
        if given.shape != (*shape, env.spec.act_size):
            found, expected = list(given.shape), [*shape, env.spec.act_size]
            raise InputError(f"the agent's actions in {env.spec.name} have shape {found}, expected {expected}")
        chosen = given.to("cpu", torch.float64).numpy()
        wrong = ~np.isfinite(chosen).all(axis=-1)
        diverged |= (wrong & alive).any(axis=1)
        chosen = np.where(wrong[..., None], 0.0, chosen).reshape(env.copies, -1)
        obs, rew, term, trunc = env.step(chosen)
        gained = np.reshape(rew, returns.shape)
        returns += gamma**step * np.where(alive.reshape(*shape, *(1,) * len(objectives)), gained, 0.0)
        lengths += alive
        alive &= ~(term | trunc).reshape(shape)
    return returns[:, :wanted], lengths[:, :wanted]


def evaluate(
    agent: Agent,
    make_env: Callable[[int], VectorEnv],
    *,
    members: int,
    episodes: int,
    together: int = 10,
    seed: int = EVALUATION_SEED,
    gamma: float = 1.0,
    stochastic_keys: Tensor | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Scores:
    """``rollout`` in an environment made for it, and closed after it.

    Args:
        make_env: the number of copies -> a vector environment.
        together: k, how many episodes of each member are played at once, at most ``episodes``.
        gamma: discount per step of the returns, none by default.

    Raises:
        InputError: as ``rollout``.
    """
    env = make_env(members * max(1, min(together, episodes)))
    try:
        return rollout(
            agent,
            env,
            members=members,
            episodes=episodes,
            seed=seed,
            gamma=gamma,
            stochastic_keys=stochastic_keys,
            device=device,
            dtype=dtype,
        )
    finally:
        env.close()
