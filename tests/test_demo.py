"""The demo: what it compares, what it leaves behind, and that its words follow from its numbers."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import agents
import envs
from experiments import side_by_side
from experiments.demo import study as demo
from experiments.demo import training as demo_training
from experiments.demo.settings import LABELS, LONGEST_FIRST, STACKS, DemoConfig, agent_config
from experiments.demo.training import Answers, ask
from experiments.held_out import difference
from experiments.reports import score_tables, tables
from experiments.reports.findings import findings
from experiments.reports.rows import GAPS, Row
from pbrl import data
from pbrl.data import Dataset, hdf5
from pbrl.data.reference_scores import normalise
from pbrl.errors import InputError
from pbrl.members import sweep
from tests.data_cases import dataset as make_dataset

TINY = DemoConfig(
    seeds=2,
    updates=20,
    episodes=2,
    evaluations=2,
    pairs=60,
    held_out_pairs=40,
    hidden=16,
    transitions=32,
    batch_pairs=8,
    processes=1,
)
SHIPPED = "local/reacher/mixed-v1"


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "runs" / "demo"
    demo.run(dataclasses.replace(TINY, out=out))
    return out


def test_artefacts(folder: Path) -> None:
    tables_and_pages = {"results.csv", "labels.csv", "curves.csv", "config.json", "environment.json"}
    tables_and_pages |= {"report.html", "report.md"}
    pictures = {"scores.png", "curves.png", "labels_1.png", "labels_2.png"}
    assert {path.name for path in folder.iterdir()} == tables_and_pages | pictures
    assert all((folder / name).read_bytes().startswith(b"\x89PNG") for name in pictures)
    config = json.loads((folder / "config.json").read_text())
    assert config["demo"]["pairs"] == 60
    assert config["agents"]["cpl"]["alpha"] == agents.find("cpl").config().alpha


def test_a_row_per_agent_labels_and_seed(folder: Path) -> None:
    rows = rows_of(folder / "results.csv")
    found = [(row["agent"], row["labels"], row["seed"]) for row in rows]
    assert found == [(agent, kind, seed) for agent, kinds in STACKS.items() for kind in kinds for seed in ("0", "1")]
    dataset = data.load(SHIPPED)
    for row in rows:
        assert float(row["score_last"]) <= float(row["score_best"])
        expected = normalise(np.array(float(row["return_last"])), tuple(dataset.info["reference"]))
        assert float(row["score_last"]) == pytest.approx(float(expected), abs=1e-3)
        assert (row["fingerprint"], row["episodes"], row["updates"]) == (dataset.fingerprint, "2", "20")
        assert (row["label_accuracy"] == "") == (row["labels"] not in LABELS)
        assert row["command"].startswith("pbrl demo --out ")
        assert row["torch"] == torch.__version__
        assert row["mujoco"]


def test_accuracy_by_gap_adds_up(folder: Path) -> None:
    """The mean over the gaps, weighed by their pairs, is the accuracy of the member."""
    judged = rows_of(folder / "labels.csv")
    for row in rows_of(folder / "results.csv"):
        if row["labels"] not in LABELS:
            continue
        mine = [one for one in judged if all(one[name] == row[name] for name in ("agent", "labels", "seed"))]
        assert {one["judge"] for one in mine} == {row["labels"]}
        assert [one["gap"] for one in mine] == list(GAPS)
        right = sum(float(one["accuracy"]) * int(one["pairs"]) for one in mine)
        assert right / sum(int(one["pairs"]) for one in mine) == pytest.approx(float(row["label_accuracy"]), abs=1e-3)
    assert {one["judge"] for one in judged if one["agent"] == "bc"} == set(LABELS)


def test_same_command_same_scores(folder: Path, tmp_path: Path) -> None:
    demo.run(dataclasses.replace(TINY, out=tmp_path))
    for name in ("labels.csv", "curves.csv", "scores.png"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
    for one, other in zip(rows_of(tmp_path / "results.csv"), rows_of(folder / "results.csv")):
        differing = {name for name in one if one[name] != other[name]}
        assert differing <= {"command", "seconds", "total_seconds"}


def test_an_earlier_demo_is_replaced(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    demo.run(dataclasses.replace(TINY, out=folder))
    assert len(rows_of(folder / "results.csv")) == 16
    printed = capsys.readouterr().out
    assert "Against behaviour cloning" in printed
    assert str(folder / "report.html") in printed.replace("\n", "")


def test_ctrl_c_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(side_by_side, "run", stop)
    with pytest.raises(KeyboardInterrupt, match="starts over"):
        demo.run(dataclasses.replace(TINY, out=tmp_path / "out"))
    assert list((tmp_path / "out").iterdir()) == []


@pytest.fixture(scope="module")
def answers() -> dict[str, Answers]:
    return ask(data.load(SHIPPED), data.resolve(SHIPPED), TINY)


def test_both_labelers_answer_the_same_questions(answers: dict[str, Answers]) -> None:
    one, other = (answers[name] for name in LABELS)
    assert one.held_out is other.held_out
    assert torch.equal(one.training.pairs.segments.obs, other.training.pairs.segments.obs)
    assert not torch.equal(one.training.label, other.training.label)
    for each in (one, other):
        assert set(each.training.label.unique().tolist()) <= {0.0, 0.5, 1.0}
        assert (len(each.training), len(each.difference)) == (TINY.pairs, TINY.held_out_pairs)


def test_held_out_pairs_are_of_other_episodes(answers: dict[str, Answers]) -> None:
    """No step of a held-out segment is in an episode that a training segment is from."""
    dataset = data.load(SHIPPED)
    episode = torch.repeat_interleave(torch.arange(len(dataset.start)), dataset.lengths)
    of_row = {row.numpy().tobytes(): int(number) for row, number in zip(dataset.obs, episode)}
    told = answers["regret"]

    def episodes(obs: torch.Tensor) -> set[int]:
        return {of_row[step.numpy().tobytes()] for step in obs.flatten(0, 1)}

    seen, unseen = episodes(told.training.pairs.segments.obs), episodes(told.held_out.segments.obs)
    assert len(seen) > 50
    assert len(unseen) > 20
    assert not seen & unseen


def test_no_agent_learns_from_held_out_episodes(
    answers: dict[str, Answers], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither from their transitions nor from their mean and deviation."""
    given: list[Dataset] = []

    def stop(work: Any, names: Any, shared: tuple[Any, ...], *args: Any, **kwargs: Any) -> None:
        given.append(shared[0])
        raise KeyboardInterrupt

    monkeypatch.setattr(side_by_side, "run", stop)
    with pytest.raises(KeyboardInterrupt):
        demo.run(dataclasses.replace(TINY, out=tmp_path / "out"))
    (learned,) = given
    whole = data.load(SHIPPED)
    rows = {row.tobytes() for row in learned.obs.numpy()}
    assert len(learned.start) == 320
    assert not rows & {step.tobytes() for step in answers["regret"].held_out.segments.obs.flatten(0, 1).numpy()}
    assert rows >= {step.tobytes() for step in answers["regret"].training.pairs.segments.obs.flatten(0, 1).numpy()}
    assert learned.spec.obs_mean == pytest.approx(learned.obs.double().mean(0).tolist())
    assert learned.spec.obs_mean != whole.spec.obs_mean


