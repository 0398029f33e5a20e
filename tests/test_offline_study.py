"""The offline study: its settings, that it goes on where it was stopped, D4RL's files, words from numbers."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

import agents
from experiments.cli import main
from experiments.offline_study import settings, stack, study
from experiments.offline_study.settings import (
    AGENTS,
    FULL,
    PAPER,
    TASKS,
    OfflineOptions,
    Scale,
    Task,
    agent_config,
    changed,
    updates_of,
)
from experiments.reports import offline_part, tables
from experiments.reports.offline_findings import findings, in_short
from experiments.reports.offline_rows import Offline, read_offline, read_published
from experiments.reports.offline_tables import best_table, last_table, over_datasets, published_table
from experiments.reports.page import narrow
from pbrl import data, evaluation
from pbrl.errors import InputError
from pbrl.evaluation import Scores

TINY = Scale(
    "small", seeds=(0, 1), updates=6, evaluations=3, episodes=1, hidden=(8,), transitions=8, play_seed=7
)  # fmt: skip
POINT = Task("local/pointmass/random-v1", "PointMass-v0", "hopper-medium", "random", 2000)
SOME = ("edac", "td3_bc", "bc")


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module", autouse=True)
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The quick study is tiny and on the point mass, and data are made elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings, "QUICK", TINY)
        patch.setattr(settings, "QUICK_TASKS", {POINT.dataset: POINT})
        patch.setitem(settings.TASKS, POINT.dataset, POINT)
        patch.setenv("PBRL_DATA_DIR", str(tmp_path_factory.mktemp("data")))
        yield


def options(out: Path, **changes: Any) -> OfflineOptions:
    given: dict[str, Any] = {"quick": True, "agents": SOME, "processes": 1}
    return OfflineOptions(out=out, **{**given, **changes})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("study")
    study.offline(options(out))
    return out


def plan(agent: str, **changes: Any) -> stack.Plan:
    return stack.Plan(agent, POINT, dataclasses.replace(TINY, **changes), "cpu", stack.load(POINT).fingerprint)


# --- settings ---------------------------------------------------------------------------------------------------------


def test_the_full_design() -> None:
    kinds = {(task.env, task.tier) for task in TASKS.values() if task is not POINT}
    tiers = ("medium", "medium-replay", "medium-expert")
    assert kinds == {(env, tier) for env in ("Hopper-v5", "HalfCheetah-v5") for tier in tiers}
    assert set(AGENTS) == {"bc", "td3_bc", "awac", "iql", "cql", "sac_n", "edac", "a2pr"}
    assert len(FULL.seeds) >= 5
    assert not {*FULL.seeds} & {100, 101}, "the seeds that settings were tried on"


@pytest.mark.parametrize(
    ("agent", "kind", "expected"),
    [
        ("sac_n", "hopper-medium-v2", {"critics": 500}),
        ("sac_n", "hopper-medium-replay", {"critics": 200}),
        ("sac_n", "halfcheetah-medium-expert", {"critics": 10}),
        ("edac", "halfcheetah-medium-expert", {"critics": 10, "diversity": 5.0}),
        ("edac", "halfcheetah-medium-replay", {"critics": 10, "diversity": 1.0}),
        ("edac", "hopper-medium", {"critics": 50, "diversity": 1.0}),
        ("a2pr", "hopper-medium-v2", {"cloning": 0.4, "gamma": 0.995, "alpha": 2.5}),
        ("a2pr", "hopper-medium-replay", {"cloning": 0.5, "gamma": 0.995}),
        ("a2pr", "halfcheetah-medium", {"cloning": 1.0, "alpha": 40.0, "gamma": 0.99}),
        ("a2pr", "halfcheetah-medium-expert", {"cloning": 0.5, "alpha": 2.5}),
        ("cql", "hopper-medium", {"conservatism": 10.0, "policy_lr": 3e-5, "actions": 10}),
        ("iql", "hopper-medium", {"expectile": 0.7, "temperature": 3.0, "actor_decay": 1_000_000}),
    ],
)
def test_published_settings_by_task(agent: str, kind: str, expected: dict[str, Any]) -> None:
    config = agent_config(agent, kind, PAPER)
    assert {name: getattr(config, name) for name in expected} == expected
    assert config.hidden == agents.find(agent).config().hidden
    assert config.batch_size == 256
    assert config.lr == 3e-4


def test_published_updates() -> None:
    assert {agent: updates_of(agent, PAPER) for agent in ("bc", "iql", "sac_n", "edac")} == {
        "bc": 1_000_000,
        "iql": 1_000_000,
        "sac_n": 3_000_000,
        "edac": 3_000_000,
    }
    assert {updates_of(agent, FULL) for agent in AGENTS} == {FULL.updates}


@pytest.mark.parametrize("agent", AGENTS)
def test_a_small_budget_says_what_it_changes(agent: str) -> None:
    for task in TASKS.values():
        config = agent_config(agent, task.kind, FULL)
        assert (config.hidden, config.batch_size, config.lr) == (FULL.hidden, FULL.transitions, 1e-3)
        assert config.normalize_obs
        assert getattr(config, "critics", 0) <= 10
        told = changed(agent, task.kind, FULL)
        default = agents.find(agent).config()
        assert told
        assert all(getattr(config, name) == value != getattr(default, name) for name, value in told.items())


# --- what it leaves behind --------------------------------------------------------------------------------------------


def test_a_row_per_member(folder: Path) -> None:
    rows = rows_of(folder / "offline.csv")
    assert [(row["agent"], row["seed"]) for row in rows] == [(agent, seed) for agent in SOME for seed in "01"]
    made = data.load(POINT.dataset)
    low, high = made.info["reference"]
    for row in rows:
        assert float(row["score_last"]) <= float(row["score_best"])
        score = 100 * (float(row["return_last"]) - low) / (high - low)
        assert float(row["score_last"]) == pytest.approx(score, abs=1e-2)
        assert (row["updates"], row["widths"], row["batch"], row["episodes"]) == ("6", "8", "8", "1")
        assert (row["data"], row["env"], row["source"]) == (made.fingerprint, "PointMass-v0", "generated")
        assert (row["device"], row["budget"]) == ("cpu", "small")
        assert json.loads(row["settings"]) == {
            name: value
            for name, value in changed(row["agent"], POINT.kind, TINY).items()
            if name not in ("hidden", "batch_size", "actor_decay")
        }
        assert "torch" in row["versions"]
        assert row["command"] == "pbrl bench offline --quick --agents edac td3_bc bc"
    assert [row["updates"] for row in rows_of(folder / "curves.csv")] == ["2", "4", "6"] * 3
    assert json.loads((folder / "config.json").read_text())[f"bc on {POINT.dataset}"]["config"]["lr"] == 1e-3
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_score_of_the_data_is_of_whole_episodes() -> None:
    made = data.Dataset.from_arrays(
        obs=np.arange(5)[:, None],
        act=np.zeros((5, 1)),
        rew=[1.0, 2.0, 4.0, 8.0, 100.0],
        term=[False, True, False, False, False],
        trunc=[False, False, False, True, False],
        next_obs=np.zeros((5, 1)),
    )
    assert stack.mean_return(made) == (3.0 + 12.0) / 2  # the last episode was cut
    cut = data.Dataset.from_arrays([[0.0]], [[0.0]], [5.0], [False], [False], [[1.0]])
    assert stack.mean_return(cut) == 5.0


def test_a_member_of_the_stack_is_the_member_alone(folder: Path, tmp_path: Path) -> None:
    both = json.loads((folder / "stacks" / f"{POINT.name}-td3_bc.json").read_text())
    alone = stack.train(plan("td3_bc", seeds=(1,)), stack.load(POINT), tmp_path)
    np.testing.assert_allclose(alone["returns"][0], both["returns"][1], rtol=1e-4)


def test_what_is_there_is_not_trained_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained: list[str] = []
    real = stack.train

    def listed(one: stack.Plan, *rest: Any) -> dict[str, Any]:
        trained.append(one.agent)
        return real(one, *rest)

    monkeypatch.setattr(stack, "train", listed)
    before = (folder / "curves.csv").read_bytes()
    study.offline(options(folder))
    assert not trained
    assert "3 of 3 stacks are there already" in capsys.readouterr().out
    (folder / "stacks" / f"{POINT.name}-bc.json").unlink()
    study.offline(options(folder))
    assert trained == ["bc"]
    assert (folder / "curves.csv").read_bytes() == before


def test_other_settings_or_data_are_trained_anew(folder: Path) -> None:
    assert stack.finished(plan("bc"), folder) is not None
    assert stack.finished(plan("bc", updates=9), folder) is None
    assert stack.finished(dataclasses.replace(plan("bc"), rows="other data"), folder) is None


def test_a_stack_that_is_stopped_goes_on_with_the_same_bits(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while it plays for the second time: what was learned and scored until the first is kept."""
    real, calls = evaluation.rollout, []

    def stop(*words: Any, **named: Any) -> Scores:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*words, **named)

    monkeypatch.setattr(evaluation, "rollout", stop)
    with pytest.raises(KeyboardInterrupt):
        stack.train(plan("td3_bc"), stack.load(POINT), tmp_path)
    found = stack.train(plan("td3_bc"), stack.load(POINT), tmp_path)
    assert len(calls) == 4  # 1, the stopped one, and two more
    whole = json.loads((folder / "stacks" / f"{POINT.name}-td3_bc.json").read_text())
    assert (found["updates"], found["returns"]) == (whole["updates"], whole["returns"])
    other = stack.train(plan("td3_bc", play_seed=8), stack.load(POINT), tmp_path)  # its checkpoint is of another plan
    assert other["updates"] == [2, 4, 6]
    assert other["returns"] != whole["returns"]


