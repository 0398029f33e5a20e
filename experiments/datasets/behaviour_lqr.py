"""Behaviour for the point mass: mixtures of uniform noise and the soft-optimal controller, no training."""

from __future__ import annotations

import numpy as np

from envs.point_mass import PointMass, solve

from .behaviour import Array, Behaviour, Policy, Snapshot, concatenate, returns, roll_out

_TEMPERATURE = 0.01  # the soft-optimal policy's standard deviation is then about 0.05
_SKILLS = 21  # policies between random and optimal
_EPISODES = 20


def mixture(env: PointMass, skill: float, *, greedy: bool = False) -> Policy:
    """``skill`` times the soft-optimal action plus the rest times a uniform one; greedy: its mean."""
    solution = solve(env.problem, _TEMPERATURE)
    spread = np.linalg.cholesky(solution.covariance)

    def act(obs: Array, generator: np.random.Generator) -> Array:
        best = solution.control(obs)
        if greedy:
            return skill * best
        noise = generator.standard_normal(best.shape) @ spread.T
        return skill * (best + noise) + (1.0 - skill) * generator.uniform(-1.0, 1.0, best.shape)

    return act


def behaviour(env: PointMass, steps: int, seed: int) -> Behaviour:
    """As if a learner's skill had grown evenly from 0 to 1 over ``steps``; the oracle is the exact optimum."""
    exact = solve(env.problem).critic
    oracle = {
        "q_matrix": exact.q_matrix.numpy(),
        "v_matrix": exact.v_matrix.numpy(),
        "q_constant": np.asarray(exact.q_constant),
        "v_constant": np.asarray(exact.v_constant),
    }
    snapshots, parts = [], []
    ends = np.linspace(0, steps, _SKILLS + 1).astype(int)[1:]
    for number, skill in enumerate(np.linspace(0.0, 1.0, _SKILLS).tolist()):
        sample = mixture(env, skill)
        score = float(returns(env, sample, _EPISODES, [seed, 1]).mean())
        snapshots.append(Snapshot(int(ends[number]), score, sample, mixture(env, skill, greedy=True), oracle))
        rows = int(np.diff(ends, prepend=0)[number])
        parts += [roll_out(env, sample, rows, [seed, 2, number])] if rows else []
    about = {"algorithm": "closed form", "steps": steps, "seed": seed, "temperature": _TEMPERATURE}
    return Behaviour(tuple(snapshots), concatenate(parts), {"kind": "lqr", "gamma": exact.gamma}, about)
