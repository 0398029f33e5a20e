"""``pbrl train ... --population-based``: turns, lineage, exact resume after kill -9, knobs, and what it refuses."""

from __future__ import annotations

import csv
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from experiments import cli
from experiments.reports import report
from pbrl.errors import InputError
from pbrl.records import checkpoint, lineage
from pbrl.records.run import Run
from tests.cli_cases import point_mass
from tests.test_resume import only_run, start

SMALL = ["--steps", "10", "--environments", "1", "--hidden", "4", "--epochs", "1", "--batch-size", "10"]
WHERE = ["--env", "PointMass-v0", "--env-steps", "200", "--episodes", "1", "--threads", "1"]
PPO = ["ppo", *WHERE, *SMALL, "--seed", "0", "1", "--lr", "1e-3", "1e-1", "--population-based"]
SHORT = ["--pairs", "20", "--segment-length", "3"]
LQL = ["--hidden", "4", "--batch-size", "4", "--updates", "20", "--episodes", "1", "--threads", "1"]


@pytest.fixture(autouse=True)
def same_threads() -> Any:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def train(folder: Path, *words: str) -> Path:
    assert cli.main(["train", *words, "--out", str(folder)]) == 0
    return only_run(folder)


def state(run: Path) -> dict[str, torch.Tensor]:
    index = checkpoint.find(run / "checkpoint")
    assert index is not None
    names = [index.weights, *([index.collected] if index.collected else [])]
    files = [safetensors.torch.load_file(run / "checkpoint" / name) for name in names]
    return {f"{place} {name}": value for place, file in enumerate(files) for name, value in file.items()}


def same(one: Path, other: Path) -> bool:
    ours, theirs = state(one), state(other)
    assert ours.keys() == theirs.keys()
    bits = all(torch.equal(ours[name], theirs[name]) for name in ours)
    return bits and all((one / n).read_bytes() == (other / n).read_bytes() for n in ("metrics.csv", lineage.NAME))


