"""The study of fronts: equal steps for all, a shared first stage, going on where it stopped, words from numbers."""

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

import envs
from experiments import kept
from experiments.cli import main
from experiments.morl_study import fronts, records, settings, study
from experiments.morl_study.settings import EXTENSIONS, FULL, QUICK, TASKS, Plan, Scale, StudyOptions, Task
from experiments.reports import morl_findings, morl_part, tables
from experiments.reports.morl_rows import KNOWN, Fronts, read_fronts
from experiments.reports.morl_tables import quality_table, short, spread, task_table, volume_table
from pbrl import pareto
from pbrl.errors import InputError
from pbrl.records import checkpoint

SIZES: dict[str, Any] = {"steps": 8, "environments": 2, "batch_size": 8, "epochs": 1, "hidden": (4,), "archive": 6}
TINY: dict[str, Task] = {
    "TwoObjectiveLQR-v0": Task("TwoObjectiveLQR-v0", "two", (-3000.0, -3000.0), 0.9, 4, 0, 1, {**SIZES, "steps": 50}),
    "ResourceGathering-v0": Task("ResourceGathering-v0", "three", (-5.0, -5.0, -5.0), 0.9, 2, 0, 2, SIZES),
    "FruitTree5-v0": Task("FruitTree5-v0", "six", (-1.0,) * 6, 1.0, 1, 0, 1, SIZES, drawn_episodes=2),
}
SCALE = Scale(seeds=(0, 3), steps=4 * 16 * 6, measurements=4)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings, "TASKS", TINY)
        patch.setattr(settings, "QUICK", SCALE)
        patch.setattr(settings, "QUICK_TASKS", tuple(TINY))
        yield


def options(out: Path, **changes: Any) -> StudyOptions:
    return StudyOptions(out=out, **{"quick": True, "seeds": SCALE.seeds, "processes": 1, **changes})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("study")
    study.morl(options(out))
    return out


# --- the design -------------------------------------------------------------------------------------------------------


def test_the_full_design() -> None:
    objectives = [len(task.reference) for task in TASKS.values()]
    assert {2, 3, 6} <= set(objectives)
    assert {"mo-hopper-2obj-v5", "mo-halfcheetah-v5", "DeepSeaTreasureConcave-v0"} <= set(TASKS)
    assert len(FULL.seeds) >= 3
    for scale in (FULL, QUICK):
        for task in TASKS.values():
            plan = Plan(task, scale)
            spent = plan.updates * plan.steps_per_update
            wanted = task.env_steps if scale.steps is None else scale.steps
            assert wanted - plan.steps_per_update < spent <= wanted
            assert 0.4 * plan.updates <= plan.first_updates < plan.updates


def test_ways_differ_in_what_follows_the_first_stage_alone() -> None:
    plan = Plan(TASKS["mo-hopper-v5"], FULL)
    configs = {way: dataclasses.asdict(plan.config(way)) for way in EXTENSIONS}
    differ = {name for name in configs["none"] if len({str(one[name]) for one in configs.values()}) > 1}
    assert differ == {"constraint", "init_updates"}
    assert configs["none"]["init_updates"] > plan.updates, "the first stage goes on to the end"
    assert configs["barrier"]["init_updates"] == configs["lagrangian"]["init_updates"] == plan.first_updates


# --- what it finds ----------------------------------------------------------------------------------------------------


def test_all_ways_take_equally_many_steps(folder: Path) -> None:
    for env, task in TINY.items():
        rows = [row for row in rows_of(folder / "morl.csv") if row["env"] == env]
        assert [(row["agent"], row["seed"]) for row in rows] == [
            (agent, seed) for agent in ("ppo", *EXTENSIONS.values()) for seed in ("0", "3")
        ]
        plan = Plan(task, SCALE)
        assert {int(row["env_steps"]) for row in rows} == {plan.updates * plan.steps_per_update}
        growth = [row for row in rows_of(folder / "growth.csv") if row["env"] == env]
        last = max(int(row["env_steps"]) for row in growth)
        assert last == plan.updates * plan.steps_per_update


def test_going_on_from_the_checkpoint_is_a_run_without_a_stop(folder: Path) -> None:
    plan = Plan(TINY["TwoObjectiveLQR-v0"], SCALE)
    learner, playing = fronts._made(plan, "barrier")
    fronts._learn(plan, learner, playing, plan.updates)
    playing.env.close()
    told = fronts.finished(plan, "barrier", folder)
    assert told is not None
    for place, front in enumerate(told["sets"]["c_morl"]):
        mine = learner.archive.points[place][learner.archive.used[place]]
        assert torch.equal(mine.double(), torch.tensor(front["told"], dtype=torch.float64))