def learner_of(name: str, dataset: Dataset) -> Any:
    return agents.find(name).make(dataset.spec, sweep(agent_config(name, TINY), [3, 4]))


def test_judgements(answers: dict[str, Answers]) -> None:
    dataset, segments = data.load(SHIPPED), answers["regret"].held_out.segments
    cpl, bc, p_iql, iql = (learner_of(name, dataset) for name in ("cpl", "bc", "p_iql", "iql"))
    obs, act = (x[7].expand(2, -1, -1) for x in (segments.obs, segments.act))

    def judged(learner: Any) -> torch.Tensor:
        worth: torch.Tensor = learner.judge(*(x.expand(2, *x.shape) for x in (segments.obs, segments.act)))
        return worth[:, 7]

    weight = 0.1 * 0.99 ** torch.arange(segments.length)
    torch.testing.assert_close(judged(cpl), -((cpl.act(obs) - act).square().sum(-1) * weight).sum(-1))
    torch.testing.assert_close(judged(bc), -(bc.act(obs) - act).square().sum((1, 2)))
    torch.testing.assert_close(judged(p_iql), p_iql.reward(obs, act).sum(-1))
    pairs = answers["regret"].held_out
    ours = difference(p_iql, pairs)
    assert ours is not None
    assert ours.shape == (2, len(pairs))
    first, second = (
        p_iql.reward(*(x[i].expand(2, -1, -1) for x in (segments.obs, segments.act))).sum(-1)
        for i in (int(pairs.first[0]), int(pairs.second[0]))
    )
    np.testing.assert_allclose(ours[:, 0], (second - first).numpy(), atol=1e-5)
    assert difference(iql, pairs) is None, "IQL does not judge segments"


