"""Episodes drawn as multinomial chains, regret recorded exactly, baselines, and conservative learners by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import linprog

from agents.tabular.budgeted import Budgeted, BudgetedConfig
from agents.tabular.eps_mix import EpsMix, EpsMixConfig
from agents.tabular.opt_pess_lp import OptPessLP, OptPessLPConfig, constrained
from agents.tabular.step_mix import StepMix, StepMixConfig
from agents.tabular.ucbvi import UCBVI, UCBVIConfig
from experiments import cli
from experiments.regret import curves, studies
from pbrl.errors import InputError
from pbrl.members import sweep
from pbrl.theory import baselines, episodes, instances, model, optimism, robust
from pbrl.theory.episodic import backward_induction, from_start, occupancy, policy_value
from pbrl.theory.learner import TabularSpec
from pbrl.theory.regret import RegretTrace, play

MDP = instances.dirichlet_episodic(4, 2, 3, seed=0)
KEYS = np.arange(3, dtype=np.int64)


def test_counts_of_many_episodes_are_the_occupancy() -> None:
    policy = np.random.default_rng(0).dirichlet(np.ones(2), size=(3, 4))
    many = 1_000_000
    counts = episodes.sample_counts(MDP, np.stack([policy[None]] * 3), np.ones((3, 1)), many, KEYS, 0)
    assert counts.shape == (3, 3, 4, 2, 4)
    assert (counts.sum((2, 3, 4)) == many).all()
    expected = occupancy(MDP, policy)[..., None] * MDP.transition
    error = np.abs(counts / many - expected) / np.sqrt(expected * (1 - expected) / many + 1e-12)
    assert error.max() < 5.0
    assert (counts[:, 1:].sum((3, 4)) == counts[:, :-1].sum((2, 3))).all(), "who arrives is who goes on"


def test_counts_have_the_variance_of_independent_episodes() -> None:
    policy = np.full((1, 1, *MDP.shape), 0.5)
    keys = np.arange(2000, dtype=np.int64)
    counts = episodes.sample_counts(MDP, np.repeat(policy, 2000, 0), np.ones((2000, 1)), 50, keys, 1)
    visits = counts[:, 2].sum((2, 3))
    chance = occupancy(MDP, policy[0, 0])[2].sum(-1)
    np.testing.assert_allclose(visits.var(0), 50 * chance * (1 - chance), rtol=0.15)


def test_a_draw_of_policies_is_a_mixture() -> None:
    two = np.stack([np.eye(2)[np.zeros((3, 4), dtype=int)], np.eye(2)[np.ones((3, 4), dtype=int)]])[None]
    counts = episodes.sample_counts(MDP, two, np.array([[0.25, 0.75]]), 100_000, KEYS[:1], 0)
    assert counts[0, 0, :, 1].sum() / 100_000 == pytest.approx(0.75, abs=0.01)


def test_another_step_draws_anew_and_the_same_does_not() -> None:
    policy = np.full((3, 1, *MDP.shape), 0.5)
    draw = [episodes.sample_counts(MDP, policy, np.ones((3, 1)), 50, KEYS, step) for step in (0, 0, 1)]
    assert np.array_equal(draw[0], draw[1])
    assert not np.array_equal(draw[0], draw[2])


def test_batches_grow_and_add_up() -> None:
    assert list(episodes.batches(5, 0.0)) == [1] * 5
    grown = list(episodes.batches(10_000, 0.1))
    assert sum(grown) == 10_000
    assert grown[:10] == [1] * 10
    assert grown[-2] == int(0.1 * sum(grown[:-2]))
    for many, growth in ((0, 0.1), (10, -0.1)):
        with pytest.raises(InputError, match="expected at least 1 and 0 or more"):
            next(episodes.batches(many, growth))


def _trace() -> RegretTrace:
    """Two members whose regret per episode is 1 (2) in the first 10 episodes and 0.1 (0.2) in the next 90."""
    value = np.array([[-1.0, -2.0], [-0.1, -0.2]])
    return RegretTrace(np.array([10, 90]), value, value - 1.0, np.zeros_like(value), np.zeros(2))


def test_regret_is_exact_between_plans() -> None:
    trace = _trace()
    np.testing.assert_allclose(trace.at([0, 5, 10, 20, 100]), [[0, 5, 10, 11, 19], [0, 10, 20, 22, 38]])
    assert trace.violations(-0.15).tolist() == [10, 100]
    assert trace.violations(np.array([-0.15, -3.0])).tolist() == [10, 0]
    with pytest.raises(InputError, match="expected 0 to 100"):
        trace.at([101])


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_slopes_find_the_power(power: float) -> None:
    ends = np.unique(np.geomspace(1, 100_000, 400).round().astype(np.int64))
    counts = np.diff(np.r_[0, ends])
    scale = np.random.default_rng(0).uniform(0.5, 2.0, size=20)
    total = np.r_[0.0, ends.astype(np.float64) ** power]
    value = -np.diff(total)[:, None] / counts[:, None] * scale
    trace = RegretTrace(counts, value, value, value, np.zeros(20))
    slope = trace.slope(1e4, 1e5)
    assert slope.estimate == pytest.approx(power, abs=0.01)
    assert slope.low <= slope.estimate <= slope.high
    assert slope.high - slope.low < 0.01


def test_optimism_is_above_and_shrinks_to_the_optimum() -> None:
    reward = MDP.reward[None]
    for visits in (0.0, 100.0, 1e12):
        deviation = model.hoeffding(np.full((1, *MDP.shape), visits), np.array([0.1]))
        value, policy = optimism.optimistic(MDP.transition[None], reward, deviation)
        best = backward_induction(MDP).value
        assert (value[0] >= best - 1e-12).all()
    np.testing.assert_allclose(value[0], best, atol=1e-4)
    assert policy.sum() == 3 * 4


def test_radii_by_hand() -> None:
    visits = np.full((1, 3, 4, 2), 50.0)
    beta = np.log(2 * 4 * 2 * 3 / 0.1) + 3 * np.log(np.e * (1 + 50 / 3))
    np.testing.assert_allclose(model.l1_radius(visits, np.array([0.1])), np.sqrt(2 * beta / 50))
    level = np.log(2 * 4 * 2 * 3 / 0.1) + np.log(np.e * 51)
    np.testing.assert_allclose(model.hoeffding(visits, np.array([0.1])), np.sqrt(level / 100))
    assert (model.l1_radius(0 * visits, np.array([0.1])) == 2.0).all()


def test_bernstein_bounds_hold_the_truth_when_much_is_known() -> None:
    visits = np.full((1, *MDP.shape), 1e9)
    bounds = optimism.Bernstein(MDP.transition[None], MDP.reward[None], visits, np.array([0.1]), np.ones(1))
    upper, lower, greedy = bounds.upper()
    best = backward_induction(MDP).value
    assert (upper[0] >= best - 1e-12).all()
    assert (lower[0] <= best + 1e-12).all()
    np.testing.assert_allclose(upper[0], best, atol=1e-3)
    below = bounds.policy_lower(greedy, upper)
    assert (below[0] <= policy_value(MDP, greedy[0]) + 1e-12).all()


def test_step_mix_mixes_at_the_threshold() -> None:
    """The lower bound of what is played, computed anew as a robust value, reaches the threshold."""
    study = studies.make("safe", episodes=1000, share=0.6)
    learner = StepMix(study.spec, sweep(StepMixConfig(), [0]))
    seen = np.zeros(0)
    for step, count in enumerate(episodes.batches(20_000, 0.05)):
        plan = learner.plan(count)
        _, lower, _ = learner.candidates()
        if lower[0, 0] < study.threshold <= lower[0, -1]:
            radius = model.l1_radius(learner.model.visits, learner.delta / 2)
            worst = robust.worst_policy_value(learner.model.law, learner.model.reward, plan.policies[:, 0], radius)
            assert worst[0, 0, 0] >= study.threshold - 1e-12
            assert study.spec.baseline is not None
            assert not np.allclose(plan.policies[0, 0], study.spec.baseline)
            seen = np.r_[seen, worst[0, 0, 0]]
        learner.update(episodes.sample_counts(study.mdp, plan.policies, plan.weights, count, learner.keys, step), count)
    assert seen.size > 3, "no mixture was played"


def test_eps_mix_weighs_by_the_bounds() -> None:
    study = studies.make("safe", episodes=1000, share=0.6)
    learner = EpsMix(study.spec, sweep(EpsMixConfig(), range(4)))
    play(learner, study.mdp, 3000, growth=0.2)
    policies, lower, _ = learner.candidates()
    plan = learner.plan(1)
    assert plan.policies.shape == (4, 2, *study.spec.shape)
    for p in range(4):
        mean = plan.weights[p] @ lower[p, [0, -1]]
        if lower[p, 0] < study.threshold <= lower[p, -1]:
            assert mean == pytest.approx(study.threshold)
        np.testing.assert_array_equal(plan.policies[p, 1], policies[p, -1])


def test_budgeted_spends_and_keeps_the_sum() -> None:
    study = studies.make("safe", episodes=1000, share=0.7)
    learner = Budgeted(study.spec, sweep(BudgetedConfig(), range(4)))
    trace = play(learner, study.mdp, 50_000, growth=0.05)
    surplus = np.cumsum((trace.value - study.threshold) * trace.counts[:, None], axis=0)
    assert (surplus >= 0).all()
    assert (learner.budget >= 0).all()


def test_constrained_policies_solve_the_linear_program() -> None:
    """Against HiGHS over occupancies, with the return's constraint as one more row."""
    horizon, states, actions = MDP.shape
    draw = np.random.default_rng(0)
    size, pairs = 6, states * actions
    objective, penalty = draw.random((2, size, *MDP.shape))
    safe = MDP.reward - 0.3 * penalty
    law, first = np.broadcast_to(MDP.transition, (size, *MDP.transition.shape)), MDP.first
    greedy = [float(from_start(MDP, backward_induction(replace(MDP, reward=one)).value)) for one in safe]
    threshold = np.array(greedy) - np.array([0.01, 0.05, 0.1, 0.2, 0.4, 10.0])
    found = constrained(law, first, objective, safe, threshold)
    flow = np.zeros((horizon * states, horizon * pairs))
    for h in range(horizon):
        flow[h * states : (h + 1) * states, h * pairs : (h + 1) * pairs] = np.repeat(np.eye(states), actions, axis=1)
        if h:
            moves = MDP.transition[h - 1].reshape(pairs, states).T
            flow[h * states : (h + 1) * states, (h - 1) * pairs : h * pairs] = -moves
    inflow = np.r_[first, np.zeros((horizon - 1) * states)]
    binding = 0
    for p in range(size):
        rows = {"A_ub": -safe[p].reshape(1, -1), "b_ub": [-threshold[p]], "A_eq": flow, "b_eq": inflow}
        exact = -linprog(-objective[p].ravel(), **rows, method="highs").fun
        visits = occupancy(MDP, found[p])
        kept = float((visits * safe[p]).sum())
        assert float((visits * objective[p]).sum()) == pytest.approx(exact, abs=1e-8)
        assert kept >= threshold[p] - 1e-9
        binding += kept < threshold[p] + 1e-9
    assert 0 < binding < size, "the constraint must bind in some programs and not in others"


