"""Agreement with people: folds that share nothing, a member per fold, and the real files where they are."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from experiments.cli import main
from experiments.human_labels import study
from experiments.human_labels.settings import AGENTS, FILES, HumanOptions, agent_config
from experiments.reports import human_part, tables
from experiments.reports.human_tables import agreement_table, human_findings, people_table, pooled, read_human
from pbrl import rng
from pbrl.data import Pairs, Segments
from pbrl.data.leaks import folds
from pbrl.data.source import Source
from pbrl.errors import InputError
from pbrl.statistics import wilson

from .data_cases import SHARED

REAL = SHARED / "human_preferences"
TASK = "hopper-medium-expert-v2"
PAIRS = 24


def write(folder: Path, seed: int = 0) -> Path:
    """Pairs of ten steps in the real format: people like the first observation, the script the second one."""
    generator = np.random.default_rng(seed)
    obs = generator.normal(size=(2, PAIRS, 10, 11))
    act = generator.uniform(-1, 1, (2, PAIRS, 10, 3))
    liked = obs.sum(2)[..., :2]  # [2, PAIRS, 2]
    place = folder / TASK
    place.mkdir(parents=True, exist_ok=True)
    for column, name in enumerate(FILES.values()):
        label = (liked[1, :, column] > liked[0, :, column]).astype(float)
        label[column::12] = 0.5
        arrays = {"obs_1": obs[0], "obs_2": obs[1], "action_1": act[0], "action_2": act[1], "label": label}
        np.savez(place / name, **arrays)
    return folder


def options(folder: Path, out: Path, **changes: Any) -> HumanOptions:
    tiny: dict[str, Any] = {"seeds": 2, "folds": 3, "updates": 4, "hidden": 8, "batch_pairs": 2, "episodes": 1}
    return HumanOptions(
        folder=folder, out=out, **{**tiny, "processes": 1, "agents": ("reward_model", "cpl"), **changes}
    )


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("human")
    study.human_labels(options(write(out / "answers"), out))
    return out


# --- folds ------------------------------------------------------------------------------------------------------------


def test_folds_are_even_and_linked_pairs_stay_together() -> None:
    obs, act = torch.arange(24.0)[:, None, None].expand(24, 2, 1).clone(), torch.zeros(24, 2, 1)
    obs[13] = obs[0]  # pair 1 has the first segment of pair 0 as its second one
    segments = Segments.from_arrays(obs, act)
    pairs = Pairs(segments, torch.arange(12), torch.arange(12, 24))
    for seed in range(5):
        fold = folds(pairs, 4, rng.keys([seed])[0])
        assert fold[0] == fold[1]
        assert max(fold.bincount(minlength=4).tolist()) <= 4
        assert min(fold.bincount(minlength=4).tolist()) >= 2
    assert not torch.equal(folds(pairs, 4, rng.keys([0])[0]), folds(pairs, 4, rng.keys([1])[0]))
    with pytest.raises(InputError, match="folds is 12, expected 2 to 11: so many groups"):
        folds(pairs, 12, rng.keys([0])[0])


def test_every_pair_is_judged_by_the_member_that_has_not_seen_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given = options(folder / "answers", tmp_path)
    answers = study.read(given, TASK)
    rows = study._members(given)
    assert len(rows) == 2 * 3 * 2
    delta = np.arange(len(rows) * PAIRS, dtype=float).reshape(len(rows), PAIRS)
    told = study.held_out(delta, answers.fold, rows, 2)
    for who in FILES:
        for seed in range(2):
            for pair in range(PAIRS):
                member = rows.index((who, int(answers.fold[pair]), seed))
                assert told[who][seed][pair] == delta[member, pair]
    seen: list[Any] = []
    real = Source.with_pairs

    def listed(self: Source, own: Any) -> Source:
        seen.extend(own)
        return real(self, own)

    monkeypatch.setattr(Source, "with_pairs", listed)
    study.train(TASK, "reward_model", answers, dataclasses.replace(given, episodes=0))
    for own, (_, fold, _) in zip(seen, rows):
        assert sorted([*own.tolist(), *(answers.fold == fold).nonzero().squeeze(1).tolist()]) == list(range(PAIRS))


def test_what_people_like_is_learned_from_people_alone(tmp_path: Path) -> None:
    given = options(write(tmp_path / "answers"), tmp_path, updates=300, hidden=16, batch_pairs=8, episodes=0, folds=4)
    study.human_labels(dataclasses.replace(given, agents=("reward_model",)))
    share = {
        (row["learned_from"], row["judged_by"]): np.mean(
            [float(one["agreement"]) for one in rows_of(tmp_path / study.RESULTS)
             if (one["learned_from"], one["judged_by"]) == (row["learned_from"], row["judged_by"])]
        )
        for row in rows_of(tmp_path / study.RESULTS)
    }  # fmt: skip
    assert share["human", "human"] > 0.7
    assert share["script", "script"] > 0.7
    assert share["human", "human"] > share["script", "human"]


def test_the_order_in_which_a_pair_is_shown_does_not_matter(folder: Path, tmp_path: Path) -> None:
    """Turned round, with their labels, the same pairs give the same agreement: judgements change sign with them."""
    answers = study.read(options(folder / "answers", tmp_path), TASK)
    delta = np.random.default_rng(0).normal(size=PAIRS)
    one = study._row(TASK, "x", "human", "human", 0, delta, answers)
    turned = {
        who: dataclasses.replace(
            told, pairs=Pairs(told.pairs.segments, told.pairs.second, told.pairs.first), label=1 - told.label
        )
        for who, told in answers.by.items()
    }
    other = study._row(TASK, "x", "human", "human", 0, -delta, dataclasses.replace(answers, by=turned))
    assert one == other
    always_first = study._row(TASK, "x", "human", "human", 0, np.zeros(PAIRS), answers)
    assert always_first["agreement"] == "0.5000"


# --- what it leaves behind --------------------------------------------------------------------------------------------


def test_a_row_per_agent_answers_judge_and_seed(folder: Path) -> None:
    rows = rows_of(folder / study.RESULTS)
    assert len(rows) == 1 + 2 * 2 * 2 * 2
    assert (rows[0]["agent"], rows[0]["judged_by"]) == ("return", "human")
    for row in rows:
        share = wilson(float(row["agreements"]), int(row["decisive"]))
        assert [float(row[name]) for name in ("agreement", "low", "high")] == pytest.approx(list(share), abs=1e-4)
        assert row["decisive"] == str(PAIRS - 2)
        assert (row["return"] == "") == (row["agent"] != "cpl")
        if row["agent"] == "cpl":
            assert (row["env"], row["episodes"], row["updates"]) == ("Hopper-v4", "3", "4")


def test_the_script_beside_people(folder: Path) -> None:
    first, *_ = rows_of(folder / study.RESULTS)
    human, script = (np.load(folder / "answers" / TASK / name)["label"] for name in FILES.values())
    both = human != 0.5
    right = np.where(script == 0.5, 0.5, script == human)[both].sum()
    assert float(first["agreements"]) == right


def test_table_and_sentences_follow_from_the_rows(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rows = read_human(folder / study.RESULTS)
    table = agreement_table(rows)
    assert [line[1:3] for line in table.rows] == [
        ("the return itself", "-"),
        *((agent, who) for agent in ("reward model", "cpl") for who in FILES),
    ]
    mine = [row for row in rows if (row["agent"], row["learned_from"], row["judged_by"]) == ("cpl", "human", "human")]
    found = pooled(mine)
    assert found.point == pytest.approx(np.mean([float(row["agreement"]) for row in mine]), abs=1e-4)
    assert found.high - found.low > 0.3  # two seeds are no more answers than one
    assert table.rows[3][3].startswith(f"{100 * found.point:.0f} % [")
    (told,) = human_findings(rows)
    side = "above" if found.low > 0.5 else "below" if found.high < 0.5 else "level"
    words = {"above": "more often", "below": "less often", "level": "not told apart"}
    assert words[side] in told
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    tables.take_over(folder)
    part, page = human_part.human_part(tmp_path), human_part.human_page(tmp_path, tmp_path / "docs")
    assert told in part
    assert told in page
    assert all(cell in page for line in table.rows for cell in line)
    people = people_table(rows)
    assert [line[2] for line in people.rows] == [line[3] for line in table.rows]
    assert all(cell in part for line in people.rows for cell in line)


def test_what_is_there_is_not_trained_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (folder / study.RESULTS).read_bytes()
    monkeypatch.setattr(study, "train", None)
    study.human_labels(options(folder / "answers", folder))
    assert "2 of 2 stacks are there already" in capsys.readouterr().out
    assert (folder / study.RESULTS).read_bytes() == before


def test_ctrl_c_keeps_the_stacks_that_are_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = study.train

    def stop(task: str, agent: str, *rest: Any) -> dict[str, Any]:
        if agent == "cpl":
            raise KeyboardInterrupt
        return real(task, agent, *rest)

    monkeypatch.setattr(study, "train", stop)
    words = ["bench", "human-labels", "--folder", str(write(tmp_path / "answers")), "--out", str(tmp_path)]
    words += ["--agents", "reward_model", "cpl", "--updates", "2", "--hidden", "8", "--processes", "1"]
    assert main([*words, "--folds", "2", "--seeds", "1", "--episodes", "0"]) == 130
    assert "the same command goes on from there" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "stacks").iterdir()] == [f"{TASK}-reward_model.json"]


@pytest.mark.parametrize("name", AGENTS)
def test_every_agent_learns_from_pairs_alone(name: str, tmp_path: Path) -> None:
    given = options(write(tmp_path / "answers"), tmp_path, seeds=1, folds=2, updates=2, agents=(name,))
    assert agent_config(name, given).batch_size == 2
    study.human_labels(given)
    rows = [row for row in rows_of(tmp_path / study.RESULTS) if row["agent"] == name]
    assert len(rows) == 4
    assert {bool(row["return"]) for row in rows} == {name in ("cpl", "ipl", "oppo")}


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"folds": 1}, "folds is 1, expected at least 2"),
        ({"agents": ("iql",)}, "unknown agent 'iql', expected one of preference_transformer"),
        ({"folds": 25}, "folds is 25, expected 2 to 24"),
    ],
)
def test_bad_options(changes: dict[str, Any], message: str, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        study.human_labels(options(folder / "answers", tmp_path, **changes))


def test_bad_folders(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds none of hopper-medium-expert-v2, walker2d"):
        study.human_labels(options(tmp_path, tmp_path))
    answers = write(tmp_path / "answers")
    other = write(tmp_path / "other", seed=1) / TASK / FILES["script"]
    (answers / TASK / FILES["script"]).write_bytes(other.read_bytes())
    with pytest.raises(InputError, match="have different pairs, expected equal"):
        study.human_labels(options(answers, tmp_path))


# --- the real files ---------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not REAL.is_dir(), reason="the real files are not on this machine")
@pytest.mark.parametrize(("task", "share", "decisive"), [(TASK, 0.431, 72), ("walker2d-medium-expert-v2", 0.803, 76)])
def test_people_and_the_return_on_the_real_pairs(task: str, share: float, decisive: int) -> None:
    answers = study.read(HumanOptions(folder=REAL, folds=10), task)
    (row,) = study.script_rows(task, answers)
    assert float(str(row["agreement"])) == pytest.approx(share, abs=1e-3)
    assert row["decisive"] == decisive
    assert {9, 10, 11}.issuperset(answers.fold.bincount().tolist())  # a few pairs share steps
    segments = answers.by["human"].pairs.segments
    steps = [hashlib.sha256(step.tobytes()).digest() for step in segments.obs.flatten(0, 1).numpy()]
    of_fold: dict[bytes, set[int]] = {}
    for index, step in enumerate(steps):
        of_fold.setdefault(step, set()).add(int(answers.fold[index // 100 % 100]))
    assert all(len(found) == 1 for found in of_fold.values())