def test_equal_budgets() -> None:
    """Every agent has the networks, learning rate and normalisation that the settings name, and half for each stage."""
    config = DemoConfig(hidden=48, lr=0.002, updates=100)
    for name in STACKS:
        made = agent_config(name, config)
        assert (made.hidden, made.lr, made.normalize_obs) == ((48, 48), 0.002, True)
        assert made.dropout == agents.find(name).config().dropout, "what is not named above is the default"
    assert {agent_config(name, config).bc_updates for name in ("sft", "cpl")} == {50}
    p_iql = agent_config("p_iql", config)
    assert (p_iql.reward_updates, p_iql.reward_hidden, p_iql.reward_lr) == (50, (48, 48), 0.002)
    assert sorted(LONGEST_FIRST) == sorted(STACKS)
    assert set(STACKS) <= set(agents.names())


def test_standing_still_is_action_zero() -> None:
    dataset = data.load(SHIPPED)
    env = envs.make(dataset.env, 1)
    returns = []
    for seed in (1_000_000, 1_000_001):
        env.reset([seed])
        returns.append(sum(float(env.step(np.zeros((1, 2)))[1][0]) for _ in range(50)))
    env.close()
    expected = normalise(np.array(returns), tuple(dataset.info["reference"])).mean()
    assert demo.standing_still(dataset, 2) == pytest.approx(float(expected))


