"""The preference study: its design, that it goes on where it was stopped, and words that follow from numbers."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import agents
from experiments import kept, side_by_side
from experiments.cli import main
from experiments.datasets.needed import find_data
from experiments.preference_study import questions, records, settings, stack, study
from experiments.preference_study.settings import FULL, TASKS, Condition, Scale, StudyOptions, Task, conditions
from experiments.reports import preference_findings, preference_part, tables
from experiments.reports.page import narrow
from experiments.reports.preference_advice import advice, short_table
from experiments.reports.preference_rows import Study, read_study
from experiments.reports.preference_tables import accuracy_table, budget_table, over_tasks, task_table
from experiments.reports.rows import GAPS, write_rows
from pbrl import data
from pbrl.errors import InputError

TINY = Scale(
    seeds=(0, 1), updates=8, evaluations=2, most_episodes=1, pool=40, held_out_pairs=30, budgets=(10, 40),
    noisy_budget=40, hidden=8, transitions=16, batch_pairs=4,
)  # fmt: skip
REACHER = TASKS["local/reacher/mixed-v1"]
AGENTS = ("cpl", "sft", "p_iql", "iql", "bc")


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module", autouse=True)
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The quick study is tiny, the search tinier, and data are made elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings, "QUICK", TINY)
        patch.setattr(
            settings, "SEARCH", dataclasses.replace(TINY, seeds=(100, 101), budgets=(40,), noisy_budget=0, data_seed=9)
        )
        patch.setattr(stack, "chosen", lambda agent: {})
        patch.setenv("PBRL_DATA_DIR", str(tmp_path_factory.mktemp("data")))
        yield


def options(out: Path, **changes: Any) -> StudyOptions:
    given: dict[str, Any] = {"quick": True, "tasks": (REACHER.dataset,), "agents": AGENTS, "processes": 1}
    return StudyOptions(out=out, **{**given, **changes})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("study")
    study.preferences(options(out))
    return out


@pytest.fixture(scope="module")
def asked(folder: Path) -> questions.Questions:
    return questions.ask(REACHER, TINY, folder)


# --- the design -------------------------------------------------------------------------------------------------------


def test_the_full_design() -> None:
    found = conditions("cpl", FULL)
    plain = {(labels, budget, "none") for labels in ("partial_return", "regret") for budget in (50, 200, 1000, 5000)}
    faults = {(labels, 1000, kind) for labels in ("partial_return", "regret") for kind in ("beta", "mistakes")}
    assert {(one.labels, one.budget, one.noise) for one in found} == plain | faults
    assert len(found) == len(plain | faults)
    assert all(
        conditions(name, FULL) == found for name in ("sft", "cpl_bc", "cpl_kl", "p_iql", "pt_iql", "ipl", "oppo")
    )
    assert conditions("iql", FULL) == [Condition("true_reward")]
    assert len(FULL.seeds) >= 5
    for task in TASKS.values():
        assert len(stack.plan("oppo", task, FULL, search=False).members) == len(found) * len(FULL.seeds)


def test_the_search_shares_no_seed_with_the_study() -> None:
    search = StudyOptions(search=True).scale
    assert not {*search.seeds, search.data_seed} & {*FULL.seeds, FULL.data_seed}


@pytest.mark.parametrize("name", [name for name in settings.AGENTS if name in agents.names()])
def test_every_setting_that_is_searched_makes_a_config_of_its_own(name: str) -> None:
    grid = settings.GRIDS[name]
    made = [settings.agent_config(name, FULL, choice) for choice in grid]
    assert 1 <= len(grid) <= 6
    assert len(set(made)) == len(grid)


def test_all_seeds_labels_budgets_and_faults_are_one_stack(asked: questions.Questions) -> None:
    one = stack.plan("cpl", REACHER, TINY, search=False)
    assert len(one.members) == len(one.population()) == 2 * (2 * 2 + 2 * 2)
    source = stack.source_of(asked, one.members)
    assert source.label is not None
    assert source.pair_counts is not None
    assert source.label.shape == (16, 40)
    assert source.pair_counts.tolist() == [condition.budget for _, condition, _ in one.members]


def test_more_labels_hold_all_of_fewer_and_differ_by_seed() -> None:
    few, many = (questions.own_pairs(Condition("regret", budget), 3, 40) for budget in (10, 40))
    assert torch.equal(few, many[:10])
    assert sorted(many.tolist()) == list(range(40))
    assert not torch.equal(few, questions.own_pairs(Condition("regret", 10), 4, 40))


def test_both_labelers_answer_the_same_pairs_and_faults_are_as_told(asked: questions.Questions) -> None:
    plain = {labels: asked.answers(Condition(labels), 0) for labels in settings.LABELS}
    one, other = plain.values()
    assert one.pairs is other.pairs
    assert not torch.equal(one.label, other.label)
    score, rew = asked.scores["partial_return"], asked.pool.segments.rew
    assert rew is not None
    torch.testing.assert_close(score, rew.double().sum(1))
    truth = (score[asked.pool.second] > score[asked.pool.first]).float()
    assert torch.equal(one.label, truth)
    beta = asked.teacher(Condition("regret", 40, "beta")).beta
    assert beta == pytest.approx(1.0 / float(asked.scores["regret"].std()))
    assert asked.teacher(Condition("regret", 40, "mistakes")).mistake == 0.1
    drawn = [asked.answers(Condition("regret", 40, "beta"), seed).label for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_held_out_pairs_are_of_other_episodes(asked: questions.Questions) -> None:
    mine = {row.numpy().tobytes() for row in asked.dataset.obs}
    held = {step.numpy().tobytes() for step in asked.held_out.segments.obs.flatten(0, 1)}
    pool = {step.numpy().tobytes() for step in asked.pool.segments.obs.flatten(0, 1)}
    assert pool <= mine
    assert not held & mine


def test_scores_are_kept_and_made_anew_for_other_segments(asked: questions.Questions, folder: Path) -> None:
    path = folder / "scores" / "local-reacher-mixed-v1.npz"
    before = path.stat().st_mtime_ns
    again = questions.ask(REACHER, TINY, folder)
    assert path.stat().st_mtime_ns == before
    assert torch.equal(again.scores["regret"], asked.scores["regret"])
    path.write_bytes(b"damaged")
    assert torch.equal(questions.ask(REACHER, TINY, folder).scores["regret"], asked.scores["regret"])
    other = questions.ask(REACHER, dataclasses.replace(TINY, data_seed=5), folder)
    assert not torch.equal(other.scores["regret"], asked.scores["regret"])
    questions.ask(REACHER, TINY, folder)


# --- a stack ----------------------------------------------------------------------------------------------------------


def test_a_member_of_the_stack_is_the_member_alone(asked: questions.Questions) -> None:
    """The row of one seed and condition does not depend on the others beside it."""
    one = stack.plan("cpl", REACHER, TINY, search=False)
    alone = dataclasses.replace(one, members=((0, Condition("regret", 10), 1),))
    results = [stack.train(each, asked) for each in (one, alone)]
    place = results[0]["members"].index([0, "regret", 10, "none", 1])
    mine = results[1]["members"].index([0, "regret", 10, "none", 1])
    np.testing.assert_allclose(results[0]["returns"][place], results[1]["returns"][mine], rtol=1e-4)
    assert results[0]["accuracy"][place] == pytest.approx(results[1]["accuracy"][mine], abs=0.07)


def test_reliability_counts_by_predicted_probability() -> None:
    delta = np.array([0.0, 10.0, -10.0, -10.0, math.log(3.0), math.nan])  # 0.5, ~1, ~1, ~1, 0.75
    label = np.array([1.0, 1.0, 0.0, 1.0, 0.9, 1.0])
    count, sure, agrees = np.array(stack.reliability(delta, label))
    assert count.tolist() == [1, 0, 0, 0, 0, 1, 0, 0, 0, 3]
    np.testing.assert_allclose([sure[0], sure[5], sure[9]], [0.5, 0.75, 3.0], atol=1e-3)
    np.testing.assert_allclose([agrees[0], agrees[5], agrees[9]], [1.0, 0.9, 2.0])
    assert records.calibration_error([count.tolist(), sure.tolist(), agrees.tolist()]) == pytest.approx(
        (0.5 + 0.15 + 1.0) / 5, abs=1e-3
    )


# --- what it leaves behind --------------------------------------------------------------------------------------------


def test_a_row_per_member(folder: Path) -> None:
    rows = rows_of(folder / "preferences.csv")
    found = [tuple(row[name] for name in ("agent", "labels", "budget", "noise", "seed")) for row in rows]
    expected = [
        (agent, one.labels, str(one.budget), one.noise, str(seed))
        for agent in AGENTS
        for one in conditions(agent, TINY)
        for seed in (0, 1)
    ]
    assert found == expected
    low, high = data.load(REACHER.dataset).info["reference"]
    for row in rows:
        assert float(row["score_last"]) <= float(row["score_best"])
        score = 100 * (float(row["return_last"]) - low) / (high - low)
        assert float(row["score_last"]) == pytest.approx(score, abs=1e-2)
        assert (row["held_out_accuracy"] == "") == (row["agent"] in ("iql", "bc"))
        assert (row["calibration_error"] == "") == (row["agent"] in ("iql", "bc", "sft"))
        assert (float(row["label_errors"]) > 0) == (row["noise"] != "none")
        assert (row["updates"], row["episodes"], row["device"]) == ("8", "1", "cpu")
        assert "torch" in row["versions"]
        assert "mujoco" in row["versions"]


def test_the_other_tables_add_up(folder: Path) -> None:
    found = read_study(folder)
    for row in found.members:
        if row["held_out_accuracy"]:
            same = {name: row[name] for name in ("agent", "dataset", "labels", "budget", "noise")}
            gaps = [one for one in found.gaps if all(one[name] == value for name, value in same.items())]
            assert [one["gap"] for one in gaps] == list(GAPS)
            mean = np.average([float(one["accuracy"]) for one in gaps], weights=[int(one["pairs"]) for one in gaps])
            seeds = [float(one["held_out_accuracy"]) for one in found.of(**same)]
            assert mean == pytest.approx(np.mean(seeds), abs=1e-3)
        keys = ("agent", "labels", "budget", "noise")
        last = [one for one in found.curves if all(one[name] == row[name] for name in keys)]
        assert [one["updates"] for one in last] == ["4", "8"]
    counts = {(row["agent"], row["labels"], row["budget"], row["noise"]): 0 for row in found.odds}
    for row in found.odds:
        counts[row["agent"], row["labels"], row["budget"], row["noise"]] += int(row["count"])
    assert set(counts.values()) == {2 * 30}  # two seeds judge thirty pairs
    config = json.loads((folder / "config.json").read_text())
    assert config["cpl on local/reacher/mixed-v1"]["configs"][0]["alpha"] == agents.find("cpl").config().alpha


def test_figures_are_drawn(folder: Path) -> None:
    for name in ("budgets.png", "curves.png", "accuracy.png", "odds.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")


def test_what_is_there_is_not_trained_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (folder / "preferences.csv").read_bytes()
    trained: list[str] = []
    real = stack.train

    def listed(one: stack.Plan, asked: questions.Questions) -> dict[str, Any]:
        trained.append(one.name)
        return real(one, asked)

    monkeypatch.setattr(stack, "train", listed)
    study.preferences(options(folder))
    assert not trained
    assert "5 of 5 stacks are there already" in capsys.readouterr().out
    lost = folder / "stacks" / "local-reacher-mixed-v1-sft.json"
    lost.unlink()
    study.preferences(options(folder))
    assert trained == ["local-reacher-mixed-v1-sft"]
    after = (folder / "preferences.csv").read_text().splitlines()
    differing = [line for line, other in zip(before.decode().splitlines(), after) if line != other]
    assert all(line.startswith("sft,") for line in differing)  # their seconds


def test_other_settings_are_trained_anew(folder: Path) -> None:
    one = stack.plan("bc", REACHER, TINY, search=False)
    rows = questions.ask(REACHER, TINY, folder).dataset.fingerprint
    assert stack.finished(one, folder, rows) is not None
    assert stack.finished(one, folder, "other data") is None
    assert stack.finished(dataclasses.replace(one, settings=({"lr": 0.1},)), folder, rows) is None
    longer = dataclasses.replace(one, scale=dataclasses.replace(TINY, updates=9))
    assert stack.finished(longer, folder, rows) is None


def test_members_that_come_later_are_trained_alone(asked: questions.Questions, tmp_path: Path) -> None:
    rows = asked.dataset.fingerprint
    few = dataclasses.replace(TINY, seeds=(0,), budgets=(10,), noisy_budget=0)
    first, second = (
        stack.plan("cpl", REACHER, scale, search=False) for scale in (few, dataclasses.replace(few, seeds=(0, 1)))
    )
    stack.work(first.name, lambda *_: None, {first.name: first}, tmp_path)
    rest = stack.left(second, tmp_path, rows)
    assert [member for member in second.members if member not in first.members] == list(rest.members)
    assert stack.finished(second, tmp_path, rows) is None
    stack.work(rest.name, lambda *_: None, {rest.name: rest}, tmp_path)
    assert sorted(path.name for path in (tmp_path / "stacks").iterdir()) == [
        f"{first.name}-2.json",
        f"{first.name}.json",
    ]
    result = stack.finished(second, tmp_path, rows)
    assert result is not None
    assert result["members"] == stack.listed(second.members)
    assert [made["members"] for made in result["made"]] == [2] * 4
    by_name = {tuple(member): returns for member, returns in zip(result["members"], result["returns"])}
    parts = [json.loads(path.read_text()) for path in sorted((tmp_path / "stacks").iterdir())]
    for part in parts:
        assert [by_name[tuple(member)] for member in part["members"]] == part["returns"]
    assert not stack.left(second, tmp_path, rows).members
    again = stack.finished(first, tmp_path, rows)
    assert again is not None
    assert again["members"] == stack.listed(first.members)


def test_ctrl_c_keeps_the_stacks_that_are_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = stack.train

    def stop(one: stack.Plan, asked: questions.Questions) -> dict[str, Any]:
        if one.agent == "bc":
            raise KeyboardInterrupt
        return real(one, asked)

    words = ["bench", "preferences", "--quick", "--out", str(tmp_path), "--tasks", REACHER.dataset, "--processes", "1"]
    words += ["--agents", "iql", "bc"]
    monkeypatch.setattr(stack, "train", stop)
    assert main(words) == 130
    assert "1 stack done and kept, the same command goes on from there" in capsys.readouterr().err
    assert not (tmp_path / "preferences.csv").exists()
    monkeypatch.setattr(stack, "train", real)
    assert main(words) == 0
    assert {row["agent"] for row in rows_of(tmp_path / "preferences.csv")} == {"iql", "bc"}


def test_damaged_results_are_told(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"description": ')
    with pytest.raises(InputError, match="damaged, expected the results of a study"):
        kept.find(tmp_path / "x.json", {})
    assert kept.find(tmp_path / "none.json", {}) is None


# --- the search -------------------------------------------------------------------------------------------------------


def test_the_search_records_all_settings_and_chooses_by_mean_rank(tmp_path: Path) -> None:
    study.preferences(options(tmp_path, quick=False, search=True, agents=("cpl", "bc")))
    rows = rows_of(tmp_path / "search.csv")
    assert len(rows) == len(settings.GRIDS["cpl"]) * 2 + len(settings.GRIDS["bc"])
    assert {row["seeds"] for row in rows} == {"100 101"}
    for agent in ("cpl", "bc"):
        mine = [row for row in rows if row["agent"] == agent]
        ranks: dict[str, list[int]] = {}
        for row in mine:
            rivals = [other for other in mine if other["labels"] == row["labels"]]
            rank = 1 + sum(float(other["score_last"]) > float(row["score_last"]) for other in rivals)
            ranks.setdefault(row["settings"], []).append(rank)
        best = min(ranks, key=lambda name: np.mean(ranks[name]))
        assert {row["settings"] for row in mine if row["chosen"] == "yes"} == {best}


def test_the_study_takes_what_the_search_chose(tmp_path: Path) -> None:
    path = tmp_path / "search.csv"
    choice = json.dumps({"alpha": 0.3})
    lines = [("cpl", choice, "yes"), ("cpl", json.dumps({"alpha": 1.0}), ""), ("sft", "{", "yes")]
    write_rows(path, [dict(zip(("agent", "settings", "chosen"), line)) for line in lines])
    chosen = settings.chosen
    assert chosen("cpl", path) == {"alpha": 0.3}
    assert chosen("iql", path) == {}
    assert chosen("cpl", tmp_path / "none.csv") == {}
    with pytest.raises(InputError, match="damaged, expected one choice of settings for sft"):
        chosen("sft", path)
    assert settings.agent_config("cpl", FULL, {"alpha": 0.3, "lr": 0.5}).lr == 0.5


# --- words that follow from numbers -----------------------------------------------------------------------------------


def row(
    agent: str, labels: str, budget: int, score: float, seed: int, dataset: str = "local/a/x-v1", noise: str = "none"
) -> dict[str, Any]:
    told = {
        "agent": agent,
        "dataset": dataset,
        "labels": labels,
        "budget": str(budget),
        "noise": noise,
        "seed": str(seed),
    }
    rest = {
        "score_last": f"{score + 0.1 * seed:.3f}",
        "score_best": "0",
        "held_out_accuracy": "",
        "calibration_error": "",
    }
    return {**told, **rest, "label_errors": "0.3" if noise != "none" else "0", "episodes": "3", "updates": "8"}


def made(*rows: tuple[str, str, int, float], noise: str = "none") -> Study:
    return Study(tuple(row(*one, seed, noise=noise) for one in rows for seed in range(5)), (), (), ())


def sentence(found: Study, part: str) -> str:
    (told,) = [text for text in preference_findings.findings(found) if part in text]
    return told


def test_tasks_are_counted_on_which_nobody_is_above() -> None:
    found = made(
        ("cpl", "regret", 50, 60.0),
        ("ipl", "regret", 50, 60.2),  # the intervals overlap
        ("sft", "regret", 50, 50.0),
        ("iql", "true_reward", 0, 90.0),  # learns from something else
    )
    told = sentence(found, "no other agent that learned from the same labels")
    assert "of 1 tasks, with 50 labels" in told
    assert "clearly better: regret labels cpl 1, ipl 1 and sft 0." in told


def test_advice_names_the_best_and_how_sure_that_is() -> None:
    found = made(
        ("sft", "regret", 10, 49.9),
        ("sft", "regret", 50, 50.0),
        ("cpl", "regret", 10, 20.0),
        ("cpl", "regret", 50, 60.0),
        ("ipl", "regret", 10, 60.1),
        ("ipl", "regret", 50, 60.2),  # the intervals overlap
        ("iql", "true_reward", 0, 90.0),
        ("bc", "none", 0, 50.0),
    )
    pick, amount, sure = advice(found)
    assert pick.startswith("**Labels by regret: begin with ipl.** With 50 labels its score over the 1 tasks")
    assert "cpl is not told apart from it, and sft is lower. On 1 of 1 single tasks" in pick
    assert amount.endswith("With 10 and 50 of them ipl (regret) scores 60 and 60 (not told apart from 10 on).")
    assert "Not very.** All made 8 updates (0.0008 % of ipl's published ones), with 5 seeds" in sure
    assert "Cloning all data without a label scores 50 [50, 50] over the tasks: above that is ipl (regret)." in sure
    assert "IQL with the true reward scores 90 [90, 90]." in sure
    assert [line[:3] for line in short_table(found).rows] == [
        ("ipl", "regret", "60 [60, 61]"),
        ("cpl", "regret", "60 [60, 60]"),
        ("iql", "true reward", "90 [90, 90]"),
        ("bc", "none", "50 [50, 50]"),
    ]


def test_advice_where_one_agent_is_apart_from_all() -> None:
    found = made(("cpl", "regret", 10, 20.0), ("cpl", "regret", 50, 60.0), ("sft", "regret", 50, 50.0))
    pick, amount, sure = advice(found)
    assert "begin with cpl.**" in pick
    assert "[60, 60]; sft is lower." in pick
    assert "cpl (regret) scores 20 and 60 (more would help)" in amount
    assert "At this budget only.**" in sure
    assert "loning all data" not in sure
    level = made(("cpl", "regret", 50, 50.0), ("sft", "regret", 50, 50.0), ("bc", "none", 0, 50.0))
    assert "not told apart from that is cpl (regret)" in advice(level)[-1]
    assert not advice(made(("cpl", "regret", 50, 60.0))), "there is nothing to choose from"


def test_p_iql_beside_iql() -> None:
    found = made(("p_iql", "partial_return", 50, 80.0), ("iql", "true_reward", 0, 100.0))
    assert "80 % on a x; that is 90 % or more on 0 of 1 tasks" in sentence(found, "P-IQL with 50")
    better = made(("p_iql", "partial_return", 50, 95.0), ("iql", "true_reward", 0, 100.0))
    assert "95 % on a x; that is 90 % or more on 1 of 1 tasks" in sentence(better, "P-IQL with 50")


@pytest.mark.parametrize(("cpl", "side"), [(60.0, "above"), (40.0, "below"), (50.0, "not apart from")])
def test_cpl_beside_sft(cpl: float, side: str) -> None:
    found = made(("cpl", "regret", 50, cpl), ("sft", "regret", 50, 50.0))
    assert f"CPL's interval lies {side} SFT's on a x" in sentence(found, "CPL's interval")


def test_against_cloning_tells_those_apart_alone() -> None:
    found = made(
        ("cpl", "regret", 50, 60.0),
        ("sft", "regret", 50, 50.0),
        ("iql", "true_reward", 0, 40.0),
        ("bc", "none", 0, 50.0),
    )
    told = sentence(found, "Against behaviour cloning")
    assert "cpl (regret) above on 1; iql below on 1; all others on none" in told
    assert "sft" not in told


def test_budgets_and_faults() -> None:
    plain = [
        ("cpl", "regret", 10, 20.0),
        ("cpl", "regret", 50, 60.0),
        ("sft", "regret", 10, 50.0),
        ("sft", "regret", 50, 50.0),
    ]
    faults = made(("cpl", "regret", 50, 30.0), ("sft", "regret", 50, 50.0), noise="mistakes")
    found = Study(made(*plain).members + faults.members, (), (), ())
    assert "higher for cpl (regret, 20 to 60)" in sentence(found, "50 labels instead of 10")
    assert "not told apart for sft (regret)" in sentence(found, "50 labels instead of 10")
    assert "turned round at random (30 % wrong) cost cpl (regret, 60 to 30) something" in sentence(found, "at random")
    assert budget_table(found).rows[0][-2:] == ("60.2 [60.1, 60.4]", "30.2 [30.1, 30.4]")
    assert "The highest score with 50 labels: cpl (regret) with 60.2 on a x" in sentence(found, "highest")


def test_a_member_that_diverged_is_told() -> None:
    members = [row("cpl", "regret", 50, math.nan if seed == 2 else 50.0, seed) for seed in range(5)]
    found = Study(tuple(members), (), (), ())
    assert "(1 of 5 diverged)" in task_table(found).rows[0][2]
    assert math.isnan(over_tasks(found, "cpl", labels="regret").point)


def test_the_time_is_that_of_every_stack() -> None:
    """Also of those that came later: two of 2 members and one of 1 on one data set, an hour each."""
    source = {"versions": "pbrl 1", "command": "pbrl bench preferences", "threads": "1"}
    stacks = (("cpl", 2, "3600.0"), ("cpl", 2, "3600.5"), ("cpl", 1, "3600.0"), ("sft", 1, "3600.0"))
    members = [
        {**row(agent, "regret", 50, 1.0, seed), **source, "members": str(count), "seconds": seconds}
        for agent, count, seconds in stacks
        for seed in range(count)
    ]
    assert "4.0 hours of one core" in preference_part._source(Study(tuple(members), (), (), ()))


def test_results_are_taken_over_and_told(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    tables.take_over(folder)
    assert {path.name for path in tmp_path.iterdir()} == set(preference_part.STUDY_FILES.values())
    part, page = (
        preference_part.preferences_part(tmp_path),
        preference_part.preferences_page(tmp_path, tmp_path / "docs"),
    )
    found = read_study(folder)
    assert all(cell in part for line in narrow(short_table(found)).rows for cell in line)
    assert all(text in part and text in page for text in advice(found))
    assert all(text in part for text in preference_findings.in_short(found))
    for table in (task_table(found), budget_table(found), accuracy_table(found)):
        assert all(cell in page for line in table.rows for cell in line)
    assert all(text in page for text in preference_findings.findings(found))
    assert "(experiments/results/preferences_budgets.png)" in part
    for name in ("budgets.png", "odds.png", "curves.png", "accuracy.png"):
        assert f"(../preferences_{name})" in page
    with pytest.raises(InputError, match=r"results\.csv: unreadable"):
        tables.take_over(tmp_path / "nothing")


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quick": True, "search": True}, "--quick and --search are both given"),
        ({"tasks": ("local/x",)}, "unknown tasks 'local/x', expected of local/pointmass"),
        ({"agents": ("dqn",)}, "unknown agents 'dqn', expected of p_iql"),
        ({"processes": -1}, "processes is -1"),
    ],
)
def test_bad_options(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        StudyOptions(**changes)


def test_data_that_take_hours_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"pbrl data make Hopper-v5 --tier medium-expert .* \(about 2 hours"):
        study.preferences(options(tmp_path, tasks=("local/hopper/medium-expert-v1",)))
    with pytest.raises(InputError, match="no such file, expected the manifest"):
        study.preferences(options(tmp_path, tasks=("local/hopper/medium-expert-v1",), behaviour=tmp_path))


def test_quick_data_are_made_on_the_way(tmp_path: Path) -> None:
    task = Task("local/pointmass/random-v1", "PointMass-v0", "random", 2000, 10, 1)
    find_data([task], None)
    assert len(data.load(task.dataset)) == 2000


def test_stacks_are_the_same_side_by_side(folder: Path, tmp_path: Path) -> None:
    """In processes of their own, which know nothing of the tests' changes, plans alone decide."""
    plans = {one.name: one for one in (stack.plan(name, REACHER, TINY, search=False) for name in ("iql", "bc"))}
    heard: list[str] = []
    side_by_side.run(
        stack.work, list(plans), (plans, tmp_path), lambda name, seconds, score: heard.append(name), processes=2
    )
    assert sorted(heard) == sorted(plans)
    for name in plans:
        mine, other = (json.loads((at / "stacks" / f"{name}.json").read_text()) for at in (tmp_path, folder))
        assert mine["returns"] == other["returns"]