def test_what_is_measured_is_what_the_policies_get(folder: Path) -> None:
    """By the kept end of a run and the regulator's own rules."""
    plan = Plan(TINY["TwoObjectiveLQR-v0"], SCALE)
    told = fronts.finished(plan, "none", folder)
    assert told is not None
    learner, playing = fronts._made(plan, "none")
    ends = folder / "ends" / f"{plan.name}-none"
    config = fronts._fingerprint(plan, "none")
    checkpoint.load(ends, learner, agent="c_morl", config=config)
    env = envs.make(plan.task.env, len(learner.core.keys))
    obs, total = env.reset([0] * env.copies), np.zeros((env.copies, 2))
    for t in range(50):
        with torch.inference_mode():
            act = learner.core.act(torch.as_tensor(obs, dtype=torch.float32)[:, None]).squeeze(1)
        obs, rew, _, _ = env.step(act.numpy())
        total += 0.9**t * rew
    playing.env.close()
    for place in range(2):  # policy s of member p is row s P + p
        assert np.allclose(told["sets"]["ppo"][place]["measured"], total[place::2], rtol=1e-4)


def test_rows_say_by_which_convention(folder: Path) -> None:
    for row in rows_of(folder / "morl.csv"):
        task = TINY[row["env"]]
        assert row["reference_point"] == pareto.format_reference(task.reference)
        assert float(row["gamma"]) == task.gamma
        points = [
            [float(x) for x in point["values"].split("|")]
            for point in rows_of(folder / "fronts.csv")
            if all(point[name] == row[name] for name in ("agent", "env", "seed"))
        ]
        assert len(points) == int(row["points"]) <= int(row["policies"])
        assert pareto.non_dominated(points).all()
        assert pareto.hypervolume(points, task.reference) == pytest.approx(float(row["hypervolume"]), rel=1e-3)
        assert float(row["served_utility"]) <= float(row["expected_utility"]) + 1e-6
        assert (row["known_hypervolume"] == "") == (row["env"] == "ResourceGathering-v0")
        assert (row["drawn_hypervolume"] == "") == (row["env"] != "FruitTree5-v0")
    known = [row for row in rows_of(folder / "fronts.csv") if row["agent"] == KNOWN]
    assert [row["env"] for row in known] == ["TwoObjectiveLQR-v0"] * 51 + ["FruitTree5-v0"] * 32
    still = {row["env"]: row["still"] for row in rows_of(folder / "morl.csv")}
    leaves = records.known_front(TINY["FruitTree5-v0"])
    assert leaves is not None
    assert still["FruitTree5-v0"] == pareto.format_reference(leaves[0])


def test_the_quality_of_a_set_by_hand() -> None:
    task = Task("x", "x", (0.0, 0.0), 1.0, 1, 0, 1)
    measured = np.array([[4.0, 1.0], [1.0, 3.0], [1.0, 1.0], [math.nan, 9.0]])
    told = np.array([[1.0, 1.0], [2.0, 1.0], [0.0, 5.0], [9.0, 9.0]])  # serves 1 for (1, 0), 2 for (0, 1)
    found = records.quality(task, told, measured)
    assert found == {
        "hypervolume": 6.0,
        "expected_utility": 3.5,
        "served_utility": 1.0,
        "sparsity": 13.0,
        "points": 2,
    }
    nothing = records.quality(task, told[:1], np.full((1, 2), math.nan))
    assert (nothing["hypervolume"], nothing["points"]) == (0.0, 0)


def test_known_fronts() -> None:
    known = {"DeepSeaTreasure-v0": 401.8, "DeepSeaTreasureConcave-v0": 1155.0, "FruitTree6-v0": 58271.258398}
    for env, volume in known.items():
        front = records.known_front(TASKS[env])
        assert front is not None
        assert pareto.hypervolume(front, TASKS[env].reference) == pytest.approx(volume, rel=1e-8)
    regulator = records.known_front(TASKS["TwoObjectiveLQR-v0"])
    assert regulator is not None
    assert pareto.hypervolume(regulator, (-310, -310)) == pytest.approx(29863.153, rel=1e-4)
    assert records.known_front(TASKS["mo-hopper-v5"]) is None


def test_figures_are_drawn(folder: Path) -> None:
    for name in ("fronts_2d.png", "fronts_3d.png", "fronts_parallel.png", "growth_archive.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")


# --- going on ---------------------------------------------------------------------------------------------------------