BAD: dict[str, tuple[Callable[[], DemoConfig], str]] = {
    "no seeds": (lambda: DemoConfig(seeds=0), "seeds is 0"),
    "no updates": (lambda: DemoConfig(updates=0), "updates is 0"),
    "more evaluations than updates": (lambda: DemoConfig(updates=10, evaluations=11), "evaluations is 11"),
    "all held out": (lambda: DemoConfig(held_out=1.0), "held_out is 1"),
    "too few held-out pairs": (lambda: DemoConfig(held_out_pairs=3), "held_out_pairs is 3"),
    "no learning rate": (lambda: DemoConfig(lr=0.0), "lr is 0"),
    "endless learning rate": (lambda: DemoConfig(lr=math.inf), "lr is inf"),
    "unknown data": (lambda: DemoConfig(dataset="local/reecher/mixed-v1"), "unknown data set"),
    "long segments": (lambda: dataclasses.replace(TINY, segment_length=51), "51"),
    "almost nothing held out": (lambda: dataclasses.replace(TINY, held_out=0.001), "400 episodes"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_told_before_any_training(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "run", lambda *args, **kwargs: pytest.fail("training has begun"))
    make, words = BAD[case]
    with pytest.raises(InputError, match=words):
        demo.run(dataclasses.replace(make(), out=tmp_path / "out"))


def test_data_without_what_the_demo_needs(tmp_path: Path) -> None:
    plain = make_dataset((30,) * 20, "x" * 20)
    for name, dataset, words in (
        ("no-env", dataclasses.replace(plain, env=""), "names no environment"),
        ("no-reference", dataclasses.replace(plain, env="PointMass-v0", info={}), "names no reference scores"),
        ("no-oracle", dataclasses.replace(plain, env="PointMass-v0", info={"reference": [-1.0, 1.0]}), "oracle"),
    ):
        path = tmp_path / f"{name}.hdf5"
        hdf5.save(dataset, path)
        with pytest.raises(InputError, match=words):
            demo.run(dataclasses.replace(TINY, dataset=str(path), out=tmp_path / "out"))


def test_out_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(InputError, match="out"):
        demo.run(dataclasses.replace(TINY, out=tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "mine"


def result(agent: str, labels: str, scores: list[float]) -> list[Row]:
    shared = {"agent": agent, "labels": labels, "score_still": "50.0", "label_accuracy": "0.75"}
    return [{**shared, "score_last": str(score), "score_best": str(score + 1)} for score in scores]


def test_findings_follow_from_the_numbers() -> None:
    low, high = [60.0, 61.0, 62.0, 63.0], [90.0, 91.0, 92.0, 93.0]
    rows = [
        *result("bc", "none", low),
        *result("sft", "partial_return", high),
        *result("sft", "regret", low),
        *result("cpl", "partial_return", [10.0, 11.0, 12.0, 13.0]),
        *result("cpl", "regret", high),
        *result("iql", "true_reward", high),
    ]
    labels, cloning, still = findings(rows)
    assert "for sft partial-return labels score higher" in labels
    assert "for cpl regret labels score higher" in labels
    assert "overlap" not in labels
    assert "sft (partial return), cpl (regret) and iql above it" in cloning
    assert "cpl (partial return) below it" in cloning
    assert "sft (regret) not told apart from it" in cloning
    assert still.endswith("scores 50.0; all intervals but that of cpl (partial return) lie above that.")


def test_members_that_diverged_are_counted() -> None:
    assert score_tables.interval_text([80.0, math.nan, 80.0]) == "80.0 [80.0, 80.0] (1 of 3 diverged)"
    assert score_tables.interval_text([math.nan]) == "none (1 of 1 diverged)"
    table = score_tables.score_table(result("bc", "none", [80.0, math.nan]))
    assert "(1 of 2 diverged)" in table.rows[0][3]


def test_readme_agrees_with_its_sources() -> None:
    """If this fails: python -m experiments.reports.tables."""
    text = (tables.ROOT / "README.md").read_text(encoding="utf-8")
    assert tables.fill(text, tables.generated()) == text
    for path, page in tables.pages().items():
        assert path.read_text(encoding="utf-8") == page, path.name
    with pytest.raises(InputError, match="begin demo"):
        tables.fill("nothing", {"demo": "part"})


# side_by_side


def piece(name: str, tick: Callable[..., None], folder: Path) -> tuple[str, int]:
    """Work for the processes below."""
    tick("begun", torch.get_num_threads())
    if name == "wrong":
        raise InputError("the wrong one")
    if name == "killed":
        os.kill(os.getpid(), 9)
    if name == "slow":
        time.sleep(60)
        (folder / "slow").touch()
    return name, os.getpid()


def test_pieces_in_other_processes(tmp_path: Path) -> None:
    heard: list[Any] = []
    done = side_by_side.run(piece, ["a", "b"], (tmp_path,), lambda *news: heard.append(news), processes=2)
    assert {name: found for name, (found, _) in done.items()} == {"a": "a", "b": "b"}
    assert len({os.getpid(), done["a"][1], done["b"][1]}) == 3
    assert sorted(heard) == [("a", "begun", 1), ("b", "begun", 1)]


@pytest.mark.parametrize(("name", "error"), [("wrong", InputError), ("killed", RuntimeError)])
def test_a_piece_that_fails_stops_the_others(name: str, error: type[Exception], tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(error, match=name):
        side_by_side.run(piece, ["slow", name], (tmp_path,), lambda *news: None, processes=2)
    assert time.monotonic() - began < 50
    assert not (tmp_path / "slow").exists()


def test_one_process_is_this_one(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    done = side_by_side.run(piece, ["a"], (tmp_path,), lambda *news: None, processes=1)
    assert done["a"] == ("a", os.getpid())
    assert torch.get_num_threads() == before
    assert demo_training.train.__module__ == "experiments.demo.training"  # as other processes find it
