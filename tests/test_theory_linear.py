"""Linear MDPs against their tables; the pieces of learning from preferences against brute force and by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize

from agents.dueling.pr_lsvi import PRLSVI, PRLSVIConfig
from agents.dueling.pr_ts import PRTS, PRTSConfig
from experiments import cli
from pbrl.errors import InputError
from pbrl.members import sweep
from pbrl.theory import instances
from pbrl.theory.dueling import DuelingSpec, Trajectories, duel, exponent
from pbrl.theory.episodic import backward_induction, from_start, policy_value
from pbrl.theory.linear import LinearMDP, one_hot, random_linear, solve_linear
from pbrl.theory.logistic import fit_logistic

LINEAR = random_linear(7, 3, 4, 5, seed=0)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("count", [None, 2])
def test_linear_values_are_those_of_the_tables(seed: int, count: int | None) -> None:
    mdp = random_linear(7, 3, 4, 5, seed=seed, count=count)
    tables, solution = mdp.tabular(), solve_linear(mdp)
    np.testing.assert_allclose(tables.transition.sum(-1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(solution.value, backward_induction(tables).value, atol=1e-13)
    assert solution.residual < 1e-13
    q = np.einsum("ijk,...hk->...hij", mdp.features, solution.weights)
    np.testing.assert_allclose(q, backward_induction(tables).q, atol=1e-13)
    policy = np.random.default_rng(seed).dirichlet(np.ones(3), size=(4, 7))
    given = solve_linear(mdp, policy)
    np.testing.assert_allclose(given.value, policy_value(tables, policy), atol=1e-13)
    assert given.residual < 1e-13


def test_every_finite_mdp_is_linear_in_one_hot_features() -> None:
    tables = instances.dirichlet_episodic(4, 2, 3, seed=1)
    mdp = LinearMDP(one_hot(4, 2), tables.transition.reshape(3, 8, 4), tables.reward.reshape(3, 8))
    np.testing.assert_allclose(mdp.tabular().transition, tables.transition)
    np.testing.assert_allclose(solve_linear(mdp).value, backward_induction(tables).value, atol=1e-14)


def test_what_is_no_linear_mdp_is_told() -> None:
    with pytest.raises(InputError, match="features has rows that miss a sum of 1"):
        replace(LINEAR, features=LINEAR.features * 0.5)
    with pytest.raises(InputError, match="kernels has entries that are negative"):
        replace(LINEAR, kernels=-LINEAR.kernels)
    with pytest.raises(InputError, match=r"kernels are .*, expected \[P\?, H, 5, 7\]"):
        replace(LINEAR, kernels=LINEAR.kernels[..., :3] / LINEAR.kernels[..., :3].sum(-1, keepdims=True))
    with pytest.raises(InputError, match="weights are"):
        replace(LINEAR, weights=LINEAR.weights[:2])
    with pytest.raises(InputError, match="expected 1 or more"):
        random_linear(3, 2, 0, 2, seed=0)


def test_the_logistic_fit_is_the_minimum_from_any_start() -> None:
    draw = np.random.default_rng(0)
    inputs, label = 3.0 * draw.standard_normal((60, 4)), draw.integers(2, size=60).astype(np.float64)

    def objective(theta: np.ndarray) -> float:
        return float(np.logaddexp(0, -(2 * label - 1) * (inputs @ theta)).sum() + 0.35 * theta @ theta)

    best = minimize(objective, np.zeros(4), tol=1e-12).x
    for start in (np.zeros(4), 20.0 * draw.standard_normal(4)):
        np.testing.assert_allclose(fit_logistic(inputs, label, 0.7, start), best, atol=1e-5)


def test_played_values_and_answers_are_exact() -> None:
    mdp = LINEAR.tabular()
    spec = DuelingSpec(LINEAR.features, 4, 1.0)
    learner = PRLSVI(spec, sweep(PRLSVIConfig(epsilon=0.0), [0, 1]))
    plan = learner.plan()
    trace = duel(learner, mdp, 1)
    for p in range(2):
        worth = [from_start(mdp, policy_value(mdp, np.eye(3)[policy[p]])) for policy in plan]
        assert trace.regret.value[0, p] == pytest.approx(np.mean(worth), abs=1e-13)
        lost = 2 * trace.regret.optimum[p] - np.sum(worth)
        assert trace.final_regret()[p] == pytest.approx(lost, abs=1e-12)
    assert np.array_equal(learner.plan().second, plan.first)


def test_value_iteration_learns_the_transitions_from_counts() -> None:
    """Without randomisation the fitted values of seen pairs are ridge regressions on every transition, one by one."""
    spec = DuelingSpec(LINEAR.features, 4, 1.0)
    learner = PRLSVI(spec, sweep(PRLSVIConfig(noise=0.0), [0]))
    draw, seen = np.random.default_rng(0), []
    for _ in range(30):
        pair = [Trajectories(draw.integers(7, size=(1, 5)), draw.integers(3, size=(1, 4))) for _ in range(2)]
        learner.update(pair[0], pair[1], np.zeros(1, dtype=np.bool_), np.zeros(1))
        seen += pair
    phi = np.stack([LINEAR.features[one.states[0, 2], one.actions[0, 2]] for one in seen])
    value = draw.standard_normal(7)
    target = value[[one.states[0, 3] for one in seen]]
    expected = np.linalg.solve(phi.T @ phi + np.eye(5), phi.T @ target)
    found = np.linalg.solve(learner.precision[0, 2], learner.moments[0, 2] @ value)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_the_posterior_of_rewards_is_bayes_rule() -> None:
    family = random_linear(4, 2, 2, 3, seed=3, count=4, reward=2.0).tabular()
    learner = PRTS(DuelingSpec(one_hot(4, 2), 2, 2.0, family.transition, family.reward), sweep(PRTSConfig(), [0]))
    draw = np.random.default_rng(1)
    one, two = (Trajectories(draw.integers(4, size=(1, 3)), draw.integers(2, size=(1, 2))) for _ in range(2))
    learner.update(one, two, np.ones(1, dtype=np.bool_), np.ones(1))
    gap = [
        sum(r[h, two.states[0, h], two.actions[0, h]] - r[h, one.states[0, h], one.actions[0, h]] for h in range(2))
        for r in family.reward
    ]
    chance = 1 / (1 + np.exp(-np.array(gap)))
    np.testing.assert_allclose(np.exp(learner.of_reward[0]), chance, rtol=1e-12)
    laws = [
        np.prod([m[h, t.states[0, h], t.actions[0, h], t.states[0, h + 1]] for t in (one, two) for h in range(2)])
        for m in family.transition
    ]
    np.testing.assert_allclose(np.exp(learner.of_model[0]), laws, rtol=1e-9)
    with pytest.raises(InputError, match="expected a problem with models and rewards"):
        PRTS(DuelingSpec(one_hot(4, 2), 2, 2.0), sweep(PRTSConfig(), [0]))


def test_exponents_are_found_with_their_interval() -> None:
    scale = np.array([100.0, 200.0, 400.0])
    values = scale[:, None] ** 0.5 * np.random.default_rng(0).uniform(0.9, 1.1, size=(3, 40))
    found = exponent(scale, values)
    assert found.low < 0.5 < found.high
    assert found.high - found.low < 0.1


def test_a_problem_that_does_not_fit_is_told() -> None:
    family = random_linear(4, 2, 2, 3, seed=3, count=4).tabular()
    with pytest.raises(InputError, match="both transitions and rewards"):
        DuelingSpec(one_hot(4, 2), 2, 1.0, family.transition)
    with pytest.raises(InputError, match="models are"):
        DuelingSpec(one_hot(4, 2), 3, 1.0, family.transition, family.reward)
    with pytest.raises(InputError, match="expected both to be positive"):
        DuelingSpec(one_hot(4, 2), 0, 1.0)
    learner = PRLSVI(DuelingSpec(one_hot(4, 2), 2, 1.0), sweep(PRLSVIConfig(), [0, 1]))
    with pytest.raises(InputError, match="4 MDPs for 2 members"):
        duel(learner, family, 5)


def test_regret_of_learners_from_preferences_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["lock", "--agents", "ucbvi", "pr_lsvi", "pr_ts", "--seeds", "2", "--episodes", "100"]
    assert cli.main(["regret", *words, "--epsilon", "1", "--out", str(tmp_path)]) == 0
    assert "pr_lsvi" in capsys.readouterr().out
    (table,) = tmp_path.rglob("regret.csv")
    last = [line.split(",") for line in table.read_text().splitlines() if line.startswith("pr_ts,0,")][-1]
    assert last[2] == "100"