def test_ctrl_c_keeps_the_stacks_that_are_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = stack.train

    def stop(one: stack.Plan, *rest: Any) -> dict[str, Any]:
        if one.agent == "bc":
            raise KeyboardInterrupt
        return real(one, *rest)

    words = ["bench", "offline", "--quick", "--out", str(tmp_path), "--processes", "1", "--agents", "td3_bc", "bc"]
    monkeypatch.setattr(stack, "train", stop)
    assert main(words) == 130
    assert "1 stack done and kept, the same command goes on from there" in capsys.readouterr().err
    assert {row["agent"] for row in rows_of(tmp_path / "offline.csv")} == {"td3_bc"}
    assert (tmp_path / "curves.png").is_file()
    monkeypatch.setattr(stack, "train", real)
    assert main(words) == 0
    assert {row["agent"] for row in rows_of(tmp_path / "offline.csv")} == {"td3_bc", "bc"}


def test_a_member_that_diverges_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(settings.SMALL["td3_bc"], "", {"lr": 1e30})
    study.offline(options(tmp_path, agents=("td3_bc", "bc")))
    rows = rows_of(tmp_path / "offline.csv")
    assert [row["score_last"] for row in rows if row["agent"] == "td3_bc"] == ["nan", "nan"]
    found = read_offline(tmp_path)
    assert findings(found)[-1] == "2 of 4 members diverged: td3_bc on pointmass random."
    assert "(2 of 2 diverged)" in last_table(found).rows[1][1]


