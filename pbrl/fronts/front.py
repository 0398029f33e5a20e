"""Fronts measured anew: the policies of an archive, played again on episodes that nobody chose them by.

Points in an archive are what each policy happened to return when it was taken in, and the best of many noisy numbers is
too good. Here policies play the evaluation's own episodes, greedily, and only these returns count.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .. import pareto
from ..evaluation import EVALUATION_SEED, Agent, rollout
from ..play.vector_env import VectorEnv
from .archive import Archive, crowding

Floats = NDArray[np.float64]

COPIES = 256
"""About how many copies of the simulator play at once."""
GRID = 5_000
"""At most so many weights make up an expected utility."""


@runtime_checkable
class Weighing(Protocol):
    """An agent for several objectives that learns, or acts, by preference weights."""

    @property
    def weights(self) -> Tensor:
        """[P, K] the weights."""
        ...


@runtime_checkable
class Frontier(Weighing, Protocol):
    """An agent that holds many policies, and serves the best of them for any preference weights."""

    @property
    def archive(self) -> Archive:
        """The policies and their returns."""
        ...

    def serve(self, weights: Tensor) -> None:
        """Act from now on by the best policy for preference weights [K] or [P, K]."""
        ...

    def policies(self, rows: Tensor) -> Agent:
        """Those in rows [P, N] of the archive, as one stack of N P: row n of member p is place n P + p."""
        ...


@dataclass(frozen=True, eq=False)
class Front:
    """What the policies of P archives return.

    Attributes:
        rows: one [N] per member: which rows of its archive were played.
        points: one [N, K] per member: their mean returns; NaN for a policy that diverged.
        gamma: discount of the returns.
    """

    rows: tuple[NDArray[np.int64], ...]
    points: tuple[Floats, ...]
    gamma: float


def chosen(archive: Archive, most: int | None) -> Tensor:
    """[P, N] rows to play: all that hold a policy, or the ``most`` of largest crowding distance (extremes first).

    Members with fewer than N repeat theirs.
    """
    used = archive.used
    rank = torch.where(used, crowding(archive.points, used), -math.inf)
    order = rank.argsort(dim=1, descending=True, stable=True)
    held = used.sum(1)
    count = int(held.max()) if most is None else min(most, int(held.max()))
    turn = torch.arange(count, device=order.device) % held.clamp_min(1)[:, None]
    return order.gather(1, turn)


def play_front(
    agent: Frontier,
    make_env: Callable[[int], VectorEnv],
    *,
    episodes: int,
    most: int | None = None,
    gamma: float = 1.0,
    together: int = 10,
    seed: int = EVALUATION_SEED,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Front:
    """Play the same ``episodes`` with the policies of every archive, greedily.

    Args:
        make_env: the number of copies -> a vector environment.
        most: how many policies of an archive at most (see ``chosen``); None plays all.
        gamma: discount of the returns.
        together: how many episodes of a policy are played at once.

    Raises:
        InputError: as ``rollout``.
    """
    rows, held = chosen(agent.archive, most), agent.archive.used.sum(1)
    members, count = rows.shape
    together = max(1, min(together, episodes))
    step = max(1, COPIES // (members * together))
    found = []
    for part in rows.split(step, dim=1) if count else ():
        many = part.shape[1]
        env = make_env(members * many * together)
        try:
            scores = rollout(
                agent.policies(part).act,
                env,
                members=many * members,
                episodes=episodes,
                seed=seed,
                gamma=gamma,
                device=device,
                dtype=dtype,
            )
        finally:
            env.close()
        found.append(scores.mean.reshape(many, members, -1))
    objectives = agent.archive.points.shape[-1]
    means = np.concatenate(found) if found else np.zeros((0, members, objectives))
    sizes = [min(int(number), count) for number in held]
    return Front(
        tuple(rows[p, :size].cpu().numpy() for p, size in enumerate(sizes)),
        tuple(means[:size, p] for p, size in enumerate(sizes)),
        gamma,
    )


def weight_steps(objectives: int) -> int:
    """Steps of the grid of preference weights for an expected utility: 100, or as many as make at most ``GRID``."""
    return next(n for n in range(100, 0, -1) if n == 1 or math.comb(n + objectives - 1, objectives - 1) <= GRID)


def qualities(front: Front, reference: tuple[float, ...] | None) -> Mapping[str, list[float]]:
    """What each member's front is worth, by the names under which a run records it; see ``pbrl.pareto``.

    A front of which no point dominates the reference has hypervolume 0. Without a reference there is none; without
    policies there is only their number.
    """
    found: dict[str, list[float]] = {name: [] for name in ("hypervolume", "expected_utility", "sparsity", "points")}
    if reference is None:
        del found["hypervolume"]
    for points in front.points:
        finite = points[np.isfinite(points).all(1)]
        best = finite[pareto.non_dominated(finite)] if len(finite) else finite
        values = {"points": float(len(best)), "sparsity": math.nan, "expected_utility": math.nan}
        values["hypervolume"] = 0.0
        if len(best):
            grid = pareto.simplex_grid(best.shape[1], weight_steps(best.shape[1]))
            values["sparsity"] = pareto.sparsity(best)
            values["expected_utility"] = pareto.expected_utility(best, grid)
            values["hypervolume"] = 0.0 if reference is None else pareto.hypervolume(best, reference)
        for name, column in found.items():
            column.append(values[name])
    return {f"front_{name}" if name == "points" else name: column for name, column in found.items()}
