"""Random tabular MDPs with exact soft-optimal values, and preferences made and fitted in them, all in float64."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pbrl import losses, rng

DOUBLE = torch.float64


@dataclass(frozen=True)
class Tabular:
    """An MDP with S states and A actions: transition [S, A, S'], reward [S, A], discount and temperature."""

    transition: Tensor
    reward: Tensor
    gamma: float
    alpha: float

    def values(self) -> tuple[Tensor, Tensor]:
        """The soft-optimal Q [S, A] and V [S] by value iteration, to rounding."""
        value = torch.zeros(len(self.reward), dtype=DOUBLE)
        for _ in range(2000):
            q = self.reward + self.gamma * self.transition @ value
            value = self.alpha * torch.logsumexp(q / self.alpha, dim=1)
        return self.reward + self.gamma * self.transition @ value, value

    def advantage(self) -> Tensor:
        """A* [S, A] = Q* - V*."""
        q, value = self.values()
        return q - value[:, None]


def random_mdp(key: Tensor, states: int = 8, actions: int = 3, gamma: float = 0.95, alpha: float = 0.5) -> Tabular:
    """Dirichlet(1) transitions and standard normal rewards."""
    mass = -torch.log1p(-rng.uniform(rng.fold(key, "transition"), states, actions, states, dtype=DOUBLE))
    reward = rng.normal(rng.fold(key, "reward"), states, actions, dtype=DOUBLE)
    return Tabular(mass / mass.sum(-1, keepdim=True), reward, gamma, alpha)


def segments(mdp: Tabular, count: int, length: int, key: Tensor) -> Tensor:
    """[count, S A]: how often, discounted, each state-action pair occurs in segments of uniformly random actions."""
    states, actions = mdp.reward.shape
    state = rng.indices(rng.fold(key, "state"), count, states)
    act = rng.indices(rng.fold(key, "act"), count * length, actions).reshape(length, count)
    chance = rng.uniform(rng.fold(key, "next"), length, count, dtype=DOUBLE)
    reached = mdp.transition.cumsum(-1)
    visits = torch.zeros(count, states * actions, dtype=DOUBLE)
    for t in range(length):
        visits.scatter_add_(1, (state * actions + act[t])[:, None], torch.full((count, 1), mdp.gamma**t, dtype=DOUBLE))
        state = (chance[t, :, None] > reached[state, act[t]]).sum(1).clamp(max=states - 1)
    return visits


def bernoulli_labels(difference: Tensor, key: Tensor) -> Tensor:
    """Labels 0 or 1 of a teacher who prefers the second with probability sigmoid(difference)."""
    return (rng.uniform(rng.fold(key, "label"), len(difference), dtype=DOUBLE) < difference.sigmoid()).to(DOUBLE)


def fit(mdp: Tabular, first: Tensor, second: Tensor, label: Tensor, bias: float) -> Tensor:
    """log pi [S, A] that minimises CPL's loss over policies given by logits, by L-BFGS from the uniform policy."""
    logits = torch.zeros_like(mdp.reward, requires_grad=True)
    solver = torch.optim.LBFGS([logits], max_iter=500, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        log_prob = mdp.alpha * logits.log_softmax(-1).flatten()
        value = losses.contrastive(first @ log_prob, second @ log_prob, label, bias).mean()
        value.backward()
        return value

    solver.step(loss)
    return logits.detach().log_softmax(-1)


def divergence(mdp: Tabular, log_prob: Tensor) -> float:
    """The mean over states of KL(pi* || pi)."""
    best = mdp.advantage() / mdp.alpha
    return float((best.exp() * (best - log_prob)).sum(-1).mean())
