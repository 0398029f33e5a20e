"""The study of agents that go online: its design, that it goes on where it was stopped, tables, words, bad input."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import agents
from experiments import stacks
from experiments.cli import main
from experiments.command_line.arguments import parse
from experiments.online_study import options as options_module
from experiments.online_study import records, settings, study
from experiments.online_study.options import OnlineStudyOptions
from experiments.online_study.settings import AGENTS, FULL, PAPER, PROTOCOL, TASKS, Scale, words
from experiments.reports import online_part, tables
from experiments.reports.online_findings import findings, gained, in_short, saved
from experiments.reports.online_rows import OnlineStudy, read_online
from experiments.reports.online_tables import change_table, regret_table, short_table
from experiments.reports.rows import Row
from pbrl import handover
from pbrl.errors import InputError
from pbrl.records.run import Run

POINT_MASS = TASKS["local/pointmass/medium-v1"]
TINY = Scale(seeds=(0, 1), evaluations=2, share=0.02)
TRAINED = ("uni_o4", "ro2o", "iql")


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module", autouse=True)
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The quick study is tiny, and data are made elsewhere."""
    task = dataclasses.replace(POINT_MASS, steps=400, episodes=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(options_module, "QUICK", TINY)
        patch.setitem(TASKS, POINT_MASS.dataset, task)
        patch.setenv("PBRL_DATA_DIR", str(tmp_path_factory.mktemp("data")))
        yield


def options(out: Path, **changes: Any) -> OnlineStudyOptions:
    return OnlineStudyOptions(out=out, **{"quick": True, "agents": TRAINED, "processes": 1, **changes})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("study")
    study.offline_to_online(options(out))
    return out


# --- the design -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [FULL, PAPER, TINY])
@pytest.mark.parametrize("agent", AGENTS)
def test_every_stack_is_a_command_line_with_its_protocol(agent: str, scale: Scale) -> None:
    first, *others = words(agent, POINT_MASS, scale)
    request = parse(agents.find(first), others)
    online = request.options.online
    assert online.env_steps == scale.counts(agent, POINT_MASS)[1]
    assert online.updates_per_step == 1.0
    assert request.options.run.seed == scale.seeds
    assert online.replay == PROTOCOL[agent].get("replay")
    assert (online.replay_of(True).share == 0.5) or agent != "cal_ql"
    stages = request.shared.get("fitting_updates", 0)
    assert stages < request.options.run.updates
    if not scale.small:
        defaults = agents.find(agent).config()
        assert request.shared["hidden"] == defaults.hidden
        assert request.shared["batch_size"] == defaults.batch_size


def test_the_design_has_five_seeds_and_two_tasks_at_least() -> None:
    assert len(FULL.seeds) == len(PAPER.seeds) == 5
    assert len(TASKS) >= 2
    assert set(AGENTS) == set(PROTOCOL) == {"iql", "awac", "cal_ql", "fam_o2o", "ro2o", "uni_o4"}
    assert PAPER.counts("ro2o", POINT_MASS) == (2_500_000, 250_000)


# --- a study ----------------------------------------------------------------------------------------------------------


def test_a_row_per_member_whose_numbers_are_those_of_its_run(folder: Path) -> None:
    rows = rows_of(folder / "offline_to_online.csv")
    assert [(row["agent"], row["seed"]) for row in rows] == [
        (agent, seed) for agent in ("ro2o", "uni_o4", "iql") for seed in "01"
    ]
    for row in rows:
        (path,) = (folder / "stacks" / f"local-pointmass-medium-v1-{row['agent']}" / "train").iterdir()
        steps, scores = Run.open(path).series("score")
        assert steps[0] == 0
        assert len(steps) == 3
        found = handover.handover(steps, scores)
        for name in ("offline", "dip", "last", "best"):
            assert float(row[f"score_{name}"]) == pytest.approx(getattr(found, name)[int(row["seed"])], abs=1e-3)
        assert float(row["regret"]) == pytest.approx(found.regret[int(row["seed"])], abs=1e-3)
        assert int(row["env_steps"]) == steps[-1] == (72 if row["agent"] == "uni_o4" else 50)  # whole rollouts
    assert {row["agent"]: row["replay"] for row in rows} == {
        "ro2o": "empty",
        "uni_o4": "own rollouts",
        "iql": "prefill",
    }


def test_the_score_before_the_first_step_is_that_on_data_alone(folder: Path) -> None:
    """The curve begins with the evaluation after the last update on data, of the same agent object."""
    for curve in rows_of(folder / "curves.csv"):
        if curve["env_steps"] == "0":
            (path,) = (folder / "stacks" / f"local-pointmass-medium-v1-{curve['agent']}" / "train").iterdir()
            offline = [row for row in Run.open(path).metrics() if row["env_steps"] == "0" and row["name"] == "score"]
            assert float(curve["score"]) == pytest.approx(np.mean([float(row["value"]) for row in offline]), abs=1e-3)


def test_what_is_there_is_not_trained_again_and_the_tables_are_the_same(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.read_bytes() for path in folder.glob("*.csv")}
    monkeypatch.setattr(stacks, "run", lambda function, names, *rest: {} if not names else pytest.fail(str(names)))
    study.offline_to_online(options(folder))
    assert {path.name: path.read_bytes() for path in folder.glob("*.csv")} == before
    assert "3 of 3 stacks are there already" in capsys.readouterr().out


def test_a_stack_that_was_stopped_goes_on_within_itself(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, taken = Run.save, []

    def stops(self: Run, *given: Any, **more: Any) -> None:
        save(self, *given, **more)
        taken.append(more.get("env_steps", 0))
        if taken[-1] == 25:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Run, "save", stops)
        with pytest.raises(KeyboardInterrupt, match="1 stack done and kept, and checkpoints"):
            study.offline_to_online(options(tmp_path, agents=("uni_o4", "iql")))
    assert {row["agent"] for row in read_online(tmp_path).members} == {"uni_o4"}
    assert (tmp_path / "curves.png").is_file()
    study.offline_to_online(options(tmp_path, agents=("iql",)))
    assert len(list((tmp_path / "stacks" / "local-pointmass-medium-v1-iql" / "train").iterdir())) == 1
    whole = [row for row in rows_of(folder / "curves.csv") if row["agent"] == "iql"]
    assert rows_of(tmp_path / "curves.csv") == whole


def test_the_report_has_tables_figure_and_words(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    tables.take_over(folder)
    assert {path.name for path in tmp_path.iterdir()} == set(online_part.FILES.values())
    part, page = online_part.online_part(tmp_path), online_part.online_page(tmp_path, tmp_path / "docs")
    assert "uni_o4 own rollouts" in page
    assert "ro2o has a lower regret than fine-tuned iql on" in page
    assert "ro2o gains online on" in part
    assert "That is 0.0008 to 0.002 % of the updates on data and 0.005 to 0.02 % of the steps" in part
    assert "(experiments/results/offline_to_online_curves.png)" in part
    assert "(../offline_to_online_curves.png)" in page
    assert json.loads((folder / "config.json").read_text())["iql on local/pointmass/medium-v1"]["rows"]


# --- words that follow from numbers -----------------------------------------------------------------------------------


def told(**by_agent: list[tuple[float, float, float]]) -> OnlineStudy:
    """Offline score, last score and regret of an agent on each of the data sets a, b, ...: five seeds close by."""
    rows: list[Row] = []
    for agent, numbers in by_agent.items():
        for name, (offline, last, regret) in zip("abc", numbers):
            for seed in range(5):
                cells = {"score_offline": offline, "score_last": last + 0.1 * seed, "regret": regret + 0.1 * seed}
                rest = {"score_best": last, "score_dip": 0.0, "seed": seed, "env_steps": 9, "episodes": 1}
                row = {"agent": agent, "dataset": name, "replay": "empty", **cells, **rest}
                rows.append({key: str(value) for key, value in row.items()})
    return OnlineStudy(tuple(rows), ())


def test_an_agent_reaches_the_aim_by_gains_on_two_data_sets_and_less_regret_on_one() -> None:
    study = told(
        iql=[(50, 50, 40), (50, 45, 40)], ro2o=[(40, 60, 30), (40, 50, 50)], fam_o2o=[(40, 60, 30), (40, 30, 60)]
    )
    assert gained(study, "ro2o") == ["a", "b"]
    assert saved(study, "ro2o") == saved(study, "fam_o2o") == ["a"]
    assert gained(study, "fam_o2o") == ["a"]
    sentences = findings(study)
    assert "iql gains online on a, loses on b (intervals of the gain)." in sentences
    assert "ro2o improves online over its own offline score on a and b (aim: 2, reached)." in sentences
    (saves,) = (line for line in sentences if line.startswith("ro2o has a lower regret than fine-tuned iql on a (aim"))
    assert "aim: 1, reached" in saves
    assert "a lower, 30.2 against 40.2 (begins at 40.0 against 50.0, gains 20.2 against 0.2); b higher" in saves
    (improves,) = (line for line in sentences if line.startswith("fam_o2o improves online"))
    assert "on a (aim: 2, not reached): b -9.8 [" in improves
    assert len(sentences) == 2 * 2 + 1
    assert in_short(study) == [
        "fam_o2o gains online on a (aim: 2, not reached), loses on b; its regret is lower than that of fine-tuned iql "
        "on a (aim: 1, reached), higher on b (begins at 40.0 against 50.0).",
        "ro2o gains online on a and b (aim: 2, reached); its regret is lower than that of fine-tuned iql on a "
        "(aim: 1, reached), higher on b (begins at 40.0 against 50.0).",
        "iql gains online on a, loses on b.",
    ]


def test_what_is_not_reached_is_said() -> None:
    sentences = findings(told(iql=[(50, 50, 40)], uni_o4=[(50, 60, 45)]))
    assert sentences[1].startswith("uni_o4 has a lower regret than fine-tuned iql on no data set (aim: 1, not reached)")


def test_a_stack_that_is_missing_is_told_and_breaks_nothing(folder: Path, tmp_path: Path) -> None:
    for name in ("offline_to_online.csv", "curves.csv"):
        kept = [line for line in (folder / name).read_text().splitlines() if not line.startswith("iql")]
        prefix = online_part.PREFIX if name == "curves.csv" else ""
        (tmp_path / f"{prefix}{name}").write_text("\n".join(kept) + "\n")
    part = online_part.online_part(tmp_path)
    assert (
        "Not computed, so not in the tables: awac, cal_ql, fam_o2o and iql on pointmass medium; all agents on" in part
    )
    only_b = told(iql=[(50, 50, 40)], ro2o=[(40, 60, 30), (40, 50, 50)])
    assert "a lower" in findings(only_b)[1]
    assert "; b" not in findings(only_b)[1]
    assert findings(told(ro2o=[(40, 60, 30)]))[-1] == "Regret of ro2o: there is no iql to compare it with."


def test_tables_tell_gain_and_regret_of_each() -> None:
    study = told(iql=[(50, 48, 40)], ro2o=[(40, 60, 30)])
    change, regret = change_table(study), regret_table(study)
    assert [row[-2].partition(" ")[0] for row in change.rows] == ["-1.8", "20.2"]
    assert [row[-1] for row in change.rows] == ["0 of 5", "5 of 5"]
    assert [row[0] for row in regret.rows] == ["iql", "ro2o"]
    assert regret.rows[0][1].startswith("40.2")
    brief = short_table(study)
    assert brief.header == ("agent", "a", "regret")
    assert [row[1] for row in brief.rows] == ["50.0 → 48.2", "40.0 → 60.2"]
    assert [row[2] for row in brief.rows] == ["40.2", "30.2 ↓"]
    assert short_table(told(iql=[(50, 48, 40)], ro2o=[(40, 60, 50)])).rows[1][2] == "50.2 ↑"
    assert short_table(told(iql=[(50, 48, 40)], ro2o=[(40, 60, 40)])).rows[1][2] == "40.2"
    assert short_table(told(iql=[(50, 48, 40)] * 2, ro2o=[(40, 60, 40)])).rows[1][3:] == ("-", "-")


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (["--quick", "--budget", "paper"], "--quick and --budget paper are both given"),
        (["--tasks", "local/nothing-v1"], "unknown tasks 'local/nothing-v1'"),
        (["--agents", "iql", "iql"], "agents names iql twice"),
        (["--agents", "bc"], "unknown agents 'bc'"),
        (["--processes", "-1"], "processes is -1"),
        (["--tasks", "local/hopper/medium-v1"], "data set local/hopper/medium-v1 is missing"),
    ],
)
def test_bad_input_is_told_in_one_sentence(
    given: list[str], found: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "offline-to-online", "--out", str(tmp_path / "out"), *given]) == 2
    error = capsys.readouterr().err
    assert found in error
    assert "expected" in error
    assert not (tmp_path / "out").exists()


def test_a_damaged_file_of_a_stack_is_named(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "stacks" / "local-pointmass-medium-v1-iql.json"
    path.parent.mkdir()
    path.write_text("{")
    with pytest.raises(InputError, match=r"iql\.json: damaged"):
        study.offline_to_online(options(tmp_path, agents=("iql",)))


def test_a_table_without_numbers_is_named(folder: Path, tmp_path: Path) -> None:
    for name in ("offline_to_online.csv", "curves.csv"):
        (tmp_path / name).write_text((folder / name).read_text().replace("score_last", "score_late"))
    with pytest.raises(InputError, match="column 'score_last' is missing"):
        read_online(tmp_path)


def test_the_command_is_told_back() -> None:
    given = OnlineStudyOptions(budget="paper", agents=("iql", "ro2o"))
    assert given.command == "pbrl bench offline-to-online --budget paper --agents iql ro2o"
    assert given.chosen_agents == ("ro2o", "iql")
    assert str(given.folder) == "runs/offline-to-online-paper"
    assert records.protocol("cal_ql") == "mixed 0.5"
    assert settings.QUICK.share < 1.0
