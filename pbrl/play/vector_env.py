"""What a vector environment must be able to do. Protocols: ``envs`` has some, and anyone may bring another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ..spec import Spec

Flags = NDArray[np.bool_]


class VectorEnv(Protocol):
    """n copies of an environment stepped together. There is no auto-reset: a finished copy is frozen, with reward 0."""

    @property
    def copies(self) -> int:
        """n, how many."""

    @property
    def spec(self) -> Spec:
        """Sizes and horizon of one copy."""

    def reset(self, seeds: Sequence[int]) -> NDArray[Any]:
        """A new episode in every copy, each from its own seed: [n, O]."""

    def step(self, act: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], Flags, Flags]:
        """Actions [n, A] in [-1, 1] to obs [n, O], rew [n], term [n], trunc [n]."""

    def close(self) -> None:
        """Free the simulators."""


@runtime_checkable
class RestartableEnv(VectorEnv, Protocol):
    """A vector environment whose copies can begin new episodes one by one, as learning online needs it."""

    def restart(self, chosen: Flags, seeds: Sequence[int]) -> NDArray[Any]:
        """A new episode in the ``chosen`` [n] copies, one seed for each of them in order; obs [n, O] of all copies.

        A chosen copy is as if ``reset`` with that seed; the others go on undisturbed.
        """


def played_again(
    env: RestartableEnv, seeds: NDArray[np.int64], running: NDArray[np.int64], acts: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Begin the episodes of ``seeds`` [n] and repeat what was done in them: obs [n, O] of where they were.

    Args:
        running: [n] steps of each copy's episode so far.
        acts: [T, n, A] of the last T = max(running) steps, so that all copies arrive together. What stands before a
            copy's beginning does not matter.
    """
    obs = np.asarray(env.reset(seeds.tolist()))
    for time in range(len(acts) + 1):
        late = (running == len(acts) - time) & (time > 0)
        if late.any():
            obs = env.restart(late, seeds[late].tolist())
        if time < len(acts):
            obs = env.step(acts[time])[0]
    return obs