# --- D4RL's files -----------------------------------------------------------------------------------------------------


def d4rl_file(folder: Path, name: str = "hopper_medium-v2.hdf5", sizes: tuple[int, int] = (11, 3)) -> Path:
    """A file of the real format: float32 arrays, bool flags, stored successors, metadata of the behaviour policy."""
    generator, rows = np.random.default_rng(0), 300
    path = folder / name
    with h5py.File(path, "w") as file:
        obs = generator.normal(size=(rows + 1, sizes[0])).astype(np.float32)
        columns: dict[str, Any] = {"observations": obs[:-1], "next_observations": obs[1:]}
        columns["actions"] = generator.uniform(-1, 1, (rows, sizes[1])).astype(np.float32)
        columns["rewards"] = generator.normal(1.0, 1.0, rows).astype(np.float32)
        place = np.arange(rows)
        columns["terminals"], columns["timeouts"] = place % 60 == 59, place == 299
        columns["terminals"][299] = False
        columns["infos/action_log_probs"] = np.zeros(rows, np.float32)
        columns["infos/qpos"], columns["infos/qvel"] = np.zeros((rows, 6)), np.zeros((rows, 6))
        for key, values in columns.items():
            file.create_dataset(key, data=values, compression="gzip")
        file["metadata/algorithm"], file["metadata/iteration"] = np.bytes_("SAC"), 100
    return path


def test_d4rls_files_are_played_in_v4_and_labelled(tmp_path: Path) -> None:
    files, out = tmp_path / "files", tmp_path / "out"
    files.mkdir()
    d4rl_file(files)
    (files / "door-human-v1.hdf5").write_bytes(b"of no locomotion task, hence not read")
    words = ["bench", "offline", "--quick", "--out", str(out), "--d4rl-dir", str(files), "--agents", "a2pr", "bc"]
    assert main([*words, "--processes", "1"]) == 0
    rows = rows_of(out / "offline.csv")
    assert {(row["dataset"], row["env"], row["source"]) for row in rows} == {("hopper-medium-v2", "Hopper-v4", "D4RL")}
    assert {float(row["reference_high"]) for row in rows} == {3234.3}
    assert json.loads(rows[0]["settings"])["cloning"] == 0.4  # of hopper-medium
    found = read_offline(out)
    assert "Gymnasium's v4" in last_table(found).caption
    assert set(offline_part.kept_files(out).values()) == {
        "offline_d4rl.csv",
        "offline_curves_d4rl.csv",
        "offline_curves_d4rl.png",
    }