def test_optimism_survives_the_constraint() -> None:
    """OptPess-LP's upper bound is above V* also while its constraint keeps every plan far below it."""
    study = studies.make("safe", episodes=100_000, share=0.6)
    trace = play(OptPessLP(study.spec, sweep(OptPessLPConfig(), range(4))), study.mdp, 100_000, growth=0.2)
    certified = trace.lower >= study.threshold - 1e-9
    assert certified[-1].all()
    assert not certified[0].any()
    assert (trace.upper >= trace.optimum - 1e-9).all()
    assert not trace.violations(study.threshold).any()
    assert len(np.unique(trace.value.round(9))) > 5, "nothing but the baseline was played"


def test_conservative_learners_need_a_baseline_and_a_threshold() -> None:
    with pytest.raises(InputError, match="no baseline policy"):
        StepMix(TabularSpec.of(MDP), sweep(StepMixConfig(), [0]))
    with pytest.raises(InputError, match="no threshold"):
        StepMix(TabularSpec.of(MDP, baselines.boltzmann(MDP, 1.0)), sweep(StepMixConfig(), [0]))
    with pytest.raises(InputError, match="cloned baseline is learned from offline"):
        StepMix(TabularSpec.of(MDP, threshold=1.0), sweep(StepMixConfig(baseline="cloned"), [0]))
    with pytest.raises(InputError, match=r"rewards lie in \[0, 2\]"):
        TabularSpec(np.array([[[0.0, 2.0]]]), np.ones(1))


