"""UCBVI that plans before every episode, compiled: for short runs in which each trajectory's consequences matter.

One episode changes the estimate of H pairs only, so counts and frequencies are kept up to date in place; what is left
is one backward induction per episode. ``compiled=False`` does the same operations in the same order in numpy, for all
members at once, and gives the same numbers to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .. import rng
from ..errors import InputError
from .episodic import backward_induction, from_start
from .mdps import EpisodicMDP, Floats
from .regret import RegretTrace

BLOCK = 1024
"""Episodes whose random numbers are drawn at once."""


def ucbvi_every_episode(
    mdp: EpisodicMDP,
    episodes: int,
    keys: NDArray[np.int64],
    delta: Floats,
    width: Floats,
    *,
    compiled: bool = True,
) -> RegretTrace:
    """The regret of P members of UCBVI (``agents/tabular/ucbvi.py``) that plan before each of their episodes.

    Args:
        mdp: one problem, without a population axis, with rewards in [0, 1].
        episodes: how many.
        keys: [P].
        delta: [P] probability that a confidence bound fails.
        width: [P] factor on the bonus.
        compiled: by numba, which takes some seconds the first time.

    Raises:
        InputError: a population of problems, or no episodes.
    """
    if mdp.reward.ndim != 3 or episodes < 1:
        raise InputError(f"{mdp.name} for {episodes} episodes, expected one MDP and at least 1 episode")
    size, (horizon, states, actions) = len(keys), mdp.shape
    pairs = states * actions
    reward = mdp.reward.reshape(horizon, pairs)
    reached = mdp.transition.reshape(horizon, pairs, states).cumsum(-1)
    reached[..., -1] = 1.0
    # Next states before pairs, so that a backup adds rows of all pairs: no sum is reordered, and rows are contiguous.
    transposed = np.ascontiguousarray(mdp.transition.reshape(horizon, pairs, states).swapaxes(1, 2))
    first = mdp.first.cumsum()
    first[-1] = 1.0
    level = np.log(2.0 * states * actions * horizon / delta)
    seen = np.zeros((size, horizon, pairs))
    moves = np.zeros((size, horizon, pairs, states))
    estimate = np.full((size, horizon, states, pairs), 1.0 / states)
    left = np.arange(horizon - 1, -1, -1, dtype=np.float64)
    bonus = np.broadcast_to(np.where(width > 0, 1.0, 0.0)[:, None, None] * left[:, None], seen.shape).copy()
    value, upper = np.zeros((2, episodes, size))
    run = _compiled() if compiled else _plain
    folded = rng.fold(torch.from_numpy(keys.copy()), "every episode")
    for start in range(0, episodes, BLOCK):
        block = slice(start, min(start + BLOCK, episodes))
        steps = torch.arange(block.start, block.stop).expand(size, -1)
        each = rng.fold(folded[:, None].expand(-1, steps.shape[1]), steps)
        chance = rng.uniform(each, horizon + 1, dtype=torch.float64).numpy()  # [P, block, H + 1]
        run(
            chance, reward, transposed, reached, first, mdp.first, level, width, seen, moves, estimate, bonus,
            value[block], upper[block], actions,
        )  # fmt: skip
    optimum = np.broadcast_to(from_start(mdp, backward_induction(mdp).value), (size,))
    nothing = np.full_like(value, -np.inf)
    return RegretTrace(np.ones(episodes, dtype=np.int64), value, nothing, upper, optimum)


@cache
def _compiled() -> Callable[..., None]:
    import numba

    compiled: Callable[..., None] = numba.njit(cache=True)(_loops)
    return compiled


def _loops(
    chance: Any, reward: Any, transposed: Any, reached: Any, first: Any, start: Any, level: Any, width: Any,
    seen: Any, moves: Any, estimate: Any, bonus: Any, value: Any, upper: Any, actions: int,
) -> None:  # fmt: skip
    """The episodes of a block, member by member; the shapes are those of ``_plain``."""
    size, episodes, _ = chance.shape
    horizon, pairs = reward.shape
    states = pairs // actions
    ahead, q, chosen = np.zeros(states), np.zeros(pairs), np.zeros((horizon, states), np.int64)
    exact = np.zeros((horizon + 1, states))
    for p in range(size):
        chosen[:] = -1
        for k in range(episodes):
            ahead[:] = 0.0
            changed = False  # whether the policy has, from this stage on: else its value is the last episode's
            for h in range(horizon - 1, -1, -1):
                for i in range(pairs):
                    q[i] = reward[h, i] + bonus[p, h, i]
                if h < horizon - 1:
                    for to in range(states):
                        row, factor = estimate[p, h, to], ahead[to]
                        for i in range(pairs):
                            q[i] += row[i] * factor
                most = horizon - h - 1.0
                for s in range(states):
                    best, pick = -1.0, 0
                    for a in range(actions):
                        i = s * actions + a
                        capped = min(q[i], reward[h, i] + most)
                        if capped > best:
                            best, pick = capped, a
                    changed |= pick != chosen[h, s]
                    chosen[h, s] = pick
                    ahead[s] = best
                if changed:
                    for s in range(states):
                        exact[h, s] = reward[h, s * actions + chosen[h, s]]
                    for to in range(states):
                        row, factor = transposed[h, to], exact[h + 1, to]
                        for s in range(states):
                            exact[h, s] += row[s * actions + chosen[h, s]] * factor
            total, above = 0.0, 0.0
            for s in range(states):
                total += start[s] * exact[0, s]
                above += start[s] * ahead[s]
            value[k, p], upper[k, p] = total, above
            state = 0
            while first[state] <= chance[p, k, 0]:
                state += 1
            for h in range(horizon):
                pair = state * actions + chosen[h, state]
                to = 0
                while reached[h, pair, to] <= chance[p, k, h + 1]:
                    to += 1
                seen[p, h, pair] += 1.0
                moves[p, h, pair, to] += 1.0
                n = seen[p, h, pair]
                for i in range(states):
                    estimate[p, h, i, pair] = moves[p, h, pair, i] / n
                deviation = width[p] * np.sqrt((level[p] + np.log(np.e * (1.0 + n))) / (2.0 * n))
                bonus[p, h, pair] = (horizon - h - 1.0) * min(deviation, 1.0)
                state = to


def _plain(
    chance: Floats,  # [P, K, H + 1]
    reward: Floats,  # [H, S A]
    transposed: Floats,  # [H, S', S A]
    reached: Floats,  # [H, S A, S'] cumulative
    first: Floats,  # [S] cumulative
    start: Floats,  # [S]
    level: Floats,  # [P]
    width: Floats,  # [P]
    seen: Floats,  # [P, H, S A]
    moves: Floats,  # [P, H, S A, S']
    estimate: Floats,  # [P, H, S', S A]
    bonus: Floats,  # [P, H, S A]
    value: Floats,  # [K, P]
    upper: Floats,  # [K, P]
    actions: int,
) -> None:
    """The episodes of a block, all members at once; the last eight arrays are changed."""
    size, episodes, _ = chance.shape
    horizon, pairs = reward.shape
    states, who = pairs // actions, np.arange(len(chance))
    base = np.arange(states) * actions
    for k in range(episodes):
        ahead, exact = np.zeros((2, size, states))
        chosen = np.zeros((size, horizon, states), dtype=np.int64)
        for h in reversed(range(horizon)):
            q = reward[h] + bonus[:, h]
            for to in range(states):
                q = q + estimate[:, h, to] * ahead[:, to, None]
            capped = np.minimum(q, reward[h] + (horizon - h - 1.0)).reshape(size, states, actions)
            chosen[:, h] = capped.argmax(-1)
            ahead = capped.max(-1)
            pair = base + chosen[:, h]
            now = reward[h][pair]
            for to in range(states):
                now = now + transposed[h, to][pair] * exact[:, to, None]
            exact = now
        value[k], upper[k] = exact @ start, ahead @ start
        state = (first <= chance[:, k, :1]).sum(-1)
        for h in range(horizon):
            visited = state * actions + chosen[who, h, state]
            to_state = (reached[h, visited] <= chance[:, k, h + 1, None]).sum(-1)
            seen[who, h, visited] += 1.0
            moves[who, h, visited, to_state] += 1.0
            n = seen[who, h, visited]
            estimate[who, h, :, visited] = moves[who, h, visited] / n[:, None]
            deviation = width * np.sqrt((level + np.log(np.e * (1.0 + n))) / (2.0 * n))
            bonus[who, h, visited] = (horizon - h - 1.0) * np.minimum(deviation, 1.0)
            state = to_state