# --- tables and words -------------------------------------------------------------------------------------------------


def row(agent: str, dataset: str, score: float, seed: int, best: float = math.nan) -> dict[str, str]:
    told = {"agent": agent, "dataset": dataset, "seed": str(seed), "score_last": f"{score + 0.1 * seed:.3f}"}
    told |= {"score_best": f"{best:.3f}" if math.isfinite(best) else told["score_last"], "score_of_data": "30"}
    told |= {"episodes": "5", "updates": "8", "budget": "small", "source": "generated", "env": "Hopper-v5"}
    return told


def made(*rows: tuple[str, str, float], best: float = math.nan) -> Offline:
    return Offline(tuple(row(*one, seed, best) for one in rows for seed in range(5)), ())


def sentence(found: Offline, part: str) -> str:
    (told,) = [text for text in findings(found) if part in text]
    return told


def test_sentences_follow_from_the_numbers() -> None:
    found = made(
        ("iql", "local/a/x-v1", 60.0),
        ("bc", "local/a/x-v1", 40.0),
        ("iql", "local/a/y-v1", 10.0),
        ("bc", "local/a/y-v1", 40.0),
    )
    assert "iql above on 1 and below on 1" in sentence(found, "Against cloning")
    told = sentence(found, "highest last score")
    assert "iql on a x (apart from all others) and bc on a y (apart from all others)" in told
    assert "bc 2, iql 1" in sentence(found, "mean of the data's episodes")
    assert sentence(found, "diverged") == "No member diverged."
    assert not [text for text in findings(found) if "random policy" in text]
    fallen = made(("iql", "local/a/x-v1", -1.0), ("bc", "local/a/x-v1", 40.0))
    assert sentence(fallen, "random policy").endswith("or not told apart from it: iql on a x.")
    level = made(("iql", "local/a/x-v1", 40.1), ("bc", "local/a/x-v1", 40.0))
    assert "iql on a x (not apart: bc)" in sentence(level, "highest")
    assert "iql above on 0 and below on 0" in sentence(level, "Against cloning")
    assert not [text for text in findings(level) if "Over all" in text]  # there is but one


def test_over_all_data_sets_agents_lie_above_cloning_or_below() -> None:
    scores = {"iql": 60.0, "td3_bc": 40.1, "bc": 40.0, "edac": 0.0}
    found = made(*((agent, f"local/a/{name}-v1", score) for agent, score in scores.items() for name in "xy"))
    told = sentence(found, "Over all")
    assert told.endswith("intervals above cloning's: iql; below it: edac; not apart from it: td3_bc.")
    assert told in in_short(found)


def test_the_best_evaluation_is_labelled_and_its_gap_told() -> None:
    found = made(("iql", "local/a/x-v1", 40.0), ("bc", "local/a/x-v1", 45.0), best=55.2)
    assert "for iql on a x: 15.0 above the last" in sentence(found, "flatter most")
    assert "which flatter" in best_table(found).caption
    assert best_table(found).rows[0][1].startswith("55.2")


def test_tables_by_hand() -> None:
    found = made(("iql", "local/a/x-v1", 60.0), ("bc", "local/a/x-v1", 40.0), ("bc", "local/a/y-v1", 20.0))
    assert [line[0] for line in last_table(found).rows] == ["bc", "iql", "the data"]
    assert last_table(found).rows[0][1:] == ("40.2 [40.1, 40.4]", "20.2 [20.1, 20.4]", "30.2 [30.1, 30.3]")
    assert last_table(found).rows[1][2:] == ("-", "-")  # not on all data sets
    assert last_table(found).rows[2] == ("the data", "30.0", "30.0", "30.0")
    assert last_table(found, 0).rows[0] == ("bc", "40 [40, 40]", "20 [20, 20]", "30 [30, 30]")
    assert last_table(made(("iql", "local/a/x-v1", -0.3)), 0).rows[0][1] == "0 [0, 0]"  # and not -0
    assert math.isnan(over_datasets(found, "iql").point)