def test_what_is_there_is_not_trained_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (folder / "growth.csv").read_bytes()
    trained: list[str] = []
    real = fronts.work

    def listed(name: str, *rest: Any) -> str:
        trained.append(name)
        return real(name, *rest)

    monkeypatch.setattr(study, "work", listed)
    study.morl(options(folder))
    assert not trained
    assert "12 of 12 pieces are there already" in capsys.readouterr().out
    (folder / "pieces" / "FruitTree5-v0-barrier.json").unlink()
    study.morl(options(folder))
    assert trained == ["FruitTree5-v0/barrier"]
    assert (folder / "growth.csv").read_bytes() == before
    (folder / "pieces" / "FruitTree5-v0-barrier.json").unlink()
    (folder / "starts" / "FruitTree5-v0" / "checkpoint.json").unlink()
    study.morl(options(folder))
    assert trained[1:] == ["FruitTree5-v0/start", "FruitTree5-v0/barrier"]
    assert (folder / "growth.csv").read_bytes() == before


def test_other_settings_are_trained_anew(folder: Path) -> None:
    plan = Plan(TINY["FruitTree5-v0"], SCALE)
    assert fronts.finished(plan, "barrier", folder) is not None
    longer = dataclasses.replace(plan, scale=dataclasses.replace(SCALE, steps=10_000))
    other = dataclasses.replace(plan, task=dataclasses.replace(plan.task, gamma=0.5))
    assert fronts.finished(longer, "barrier", folder) is None
    assert fronts.finished(other, "start", folder) is None


def test_ctrl_c_keeps_the_pieces_that_are_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = fronts.extend

    def stop(plan: Plan, extension: str, folder: Path) -> Any:
        if extension == "barrier":
            raise KeyboardInterrupt
        return real(plan, extension, folder)

    words = ["bench", "morl", "--quick", "--out", str(tmp_path), "--tasks", "FruitTree5-v0", "--processes", "1"]
    monkeypatch.setattr(fronts, "extend", stop)
    assert main(words) == 130
    assert "2 pieces done and kept, the same command goes on from there" in capsys.readouterr().err
    assert not (tmp_path / "morl.csv").exists()
    monkeypatch.setattr(fronts, "extend", real)
    assert main(words) == 0
    assert {row["agent"] for row in rows_of(tmp_path / "morl.csv")} == {"ppo", *EXTENSIONS.values()}


