"""Optimistic values from an estimated model: an upper bound on Q* and its greedy policy."""

from __future__ import annotations

import numpy as np

from .discounted import greedy
from .episodic import expect
from .mdps import Floats


def optimistic(law: Floats, reward: Floats, deviation: Floats) -> tuple[Floats, Floats]:
    """Upper values [P, H + 1, S] and their greedy policy [P, H, S, A].

    U_h(s) = max_a min(H - h, r + estimate U_{h+1} + (H - h - 1) deviation), counting stages from 0. It bounds V*
    wherever ``deviation`` bounds the estimated means of V*, which spans at most H - h - 1 at the next stage.

    Args:
        law: [P, H, S, A, S'] estimated transitions.
        reward: [P, H, S, A] in [0, 1].
        deviation: [P, H, S, A] per unit of span; inf where nothing is known.
    """
    size, horizon, states, _ = reward.shape
    value = np.zeros((size, horizon + 1, states))
    q = np.empty_like(reward)
    for h in reversed(range(horizon)):
        left = horizon - h - 1
        bonus = left * np.minimum(deviation[:, h], 1.0) if left else 0.0
        q[:, h] = np.minimum(reward[:, h] + expect(law[:, h], value[:, h + 1]) + bonus, reward[:, h] + left)
        value[:, h] = q[:, h].max(-1)
    return value, greedy(q)


def variance(law: Floats, value: Floats) -> Floats:
    """[P, S, A] variance of ``value`` [P, S'] under ``law`` [P, S, A, S']."""
    spread: Floats = expect(law, value * value) - expect(law, value) ** 2
    return np.maximum(spread, 0.0)


class Bernstein:
    """The confidence terms of BPI-UCBVI (Menard et al., ICML 2021), with a factor ``width`` on both bonuses.

        beta*(n) = log(3 S A H / delta) + log(8 e (n + 1)),   beta(n) = log(3 S A H / delta) + S log(8 e (n + 1))
        U = min(H, r + 3 sqrt(Var(U') beta* / n) + 14 H^2 beta / n + (1 / H) E[U' - L'] + E[U'])
        L = max(0, r - 3 sqrt(Var(U') beta* / n) - c H^2 beta / n - (c' / H) E[U' - L'] + E[L'])

    with (c, c') = (14, 1) for the optimal policy and (22, 2) for a given one. All constants are from memory of the
    papers, the last pair uncertainly so: these bounds are *practical* ones, and no claim of safety rests on them.
    Where nothing was seen, U is H and L is 0.
    """

    def __init__(self, law: Floats, reward: Floats, visits: Floats, delta: Floats, width: Floats) -> None:
        _, horizon, states, actions = reward.shape
        self.law, self.reward, self.visits, self.horizon = law, reward, visits, horizon
        level = np.log(3.0 * states * actions * horizon / delta)[:, None, None, None]
        growth = np.log(8.0 * np.e * (visits + 1.0))
        seen = np.maximum(visits, 1.0)
        self.near = width[:, None, None, None] * 3.0 * np.sqrt((level + growth) / seen)
        self.far = width[:, None, None, None] * horizon**2 * (level + states * growth) / seen

    def upper(self) -> tuple[Floats, Floats, Floats]:
        """Upper and lower values of the optimal policy, [P, H + 1, S] each, and the greedy policy of the upper ones."""
        size, horizon, states, _ = self.reward.shape
        upper, lower = np.zeros((2, size, horizon + 1, states))
        q = np.empty_like(self.reward)
        for h in reversed(range(horizon)):
            above, below = self._stage(h, upper[:, h + 1], lower[:, h + 1], 14.0, 1.0)
            q[:, h] = above
            upper[:, h], lower[:, h] = above.max(-1), below.max(-1)
        return upper, lower, greedy(q)

    def policy_lower(self, policy: Floats, upper: Floats) -> Floats:
        """[P, H + 1, S] lower values of a policy [P, H, S, A], given the upper values of the optimal one."""
        lower = np.zeros_like(upper)
        for h in reversed(range(self.reward.shape[1])):
            _, below = self._stage(h, upper[:, h + 1], lower[:, h + 1], 22.0, 2.0)
            lower[:, h] = (below * policy[:, h]).sum(-1)
        return lower

    def _stage(self, h: int, upper: Floats, lower: Floats, far: float, gap: float) -> tuple[Floats, Floats]:
        """Upper and lower Q [P, S, A] of a stage from the next stage's values."""
        law, known = self.law[:, h], self.visits[:, h] > 0
        spread = self.near[:, h] * np.sqrt(variance(law, upper))
        wide = expect(law, upper - lower) / self.horizon
        above = self.reward[:, h] + spread + 14.0 * self.far[:, h] + wide + expect(law, upper)
        below = self.reward[:, h] - spread - far * self.far[:, h] - gap * wide + expect(law, lower)
        return np.where(known, np.minimum(above, self.horizon), self.horizon), np.where(
            known, np.maximum(below, 0.0), 0.0
        )
