"""The point mass: its closed-form values against the Bellman equation, the simulator and brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import envs
from envs.point_mass import PointMass, Problem, dimension_of, solve
from pbrl.errors import InputError


def states_and_actions(problem: Problem, count: int = 64) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(count, 2 * problem.dimension)), rng.normal(size=(count, problem.dimension))


def expected_next_v(problem: Problem, temperature: float, x: np.ndarray, u: np.ndarray) -> np.ndarray:
    """E[V(x')] by symmetric sigma points, which are exact for a quadratic V."""
    solution = solve(problem, temperature)
    a, b = problem.dynamics
    mean, size = x @ a.T + u @ b.T, 2 * problem.dimension
    spread = problem.noise * math.sqrt(size) * np.eye(size)
    points = mean[:, None] + np.concatenate([spread, -spread])
    return solution.critic.v(torch.from_numpy(points)).mean(1).numpy()


@pytest.mark.parametrize("temperature", [0.0, 0.05])
@pytest.mark.parametrize("problem", [Problem(1), Problem(), Problem(5, gamma=0.9, noise=0.3, action_cost=0.5)])
def test_bellman_equation_holds(problem: Problem, temperature: float) -> None:
    solution = solve(problem, temperature)
    x, u = states_and_actions(problem)
    cost_x, cost_u = problem.costs
    reward = -np.einsum("ni,ij,nj->n", x, cost_x, x) - np.einsum("ni,ij,nj->n", u, cost_u, u)
    q = solution.critic.q(torch.from_numpy(x), torch.from_numpy(u)).numpy()
    backup = reward + problem.gamma * expected_next_v(problem, temperature, x, u)
    assert np.abs(q - backup).max() < 1e-9 * np.abs(q).max()


@pytest.mark.parametrize("dimension", [1, 2, 4])
def test_optimal_action_has_no_advantage_and_no_gradient(dimension: int) -> None:
    solution = solve(Problem(dimension))
    x, u = states_and_actions(Problem(dimension))
    obs = torch.from_numpy(x)
    best = torch.from_numpy(solution.control(x)).requires_grad_()
    q = solution.critic.q(obs, best)
    assert (q - solution.critic.v(obs)).abs().max() < 1e-9
    (gradient,) = torch.autograd.grad(q.sum(), best)
    assert gradient.abs().max() < 1e-9
    assert (solution.critic.q(obs, torch.from_numpy(u)) < solution.critic.v(obs)).all()


def test_soft_value_is_the_log_integral_and_the_policy_its_softmax() -> None:
    temperature = 0.3
    problem = Problem(1)
    solution = solve(problem, temperature)
    obs = torch.tensor([[0.4, -0.3]], dtype=torch.float64)
    grid = torch.linspace(-8, 8, 40001, dtype=torch.float64)[:, None]
    q = solution.critic.q(obs.expand(len(grid), -1), grid)
    width = float(grid[1] - grid[0])
    integral = temperature * (torch.logsumexp(q / temperature, 0) + math.log(width))
    assert float(solution.critic.v(obs)[0]) == pytest.approx(float(integral), abs=1e-9)
    weight = torch.softmax(q / temperature, 0)
    mean = float((weight * grid[:, 0]).sum())
    assert mean == pytest.approx(float(solution.control(obs)[0, 0]), abs=1e-9)
    assert float((weight * (grid[:, 0] - mean) ** 2).sum()) == pytest.approx(float(solution.covariance[0, 0]), abs=1e-9)


def test_value_equals_the_mean_discounted_return_of_the_optimal_controller() -> None:
    problem = Problem(2, noise=0.05, gamma=0.95, horizon=400)  # gamma^400 ~ 1e-9: the time limit cannot be seen
    env, solution = PointMass(2000, problem), solve(problem)
    start = obs = env.reset(range(2000))
    total = np.zeros(env.copies)
    for t in range(problem.horizon):
        obs, rew, _, _ = env.step(solution.control(obs))
        total += problem.gamma**t * rew
    error = total - solution.critic.v(torch.from_numpy(start)).numpy()
    assert abs(error.mean()) < 3.5 * error.std() / math.sqrt(env.copies)
    without_noise = solve(Problem(2, noise=0.0, gamma=0.95)).critic.v(torch.from_numpy(start)).numpy()
    assert abs((total - without_noise).mean()) > 10 * error.std() / math.sqrt(env.copies)  # the constant is needed


@pytest.mark.parametrize("env_id", ["PointMass-v0", "PointMass1D-v0", "PointMass6D-v0"])
def test_optimal_controller_stays_within_the_bounds(env_id: str) -> None:
    env = envs.make(env_id, 3000)
    assert isinstance(env, PointMass)
    solution = solve(env.problem)
    obs = env.reset(range(10_000, 13_000))
    largest = 0.0
    for _ in range(env.problem.horizon):
        act = solution.control(obs)
        largest = max(largest, float(np.abs(act).max()))
        obs, _, _, _ = env.step(act)
    assert 0.5 < largest < 0.95


def test_time_limit_is_a_truncation_and_freezes_the_copies() -> None:
    env = PointMass(3, Problem(1, horizon=4))
    env.reset([0, 1, 2])
    for t in range(1, 5):
        obs, rew, term, trunc = env.step(np.full((3, 1), 0.5))
        assert (rew < 0).all()
        assert not term.any()
        assert (trunc == (t == 4)).all()
    again, rew, term, trunc = env.step(np.ones((3, 1)))
    assert (again == obs).all()
    assert (rew == 0).all()
    assert trunc.all()
    assert not term.any()
    env.reset([0, 1, 2])
    assert not env.step(np.zeros((3, 1)))[3].any()


def test_a_copy_depends_on_its_own_seed_only() -> None:
    def run(seeds: list[int]) -> np.ndarray:
        env = PointMass(len(seeds), Problem(2))
        rows = [env.reset(seeds)]
        rows += [env.step(np.zeros((len(seeds), 2)))[0] for _ in range(5)]
        return np.stack(rows)

    alone, together = run([7]), run([3, 7, 9])
    assert np.array_equal(alone[:, 0], together[:, 1])
    assert not np.array_equal(together[:, 0], together[:, 1])


@pytest.mark.parametrize(
    ("name", "dimension"), [("PointMass-v0", 2), ("PointMass12D-v0", 12), ("PointMass0D-v0", None), ("Point-v0", None)]
)
def test_ids_name_the_dimension(name: str, dimension: int | None) -> None:
    assert dimension_of(name) == dimension


def test_bad_input_is_told_in_one_sentence() -> None:
    with pytest.raises(InputError, match=r"Problem.gamma is 1.0, expected at least 0 and below 1"):
        Problem(gamma=1.0)
    with pytest.raises(InputError, match="temperature is -1"):
        solve(Problem(), -1.0)
    env = PointMass(2)
    with pytest.raises(InputError, match="before it was reset"):
        env.step(np.zeros((2, 2)))
    with pytest.raises(InputError, match="1 seeds for 2 copies"):
        env.reset([0])
    env.reset([0, 1])
    with pytest.raises(InputError, match=r"act has shape \(2, 3\), expected \(2, 2\)"):
        env.step(np.zeros((2, 3)))
    with pytest.raises(InputError, match="copies is 0"):
        PointMass(0)