def test_turns_rank_copy_and_vary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At each evaluation but the last the worst of four becomes a copy of the best, at .5 or 2 times its rate."""
    words = ["--exploit-share", "0.25", "--explore-factors", "0.5", "2", "--explore", "lr", "entropy-weight"]
    folder = train(tmp_path, *PPO, *words, "--entropy-weight", "1e-3", "--eval-every-steps", "50")
    run, rows = Run.open(folder), lineage.read(folder)
    steps, returns = run.series("return")
    assert steps == [50, 100, 150, 200]
    assert [int(row["env_steps"]) for row in rows[::4]] == [0, 50, 100, 150]
    rates = {(int(row["env_steps"]), int(row["member"])): (float(row["lr"]), int(row["source"])) for row in rows}
    assert [rates[0, m][0] for m in range(4)] == [1e-3, 1e-3, 1e-1, 1e-1]
    for turn, step in enumerate(steps[:-1]):
        scores = [column[turn] for column in returns]
        assert [float(row["score"]) for row in rows[4 * turn + 4 : 4 * turn + 8]] == pytest.approx(scores)
        worst, best = scores.index(min(scores)), scores.index(max(scores))
        for member in range(4):
            before, (now, source) = rates[step - 50, member][0], rates[step, member]
            assert source == (best if member == worst else member)
            if member == worst:
                wanted = rates[step - 50, best][0]
                low, high = (
                    pytest.approx(max(1e-4, 0.5 * wanted), rel=1e-5),
                    pytest.approx(min(1.0, 2 * wanted), rel=1e-5),
                )
                assert now in (low, high)
            else:
                assert now == before
    out = " ".join(capsys.readouterr().out.split())
    assert "3 turns, 3 copies: the 4 members at the end descend from" in out
    assert "best at the end: member" in out
    assert (run.figures / "lineage.png").exists()
    page = report.publish([folder]).read_text()
    assert "Lineage" in page
    assert "3 turns, 3 copies" in page
    assert run.config["identity"]["population_based"]["metric"] == "return"
    rate = safetensors.torch.load_file(run.checkpoint / run.saved().weights)["adam.lr"]  # type: ignore[union-attr]
    assert rate.tolist() == pytest.approx([float(row["lr"]) for row in rows[-4:]])


@pytest.mark.parametrize(
    "kind", ["ppo", "iql", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("sac", "p_iql"))]
)
def test_a_killed_population_ends_as_one_that_never_was(kind: str, tmp_path: Path) -> None:
    """Killed with SIGKILL at any moment: weights, metrics and lineage end the same. IQL goes from data online."""
    if kind == "ppo":
        words = [*PPO, "--eval-every-steps", "30", "--env-steps", "900", "--exploit-share", "0.5"]
        words.remove("--env-steps")
        words.remove("200")
    elif kind == "sac":
        words = ["sac", *WHERE, "--hidden", "4", "--batch-size", "4", "--seed", "0", "1", "2", "--population-based"]
        words += ["--eval-every-steps", "20", "--random-steps", "20", "--updates-per-step", "0.5"]
    elif kind == "p_iql":
        words = ["p_iql", "--dataset", str(point_mass(tmp_path)), *LQL, *SHORT, "--seed", "0", "1", "2"]
        words += ["--population-based", "--updates", "60", "--eval-every", "4", "--reward-updates", "30"]
        del words[words.index("20") - 1 : words.index("20") + 1]
    else:
        words = ["iql", "--dataset", str(point_mass(tmp_path)), *LQL, "--seed", "0", "1", "2", "--population-based"]
        words += ["--eval-every", "5", "--env-steps", "150", "--eval-every-steps", "30", "--updates-per-step", "0.2"]
    whole = train(tmp_path / "whole", *words)
    assert any(row["source"] != row["member"] for row in lineage.read(whole))
    process = start(*words, "--out", str(tmp_path / "killed"))
    runs, deadline = tmp_path / "killed" / "train", time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if any(len(each.read_bytes().splitlines()) > 8 for each in runs.glob(f"[!.]*/{lineage.NAME}")):
            break
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "the kill came too late to test anything"
    process = start("--resume", str(only_run(tmp_path / "killed")))
    _, error = process.communicate(timeout=300)
    assert process.returncode == 0, error.decode()
    assert same(only_run(tmp_path / "killed"), whole)


def test_offline_members_are_ranked_by_held_out_labels_where_nobody_plays(tmp_path: Path) -> None:
    """A reward model does not act; and what it has prepared is prepared anew after a turn."""
    data = str(point_mass(tmp_path))
    words = ["reward_model", "--dataset", data, "--pairs", "30", "--segment-length", "3", *LQL, "--held-out", "0.4"]
    folder = train(tmp_path, *words, "--seed", "0", "1", "2", "--population-based")
    assert Run.open(folder).config["identity"]["population_based"]["metric"] == "held_out_accuracy"
    assert [row["updates"] for row in lineage.read(folder)[::3]] == [str(n) for n in range(0, 20, 2)]


def test_every_knob_changes_something(tmp_path: Path) -> None:
    def final(name: str, *words: str) -> dict[str, torch.Tensor]:
        return state(train(tmp_path / name, *PPO, "--eval-every-steps", "40", *words))

    base = final("base")
    knobs = {
        "exploit_every": ["--exploit-every", "2"],
        "exploit_share": ["--exploit-share", "0.5"],
        "explore": ["--explore", "clip", "--explore-factors", "0.9", "1.1"],
        "explore_factors": ["--explore-factors", "0.5", "2"],
        "explore_resample": ["--explore-resample", "1"],
    }
    for name, words in knobs.items():
        other = final(name, *words)
        assert any(not torch.equal(base[key], other[key]) for key in base), f"{name} changes nothing"
    narrow, wide = (
        final(name, "--explore", "clip", *words)
        for name, words in (("narrow", ["--explore-range", "0.95", "1.05"]), ("wide", []))
    )
    assert any(not torch.equal(wide[key], narrow[key]) for key in wide), "explore_range changes nothing"
    alone = state(train(tmp_path / "alone", *PPO[:-1], "--eval-every-steps", "40"))
    assert any(not torch.equal(base[key], alone[key]) for key in base), "population_based changes nothing"
    assert all(torch.equal(value, base[key]) for key, value in final("again").items()), "same words, other bits"


def test_without_evaluation_training_episodes_rank(tmp_path: Path) -> None:
    words = ["ppo", "--env", "PointMass-v0", "--env-steps", "400", "--episodes", "0", "--threads", "1", *SMALL]
    words[words.index("--steps") + 1] = "100"
    words += ["--seed", "0", "1", "--population-based", "--eval-every-steps", "100"]
    folder = train(tmp_path, *words)
    run = Run.open(folder)
    assert run.config["identity"]["population_based"]["metric"] == "episode_return"
    steps, returns = run.series("episode_return")
    rows = lineage.read(folder)
    assert [float(row["score"]) for row in rows[2:4]] == pytest.approx([column[steps.index(100)] for column in returns])


def test_c_morl_is_ranked_by_its_fronts(tmp_path: Path) -> None:
    """A member is a whole front: all its policies, its archive and its limits are copied."""
    words = ["c_morl", "--env", "TwoObjectiveLQR-v0", "--env-steps", "1500", "--episodes", "1", "--threads", "1"]
    words += [
        "--policies",
        "2",
        "--steps",
        "50",
        "--environments",
        "1",
        "--greedy",
        "0",
        "--hidden",
        "4",
        "--epochs",
        "1",
    ]
    words += ["--init-updates", "4", "--extension-updates", "2", "--reference-point", "-9000", "-9000"]
    folder = train(tmp_path, *words, "--seed", "0", "1", "--population-based", "--eval-every-steps", "500")
    run, rows = Run.open(folder), lineage.read(folder)
    assert run.config["identity"]["population_based"]["metric"] == "hypervolume"
    steps, volumes = run.series("hypervolume")
    assert [float(row["score"]) for row in rows[2:4]] == pytest.approx([column[0] for column in volumes])
    assert any(row["source"] != row["member"] for row in rows)
    assert len(steps) == 3


def test_misuse_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(point_mass(tmp_path))
    population = ["--seed", "0", "1", "--population-based"]
    cases = [
        (["ppo", *WHERE, *SMALL, "--population-based"], "--population-based has one member"),
        (["ppo", *WHERE, *SMALL, "--explore", "lr"], "--explore has no effect without --population-based"),
        ([*PPO, "--exploit-share", "0.6"], "exploit_share is 0.6, expected above 0 and at most 0.5"),
        ([*PPO, "--exploit-every", "0"], "exploit_every is 0"),
        ([*PPO, "--explore-factors", "1", "1"], "explore_factors are 1 1"),
        ([*PPO, "--explore-factors", "0", "2"], "explore_factors are 0 2"),
        ([*PPO, "--explore-range", "2", "3"], "explore_range is 2 3"),
        ([*PPO, "--explore-resample", "2"], "explore_resample is 2"),
        ([*PPO, "--explore", "lr", "lr"], "expected each setting once"),
        ([*PPO, "--explore", "hidden"], "--explore has hidden, which is the same for all members"),
        ([*PPO, "--explore", "colour"], "--explore has colour, which is no setting of ppo"),
        ([*PPO, "--explore", "normalize_obs"], "--explore has normalize_obs, which is True"),
        ([*PPO, "--explore", "entropy-weight"], "--explore has entropy_weight, which begins at 0"),
        ([*PPO, "--init-log-std", "0.5", "--explore", "init_log_std"], "init_log_std decides how training begins"),
        (["bc", "--dataset", data, *LQL, *population, "--episodes", "0"], "has nothing to rank members by"),
        (
            [
                "p_iql",
                "--dataset",
                data,
                *LQL,
                *population,
                "--labels",
                "partial_return",
                "partial_return:mean",
                *SHORT,
            ],
            "found labels partial_return and partial_return:mean: expected one of them",
        ),
    ]
    for words, expected in cases:
        assert cli.main(["train", *words, "--out", str(tmp_path / "none")]) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert expected in line
    assert not (tmp_path / "none").exists()


def test_a_lineage_goes_on_from_a_checkpoint_and_is_checked(tmp_path: Path) -> None:
    lineage.begin(tmp_path, {"lr": [1.0, 2.0]}, updates=0, env_steps=0)
    lineage.add(tmp_path, [0, 0], [5.0, 4.0], {"lr": [1.0, 1.2]}, updates=10, env_steps=0)
    lineage.add(tmp_path, [1, 1], [5.0, 6.0], {"lr": [1.1, 1.2]}, updates=20, env_steps=0)
    lineage.add(tmp_path, [1, 0], [5.0, 6.0], {"lr": [1.3, 1.4]}, updates=20, env_steps=50)
    assert lineage.last(tmp_path) == (20, 50)
    assert lineage.founders(lineage.read(tmp_path)) == [[0, 1], [0, 0], [0, 0], [0, 0]]
    lineage.begin(tmp_path, {"lr": [9.0, 9.0]}, updates=20, env_steps=0)
    rows = lineage.read(tmp_path)
    assert [row["lr"] for row in rows] == ["1.0", "2.0", "1.0", "1.2", "1.1", "1.2"]
    path = tmp_path / lineage.NAME
    with path.open(newline="") as file:
        assert next(csv.reader(file)) == ["member", "updates", "env_steps", "source", "score", "lr"]
    for text, said in (("a,b\n1,2\n", "expected member updates"), (path.read_text() + "x,1,1,1,1,1\n", "damaged")):
        path.write_text(text)
        with pytest.raises(InputError, match=said):
            lineage.read(tmp_path)