def test_baselines_learned_from_episodes_approach_the_behaviour() -> None:
    behaviour = baselines.boltzmann(MDP, 5.0)
    exact = float(from_start(MDP, policy_value(MDP, behaviour)))
    few, many = (studies.recorded(MDP, behaviour, n, 0) for n in (5, 100_000))
    learned = [float(from_start(MDP, policy_value(MDP, baselines.cloned(counts)))) for counts in (few, many)]
    assert learned[1] == pytest.approx(exact, abs=0.01)
    assert abs(learned[0] - exact) > abs(learned[1] - exact)
    best = baselines.pessimistic(many[None], MDP.reward[None], np.array([0.1]))[0]
    optimum = float(from_start(MDP, backward_induction(MDP).value))
    assert float(from_start(MDP, policy_value(MDP, best))) == pytest.approx(optimum, abs=0.05)


def test_play_wants_as_many_mdps_as_members() -> None:
    stack = replace(MDP, transition=np.stack([MDP.transition] * 2), reward=np.stack([MDP.reward] * 2))
    with pytest.raises(InputError, match="2 MDPs for 3 members"):
        UCBVI(TabularSpec.of(stack), sweep(UCBVIConfig(), range(3)))
    with pytest.raises(InputError, match="2 MDPs for 3 members"):
        play(UCBVI(TabularSpec.of(MDP), sweep(UCBVIConfig(), range(3))), stack, 10)
    apart = play(UCBVI(TabularSpec.of(stack), sweep(UCBVIConfig(), range(2))), stack, 200)
    alone = play(UCBVI(TabularSpec.of(MDP), sweep(UCBVIConfig(), [0])), MDP, 200)
    np.testing.assert_allclose(apart.value[:, 0], alone.value[:, 0], rtol=1e-12)


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--agents", "ucbvi", "step_mix", "--seeds", "3", "--episodes", "300", "--out", str(tmp_path)]
    assert cli.main(["regret", "safe", *words, "--width", "1", "0.01"]) == 0
    said = capsys.readouterr().out
    assert "V* 1.944, baseline 1.755" in said
    assert "step_mix width 0.01" in said
    (folder,) = (tmp_path / "regret").iterdir()
    lines = (folder / "regret.csv").read_text().splitlines()
    assert lines[0] == "learner,seed,episodes,regret,violating_episodes,least_value"
    assert len(lines) > 4 * 3 * 10
    assert (folder / "regret.png").stat().st_size > 10_000
    assert cli.main(["regret", "--help"]) == 0
    assert "hard" in capsys.readouterr().out
    for bad, complaint in (
        (["saf"], "unknown study 'saf' (did you mean safe?)"),
        (["safe", "--agents", "iql"], "iql learns from tensors"),
        (["safe", "--seeds", "0"], "seeds is 0, expected at least 1"),
        (["safe", "--baseline", "cloned"], "expected also --offline N"),
        (["--seeds", "3"], "expected a study"),
    ):
        assert cli.main(["regret", *bad, "--out", str(tmp_path)]) == 2
        assert complaint in capsys.readouterr().err