def test_damaged_pieces_are_told(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"description": ')
    with pytest.raises(InputError, match="damaged, expected the results of a study"):
        kept.find(tmp_path / "x.json", {})
    config = json.loads((folder / "config.json").read_text())
    assert config["FruitTree5-v0/lagrangian"]["config"]["constraint"] == "lagrangian"


# --- words that follow from numbers -----------------------------------------------------------------------------------


def made(**volumes: tuple[float, ...]) -> Fronts:
    rows = []
    for agent, values in volumes.items():
        for seed, value in enumerate(values):
            numbers = {"hypervolume": value, "expected_utility": 4, "served_utility": 3, "sparsity": 0.5, "points": 7}
            words = {"agent": agent.replace("_plain", ", no extension"), "env": "x", "seed": str(seed)}
            told = {
                "env_steps": "10",
                "policies": "9",
                "reference_point": "0|0",
                "gamma": "0.9",
                "still": "1|1",
                "episodes": "2",
            }
            ends = {"still_hypervolume": "5", "known_hypervolume": "20", "drawn_hypervolume": "6"}
            rows.append({**words, **told, **ends, **{name: str(x) for name, x in numbers.items()}})
    return Fronts(tuple(rows), (), ())


def test_findings_follow_from_the_numbers() -> None:
    found = " ".join(
        morl_findings.findings(made(c_morl=(12.0, 4.0, 16.0), c_morl_plain=(10.0, 8.0, 10.0), ppo=(5,) * 3))
    )
    assert "changes the mean hypervolume by +14.3 % on x (higher on 2, lower on 1 of 3 seeds)" in found
    assert "best way's mean reaches 53.3 % on x (c_morl)" in found
    assert "No larger hypervolume than doing nothing: c_morl on x (1 of 3 seeds) and ppo on x (3 of 3 seeds)." in found
    assert "of the best possible, 3 of 4 on x" in found
    assert "the mean hypervolume is 6 for c_morl on x, 6 for c_morl, no extension on x and 6 for ppo on x." in found
    better = " ".join(morl_findings.findings(made(c_morl=(6.0,))))
    assert "Every front has a larger hypervolume than doing nothing." in better


def test_the_table_tells_means_and_ranges() -> None:
    study = made(c_morl=(12.0, 4.0, 14.0), ppo=(0.0, 0.0, 3.0))
    line, _ = quality_table(study).rows
    assert line == ("x", "c_morl", "50 % [20, 70]", "4", "3", "0.5", "7")
    assert volume_table(study, study.agents).rows == (("x", "10 [4, 14]", "1 [0, 3]", "20", "5"),)
    assert volume_table(study, ["ppo"]).header == ("task", "ppo", "best possible", "doing nothing")
    assert task_table(study).rows == (("x", "10", "(0, 0)", "(1, 1)", "0.9", "2"),)
    assert [short(x) for x in (58271.26, 1.5e7, 0.12345, -2.0, -9e-18)] == ["58271", "1.5e+07", "0.123", "-2", "0"]
    assert spread([math.nan]) == "-"


@pytest.mark.parametrize(
    ("volume", "told"),
    [
        (12_345_678.0, ("x, millions", "12.3")),
        (999_900.0, ("x, thousands", "1000")),
        (10_000.0, ("x, thousands", "10")),
        (9999.0, ("x", "9999")),
    ],
)
def test_large_hypervolumes_are_told_in_a_unit(volume: float, told: tuple[str, str]) -> None:
    (line,) = volume_table(made(c_morl=(volume,), ppo=(volume / 2,)), ["c_morl"]).rows
    assert line[:2] == told


def test_in_short_seeds_that_agree_stand_apart_from_those_that_differ() -> None:
    agree, differ = (
        made(c_morl=(12.0, 9.0), c_morl_plain=(10.0, 8.0)),
        made(c_morl=(12.0, 7.0), c_morl_plain=(10.0, 8.0)),
    )
    assert "raises the hypervolume of every seed on x (+16.7 %)." in morl_findings.in_short(agree)[0]
    assert "instead, seeds differ on x (+5.6 %)." in morl_findings.in_short(differ)[0]
    worse = made(c_morl=(8.0, 7.0), c_morl_plain=(10.0, 8.0))
    assert "lowers the hypervolume of every seed on x (-16.7 %)." in morl_findings.in_short(worse)[0]
    assert not any("MuJoCo" in text for text in morl_findings.in_short(agree))
    walking = Fronts(tuple({**row, "env": "mo-x"} for row in differ.rows), (), ())
    told = "On 1 of 1 MuJoCo tasks the extension stage raises the mean hypervolume, on 0 that of every seed."
    assert told in morl_findings.in_short(walking)


def test_results_are_taken_over_and_told(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    tables.take_over(folder)
    assert {path.name for path in tmp_path.iterdir()} == set(morl_part.FRONT_FILES.values())
    part, page = morl_part.fronts_part(tmp_path), morl_part.fronts_page(tmp_path, tmp_path / "docs")
    found = read_fronts(folder)
    shown = [agent for agent in found.agents if agent != EXTENSIONS["lagrangian"]]
    assert all(cell in part for line in volume_table(found, shown).rows for cell in line)
    for table in (volume_table(found, found.agents), quality_table(found), task_table(found)):
        assert all(cell in page for line in table.rows for cell in line)
    assert all(text in part for text in morl_findings.in_short(found))
    assert all(text in page for text in morl_findings.findings(found))
    for name in ("fronts_2d.png", "fronts_3d.png", "fronts_parallel.png", "growth_archive.png"):
        assert f"(experiments/results/morl_{name})" in part
        assert f"(../morl_{name})" in page
    (tmp_path / "morl.csv").write_text((tmp_path / "morl.csv").read_text().replace("-3000|-3000", "-3000|x"))
    with pytest.raises(InputError, match=r"morl\.csv: '-3000\|x' found, expected numbers such as"):
        morl_part.fronts_part(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": ("mo-ant-v5",)}, "unknown task 'mo-ant-v5', expected of TwoObjectiveLQR-v0"),
        ({"tasks": ("FruitTree5-v0",) * 2}, "tasks names one twice"),
        ({"seeds": (1, 1)}, "seeds names one twice"),
        ({"seeds": (-1,)}, r"seeds is \[-1\]"),
        ({"steps": 0}, "steps is 0"),
        ({"processes": -1}, "processes is -1"),
    ],
)
def test_bad_options(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        StudyOptions(**changes)


def test_the_command_is_what_was_asked_for() -> None:
    assert StudyOptions().command == "pbrl bench morl"
    given = StudyOptions(quick=True, tasks=("FruitTree5-v0",), steps=9, seeds=(4,), processes=2)
    assert given.command == "pbrl bench morl --quick --tasks FruitTree5-v0 --steps 9 --seeds 4"