def test_results_are_taken_over_and_told(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    tables.take_over(folder)
    assert {path.name for path in tmp_path.iterdir()} == {"offline.csv", "offline_curves.csv", "offline_curves.png"}
    part, page = offline_part.offline_part(tmp_path), offline_part.offline_page(tmp_path, tmp_path / "docs")
    found = read_offline(folder)
    assert all(cell in part for line in narrow(last_table(found, 0)).rows for cell in line)
    for table in (last_table(found), best_table(found)):
        assert all(cell in page for line in table.rows for cell in line)
    assert all(text in part for text in in_short(found))
    assert all(text in page for text in findings(found))
    assert "(experiments/results/offline_curves.png)" in part
    assert "(../offline_curves.png)" in page
    assert "For context only" not in page
    assert "edac critics 10, lr 0.001, normalize_obs on, target_rate 0.02" not in page  # 10 is the default
    assert "edac lr 0.001, normalize_obs on, target_rate 0.02" in page
    assert settings.SMALL_CHANGES in page
    for text in (part, page):
        assert "6 updates of 8 transitions, hidden layers 8." in text
        (missing,) = [line for line in text.splitlines() if line.startswith("**Not trained")]
        assert "a2pr on all data sets; awac on all data sets; bc on hopper medium, hopper medium-replay, " in missing


def test_every_budget_and_source_has_its_sections(folder: Path, tmp_path: Path) -> None:
    for ending in ("", "_paper"):
        for name in ("offline", "offline_curves"):
            (tmp_path / f"{name}{ending}.csv").write_bytes((folder / f"{name[8:] or name}.csv").read_bytes())
    page = offline_part.offline_page(tmp_path, tmp_path / "docs")
    assert page.count("## After the last update") == 2
    assert "## After the last update: the published budget" in page
    part = offline_part.offline_part(tmp_path)
    assert "experiments/results/offline.csv" in part
    assert "experiments/results/offline_paper.csv" in part


def test_published_scores_stand_apart() -> None:
    rows = read_published(tables.RESULTS / "offline_published.csv")
    table = published_table(rows)
    assert {len(line) for line in table.rows} == {1 + 6}
    assert "Other data, another simulator, other budgets" in table.caption
    assert "CORL's README" in table.caption
    (line,) = [line for line in table.rows if line[0] == "sac_n"]
    assert line[table.header.index("hopper-medium-v2")] == "40.8 ± 9.9"
    assert "a2pr" not in {line[0] for line in table.rows}, "nobody here has read its table"


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quick": True, "budget": "paper"}, "--quick and --budget paper are both given"),
        ({"tasks": ("local/x",)}, "unknown tasks 'local/x', expected of local/hopper/medium-v1"),
        ({"agents": ("dqn",)}, "unknown agents 'dqn', expected of edac"),
        ({"agents": ("bc", "bc")}, "agents names bc twice"),
        ({"processes": -1}, "processes is -1"),
        ({"d4rl_dir": Path("/nowhere")}, "--d4rl-dir is /nowhere, expected a folder with D4RL's files"),
    ],
)
def test_bad_options(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        OfflineOptions(**changes)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there() -> None:
    with pytest.raises(InputError, match="torch finds no GPU here"):
        OfflineOptions(device="cuda")


def failing(tmp_path: Path, capsys: pytest.CaptureFixture[str], files: Path) -> str:
    """What the command says about files that it cannot use: one sentence, and nothing is left behind."""
    out = tmp_path / "out"
    assert main(["bench", "offline", "--quick", "--out", str(out), "--d4rl-dir", str(files)]) == 2
    assert not out.exists()
    return capsys.readouterr().err


def test_a_folder_without_d4rls_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "files").mkdir()
    assert "no file of halfcheetah, hopper, walker2d" in failing(tmp_path, capsys, tmp_path / "files")


def test_data_of_another_simulator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    d4rl_file(tmp_path, sizes=(17, 6))
    told = failing(tmp_path, capsys, tmp_path)
    assert "environment Hopper-v4 has 11 observations and 3 actions, expected 17 and 6" in told


def test_data_that_are_damaged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = d4rl_file(tmp_path)
    with h5py.File(path, "a") as file:
        file["observations"][3, 2] = np.nan
    assert "obs is nan at row 3" in failing(tmp_path, capsys, tmp_path)
    path.write_bytes(b"no HDF5")
    assert str(path) in failing(tmp_path, capsys, tmp_path)


def test_a_checkpoint_that_is_damaged(tmp_path: Path) -> None:
    stack.train(plan("bc"), stack.load(POINT), tmp_path)
    weights = next(tmp_path.glob("weights-*"))
    weights.write_bytes(b"damaged")
    with pytest.raises(InputError, match="damaged, expected a file with the SHA-256"):
        stack.train(plan("bc"), stack.load(POINT), tmp_path)


def test_data_that_take_hours_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"pbrl data make Hopper-v5 --tier medium --steps 100000 \(about 2 hours"):
        study.offline(options(tmp_path, tasks=("local/hopper/medium-v1",)))