@pytest.mark.parametrize("name", studies.INSTANCES)
def test_every_study_can_be_played(name: str) -> None:
    study = studies.make(name, episodes=200, offline=20)
    learner = StepMix(study.spec, sweep(StepMixConfig(baseline="cloned"), [0, 1]))
    trace = play(learner, study.mdp, 200, growth=0.5)
    assert 0.0 <= study.threshold <= study.baseline <= study.optimum + 1e-12
    assert trace.episodes == 200


def test_what_is_done_when_it_is_stopped_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, words = curves.run, ["regret", "safe", "--seeds", "2", "--episodes", "100", "--out", str(tmp_path)]

    def stopped_at(stop: str) -> None:
        def stopping(name: str, *given: Any, **more: Any) -> curves.Curve:
            if name == stop:
                raise KeyboardInterrupt
            return run(name, *given, **more)

        monkeypatch.setattr(curves, "run", stopping)

    stopped_at("ucbvi")
    assert cli.main(words) == 130
    assert list((tmp_path / "regret").iterdir()) == []
    stopped_at("eps_mix")
    assert cli.main(words) == 130
    assert "the first 2 of 3 learners are kept" in capsys.readouterr().err
    (folder,) = (tmp_path / "regret").iterdir()
    rows = (folder / "regret.csv").read_text().splitlines()[1:]
    assert {row.split(",")[0] for row in rows} == {"ucbvi", "step_mix"}
    assert (folder / "regret.png").is_file()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--growth", "nan"], "growth is nan, expected at least 0"),
        (["--instance", "-1"], "instance is -1, expected at least 0"),
        (["--share", "2"], "share is 2, expected 0 to 1"),
        (["--offline", f"{10**20}"], "expected at most"),
        (["--width", "-1"], "width is -1.0, expected at least 0"),
    ],
)
def test_bad_numbers_leave_nothing_behind(
    words: list[str], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["regret", "safe", *words, "--out", str(tmp_path)]) == 2
    assert complaint in capsys.readouterr().err
    assert list(tmp_path.glob("regret/*")) == []
