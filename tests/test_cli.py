"""The command line as a user meets it: help, training, evaluation in a new process, data, Ctrl-C."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import pytest

import agents
from experiments import cli
from experiments.command_line.arguments import parse
from experiments.command_line.options import LabelOptions, TrainOptions
from experiments.command_line.population import fitted
from experiments.command_line.reading import docs
from pbrl.errors import InputError
from pbrl.labelers.teachers import LABELERS
from pbrl.members import is_shared, schedule_fields, sweep
from pbrl.records.run import Run
from pbrl.spec import Spec
from tests.cli_cases import PAIRS, QUICK, SHORT, point_mass

PROGRAM = [sys.executable, "-c", "import sys; from experiments.cli import main; sys.exit(main())"]
ROOT = Path(__file__).parents[1]


def only_run(out: Path) -> Path:
    (run,) = (out / "train").iterdir()
    return run


def means(path: Path) -> dict[int, float]:
    """Mean return of each member in an evaluation file."""
    returns: dict[int, list[float]] = {}
    with path.open() as file:
        for row in csv.DictReader(file):
            returns.setdefault(int(row["member"]), []).append(float(row["return"]))
    return {member: sum(values) / len(values) for member, values in returns.items()}


def test_help_is_quick_and_complete(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(command in text for command in cli.COMMANDS)
    loaded = "import sys; from experiments.cli import main; main(['--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", loaded], cwd=ROOT, stdout=subprocess.DEVNULL).returncode == 0


def test_help_of_train_lists_all_agents(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "--help"]) == 0
    text = capsys.readouterr().out
    for name in agents.names():
        assert f"{name} " in text
        assert agents.find(name).summary in text


@pytest.mark.parametrize("name", agents.names())
def test_help_of_an_agent_tells_every_field(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", name, "--help"]) == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").replace("|", " ").split())
    algorithm = agents.find(name)
    common = {f.name for group in vars(TrainOptions()).values() for f in dataclasses.fields(group)}
    for field in dataclasses.fields(algorithm.config):
        assert docs(algorithm.config)[field.name], f"{name}.{field.name} has no docstring"
        assert f"--{field.name.replace('_', '-')}" in text
        assert field.name not in common, f"{name}.{field.name} is also an option of pbrl train"


def test_help_names_every_form_of_labels() -> None:
    text = docs(LabelOptions)["labels"]
    assert all(form in text for name in LABELERS for form in name.replace(":", " :").split())


def test_no_evaluation_is_proposed_for_what_does_not_act(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = point_mass(tmp_path)
    for name, proposed in (("reward_model", False), ("sft", True)):
        assert cli.main(["train", name, "--dataset", str(data), *QUICK, "--out", str(tmp_path)]) == 0
        assert ("pbrl evaluate" in capsys.readouterr().out) == proposed


def test_eight_members_from_one_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "cpl", "--dataset", "local/reacher/mixed-v1", "--labels", "regret", "--seed", "0", "1", "2", "3"]
    assert cli.main([*words, "--alpha", "0.1", "0.2", *QUICK, "--out", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    assert "8 members of cpl" in captured.out
    assert "alpha=0.1" in captured.out
    assert "%" in captured.out
    assert "best of all evaluations (optimistic)" in captured.out
    assert "--bc-updates 8 (the paper's 200000)" in " ".join(captured.err.split())
    run = Run.open(only_run(tmp_path))
    rows = run.members()
    assert [(row["seed"], row["alpha"]) for row in rows] == [(str(s), a) for a in ("0.1", "0.2") for s in range(4)]
    assert run.config["agent"] == "cpl"
    updates, scores = run.series("score")
    assert updates == list(range(2, 21, 2))
    assert len(scores) == 8
    names = {path.name for path in run.folder.iterdir()}
    assert {"config.json", "members.csv", "metrics.csv", "environment.json", "checkpoint", "figures"} < names
    assert (run.figures / "score.png").read_bytes().startswith(b"\x89PNG")
    assert not list(run.folder.rglob("*.pkl"))


def test_a_new_process_plays_the_same(tmp_path: Path) -> None:
    data = point_mass(tmp_path)
    words = ["train", "iql", "--dataset", str(data), "--seed", "3", "4", "--normalize-obs", "True", "False"]
    quick = ["--updates", "20", "--episodes", "3", "--hidden", "8", "--batch-size", "4", "--out", str(tmp_path)]
    assert cli.main([*words, *quick]) == 0
    run = Run.open(only_run(tmp_path))
    data.unlink()
    command = [*PROGRAM, "evaluate", str(run.folder), "--episodes", "3"]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    played = means(run.folder / "evaluation-PointMass-v0-greedy.csv")
    _, values = run.series("return")
    assert [played[member] for member in range(4)] == pytest.approx([row[-1] for row in values], rel=1e-12)
    assert len(set(played.values())) == 4
    assert cli.main(["evaluate", str(run.folder), "--episodes", "3", "--stochastic"]) == 0
    assert means(run.folder / "evaluation-PointMass-v0-stochastic.csv") != played


def test_several_labelers_are_one_stack(tmp_path: Path) -> None:
    words = ["train", "cpl", "--dataset", "local/reacher/mixed-v1", "--labels", "regret", "partial_return"]
    assert cli.main([*words, *QUICK, "--episodes", "0", "--out", str(tmp_path)]) == 0
    run = Run.open(only_run(tmp_path))
    assert [row["labels"] for row in run.members()] == ["regret", "partial_return"]
    _, (first, second) = run.series("loss")
    assert first != second


def test_stages_are_shortened_only_where_nobody_set_them() -> None:
    algorithm = agents.find("cpl")
    request, said = fitted(parse(algorithm, ["--updates", "1000"]))
    assert (request.shared["bc_updates"], request.shared["warmup"]) == (400, 20)
    assert "--bc-updates 400" in said[0]
    request, said = fitted(parse(algorithm, ["--updates", "1000", "--bc-updates", "300"]))
    assert (request.shared["bc_updates"], request.shared["warmup"], said) == (300, 10_000, [])
    request, said = fitted(parse(algorithm, ["--updates", "500000"]))
    assert (request.shared["bc_updates"], request.shared["warmup"], said) == (200_000, 10_000, [])


def test_a_warm_up_that_would_take_the_whole_run_is_shortened() -> None:
    algorithm = agents.find("oppo")  # of one stage
    request, said = fitted(parse(algorithm, ["--updates", "1000"]))
    assert request.shared["warmup"] == 400
    assert "--warmup 400 (the paper's 10000)" in said[0]
    for words in (["--updates", "1000", "--warmup", "5000"], ["--updates", "20000"]):
        request, said = fitted(parse(algorithm, words))
        assert (request.shared["warmup"], said) == (5000 if "--warmup" in words else 10_000, [])


def test_a_schedule_of_the_whole_run_ends_with_a_shorter_one() -> None:
    algorithm = agents.find("preference_transformer")
    for words, expected in (
        (["--updates", "1000"], 1000),
        (["--updates", "20000"], 10_000),
        (["--updates", "1000", "--decay-updates", "500"], 500),
    ):
        request, said = fitted(parse(algorithm, words))
        assert request.shared["decay_updates"] == expected
        assert ("--decay-updates 1000 (the paper's 10000)" in "".join(said)) == (expected == 1000)


@pytest.mark.parametrize("name", agents.names())
def test_the_fields_of_stages_are_the_boundaries(name: str) -> None:
    """By which the command line knows what must fit into a run."""
    algorithm = agents.find(name)
    stages = schedule_fields(algorithm.config, "stage")
    marked = [dict.fromkeys(stages, 7), dict.fromkeys(stages, 8)]
    for values in marked:
        objectives = 2 if algorithm.family == "multi_objective" else 1
        learner = algorithm.make(Spec("toy", 3, 2, objectives=objectives), sweep(algorithm.config(**values), [0]))
        positive = [boundary for boundary in getattr(learner, "boundaries", ()) if boundary]
        assert positive == sorted(set(values.values()))


def test_a_field_that_happens_to_equal_a_stage_is_left_alone() -> None:
    request, said = fitted(parse(agents.find("cpl"), ["--updates", "1000", "--warmup", "200000"]))
    assert (request.shared["bc_updates"], request.shared["warmup"]) == (400, 200_000)
    assert "--warmup" not in said[0]


@pytest.mark.parametrize("name", agents.names())
def test_any_agent_trains_with_few_updates(name: str, tmp_path: Path) -> None:
    data = point_mass(tmp_path)
    fields = {field.name: field for field in dataclasses.fields(agents.find(name).config)}
    small = {
        "hidden": "8",
        "reward_hidden": "8",
        "batch_size": "4",
        "reward_batch_size": "4",
        "width": "8",
        "layers": "1",
    }
    words = [f"--{key.replace('_', '-')}={value}" for key, value in small.items() if key in fields]
    assert all(is_shared(fields[key]) for key in small if key in fields)
    words += PAIRS if agents.find(name).family == "preference" else []
    words += ["--dataset", str(data), *SHORT]
    if agents.find(name).family == "multi_objective":
        words = ["--env", "ParabolaBandit-v0", "--env-steps", "40", "--episodes", "0"]
        words += ["--environments", "2", "--steps", "10", "--hidden", "8"]
    elif name == "uni_o4":  # it begins with data, and plays itself later
        words += ["--environments", "2", "--steps", "10", "--model-steps", "3", "--elites", "1"]
    elif "environments" in fields:  # it plays itself
        words = ["--env", "PointMass-v0", "--env-steps", "40", "--episodes", "2"]
        words += ["--environments", "2", "--steps", "10", "--hidden", "8"]
    assert cli.main(["train", name, *words, "--out", str(tmp_path)]) == 0
    assert Run.open(only_run(tmp_path)).metrics()


def test_data_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PBRL_DATA_DIR", str(tmp_path))
    make = ["data", "make", "PointMass-v0", "--tier", "random", "--steps", "500", "--behaviour-steps", "2000"]
    assert cli.main(make) == 0
    assert cli.main(make) == 2
    assert "exists already" in capsys.readouterr().err
    assert cli.main(["data", "list"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert listed == ["name", "local/pointmass/random-v1", "local/reacher/mixed-v1"]
    assert cli.main(["data", "describe", "local/pointmass/random-v1"]) == 0
    text = capsys.readouterr().out
    assert "500" in text
    assert "yes, it comes with an oracle critic" in text
    file = point_mass(tmp_path / "..")
    with h5py.File(file, "r+") as stored:  # as D4RL has it
        del stored["metadata"]
    assert cli.main(["data", "import", str(file), "--name", "imported/mine"]) == 0
    assert cli.main(["data", "import", str(file), "--name", "imported/mine"]) == 2
    assert cli.main(["data", "list"]) == 0
    assert "imported/mine" in capsys.readouterr().out


def test_ctrl_c_says_how_to_go_on(tmp_path: Path) -> None:
    data = point_mass(tmp_path)
    words = ["train", "bc", "--dataset", str(data), "--updates", "100000", "--eval-every", "10", "--episodes", "0"]
    process = subprocess.Popen(
        [*PROGRAM, *words, "--hidden", "8", "--out", str(tmp_path), "--compile", "off"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("train/*/checkpoint/checkpoint.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    try:
        out, error = process.communicate(timeout=60)
    finally:
        process.kill()  # nothing, unless it did not stop
    assert process.returncode == 130
    (line,) = error.decode().strip().splitlines()
    run = only_run(tmp_path)
    assert line.startswith("pbrl: stopped; ")
    assert line.endswith(f"pbrl train --resume {run}")
    assert "\r" not in out.decode()
    index = json.loads((run / "checkpoint" / "checkpoint.json").read_bytes())
    assert f"{index['updates']} of 100000 updates are kept" in line


def test_foreign_packages_are_told(tmp_path: Path) -> None:
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "__init__.py").write_text("")
    program = "import sys; sys.path.insert(0, sys.argv.pop(1)); from experiments.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, str(tmp_path), "train"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(f"pbrl: the package 'agents' in use is {tmp_path / 'agents'}, expected")
    assert done.stderr.count("\n") == 1


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    data = point_mass(tmp_path)
    limit = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); "
    program = limit + "from experiments.cli import main; sys.exit(main())"
    words = ["train", "bc", "--dataset", str(data), "--updates", "20", "--hidden", "128", "128", "--episodes", "0"]
    done = subprocess.run(
        [sys.executable, "-c", program, *words, "--out", str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "cannot be written (File too large)" in done.stderr


def test_shared_fields_take_one_value() -> None:
    with pytest.raises(InputError, match="bc_updates must be the same"):
        parse(agents.find("cpl"), ["--bc-updates", "1", "2"])


def test_runs_that_are_not_what_they_were(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = point_mass(tmp_path)
    words = ["train", "cpl", "--dataset", str(data), *QUICK, "--episodes", "0", "--out", str(tmp_path)]
    assert cli.main(words) == 0
    run = only_run(tmp_path)
    index, config = run / "checkpoint" / "checkpoint.json", run / "config.json"
    kept = {path: path.read_bytes() for path in (index, config, data)}

    def told(*parts: str) -> None:
        for command in (["train", "--resume", str(run)], ["evaluate", str(run), "--env", "PointMass-v0"]):
            capsys.readouterr()
            assert cli.main(command) == 2
            error = capsys.readouterr().err
            assert error.startswith("pbrl: ")
            assert error.count("\n") == 1
            assert all(part in error for part in parts), error
        for path, content in kept.items():
            path.write_bytes(content)

    index.write_text(json.dumps({**json.loads(kept[index]), "agent": "iql"}))
    told("is of agent 'iql'", "expected 'cpl'")
    index.write_text(json.dumps({**json.loads(kept[index]), "pbrl": "0.0.9"}))
    told("was written by pbrl 0.0.9")
    index.write_text("{")
    told("checkpoint.json", "damaged")
    weights = next((run / "checkpoint").glob("*.safetensors"))
    kept[weights] = weights.read_bytes()
    weights.write_bytes(b"x" + kept[weights][1:])
    told(weights.name, "damaged")
    config.write_text("[]")
    told("config.json", "damaged")
    changed = json.loads(kept[config])
    changed["identity"]["settings"]["alhpa"] = [0.1]
    config.write_text(json.dumps(changed))
    told("'alhpa'")
    changed = json.loads(kept[config])
    changed["identity"]["seeds"] = [5]
    config.write_text(json.dumps(changed))
    capsys.readouterr()
    assert cli.main(["train", "--resume", str(run)]) == 2
    assert "seeds was [5] when the run began and is [0] now" in capsys.readouterr().err
    config.write_bytes(kept[config])
    with h5py.File(data, "r+") as file:
        file["rewards"][0] = 3.0
    assert cli.main(["train", "--resume", str(run)]) == 2
    error = capsys.readouterr().err
    assert "when the run began" in error
    assert "fingerprint" in error
    data.write_bytes(kept[data])
    assert cli.main(["train", "--resume", str(run)]) == 0


@pytest.mark.parametrize(("rates", "code"), [(["1e38"], 1), (["1e38", "0.001"], 0)])
def test_a_run_of_which_nothing_is_left_fails(
    rates: list[str], code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "train",
        "sft",
        "--dataset",
        str(point_mass(tmp_path)),
        "--head",
        "gaussian",
        "--lr",
        *rates,
        "--episodes",
        "0",
    ]
    assert cli.main([*words, *QUICK, "--out", str(tmp_path)]) == code
    assert "diverged" in "".join(capsys.readouterr())
