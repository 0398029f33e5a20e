"""Named problems for tabular agents: an episodic MDP, and a baseline with a threshold for those that must be safe."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pbrl.errors import InputError
from pbrl.theory.baselines import boltzmann
from pbrl.theory.dueling import DuelingSpec
from pbrl.theory.episodes import generator, sample_counts
from pbrl.theory.episodic import backward_induction, from_start, policy_value
from pbrl.theory.instances import combination_lock, deep_sea, dirichlet_episodic, episodes_of, hard_family, river_swim
from pbrl.theory.learner import TabularSpec
from pbrl.theory.linear import one_hot
from pbrl.theory.mdps import EpisodicMDP, Floats

INSTANCES: dict[str, tuple[str, Callable[[int, int], EpisodicMDP]]] = {
    "safe": (
        "random MDP with few rewards, S5 A3 H4, on which exploring is dear",
        lambda seed, _: dirichlet_episodic(5, 3, 4, seed=seed, rewarding=0.3),
    ),
    "dirichlet": (
        "random MDP, S6 A4 H5, rewards everywhere",
        lambda seed, _: dirichlet_episodic(6, 4, 5, seed=seed),
    ),
    "large": (
        "random MDP, S25 A4 H10",
        lambda seed, _: dirichlet_episodic(25, 4, 10, seed=seed),
    ),
    "river_swim": ("6 states, 20 steps against the current", lambda *_: episodes_of(river_swim(6), 20)),
    "deep_sea": ("6 x 6, one treasure", lambda *_: deep_sea(6)),
    "lock": ("combination lock of 5 stages, 3 actions", lambda seed, _: combination_lock(5, 3, seed=seed)),
    "hard": (
        "gap ~ sqrt(SA / K): the worst instance for this number of episodes",
        lambda seed, episodes: hard_family(episodes, seed=seed),
    ),
}
"""Name -> (what it is, (seed, episodes) -> MDP)."""


@dataclass(frozen=True, eq=False)
class Study:
    """A problem and what makes a learner safe in it.

    Attributes:
        mdp: the truth.
        spec: what learners may know.
        optimum: V*.
        baseline: value of the baseline.
        threshold: what every episode must be worth.
    """

    mdp: EpisodicMDP
    spec: TabularSpec
    optimum: float
    baseline: float
    threshold: float


def make(
    name: str,
    *,
    episodes: int,
    seed: int = 2,
    sharpness: float = 5.0,
    share: float = 0.9,
    offline: int = 0,
) -> Study:
    """The study of that name.

    Args:
        name: one of ``INSTANCES``.
        episodes: for how long it will be played.
        seed: of the instance.
        sharpness: of the baseline, the policy proportional to exp(sharpness Q*).
        share: the threshold, as a share of the baseline's value.
        offline: episodes that the baseline has played before, shown to learners as counts.

    Raises:
        InputError: an unknown name.
    """
    if name not in INSTANCES:
        near = difflib.get_close_matches(name, INSTANCES, 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise InputError(f"unknown study {name!r}{hint}, expected one of {', '.join(INSTANCES)}")
    mdp = INSTANCES[name][1](seed, episodes)
    policy = boltzmann(mdp, sharpness)
    optimum, baseline = (
        float(from_start(mdp, value)) for value in (backward_induction(mdp).value, policy_value(mdp, policy))
    )
    seen = recorded(mdp, policy, offline, seed) if offline else None
    spec = TabularSpec.of(mdp, policy, share * baseline, seen)
    return Study(mdp, spec, optimum, baseline, share * baseline)


def dueling_spec(study: Study, others: int = 15) -> DuelingSpec:
    """What learners from preferences may know: that the truth is one of ``others`` + 1 transitions and rewards.

    The other transitions are Dirichlet, the other rewards the true ones in another order; features are one-hot.
    """
    mdp = study.mdp
    draw = generator(0, "class of models")
    drawn = draw.dirichlet(np.full(mdp.shape[1], 0.3), size=(others, *mdp.shape))
    models = np.concatenate([mdp.transition[None], drawn / drawn.sum(-1, keepdims=True)])
    rewards = np.stack([mdp.reward, *(draw.permuted(mdp.reward.ravel()).reshape(mdp.shape) for _ in range(others))])
    return DuelingSpec(one_hot(*mdp.shape[1:]), mdp.shape[0], 1.0, models, rewards, mdp.first)


def recorded(mdp: EpisodicMDP, policy: Floats, episodes: int, seed: int) -> Floats:
    """[H, S, A, S'] counts of the transitions of ``episodes`` episodes of a policy."""
    key = np.array([seed], dtype=np.int64)
    step = int(generator(seed, "offline").integers(1 << 31))
    counts: Floats = sample_counts(mdp, policy[None, None], np.ones((1, 1)), episodes, key, step)[0]
    return counts
