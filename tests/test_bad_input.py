"""Bad input through the command line: one sentence that names what is wrong, exit code 2, and nothing written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from experiments.cli import main
from pbrl.data import By, Pairs, Preferences
from pbrl.data.registry import load
from pbrl.rng import keys
from tests.cli_cases import QUICK, point_mass

Edit = Callable[[h5py.File], None]


def edited(source: Path, name: str, edit: Edit) -> None:
    target = source.with_name(f"{name}.hdf5")
    shutil.copy(source, target)
    with h5py.File(target, "r+") as file:
        edit(file)


def put(key: str, value: object) -> Edit:
    def edit(file: h5py.File) -> None:
        if key in file:
            del file[key]
        file[key] = value

    return edit


def at(key: str, row: int, value: float) -> Edit:
    def edit(file: h5py.File) -> None:
        file[key][row] = value

    return edit


def several_rewards(file: h5py.File) -> None:
    put("rewards", np.ones((120, 3), np.float32))(file)
    file["metadata"].attrs["json"] = json.dumps({"name": "x", "env": "", "info": {}})


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one good data set and many bad files."""
    folder = tmp_path_factory.mktemp("files")
    good = point_mass(folder)
    edits: dict[str, Edit] = {
        "nan": at("observations", 7, np.nan),
        "infinite_reward": at("rewards", 3, np.inf),
        "unit": at("actions", 5, 40.0),
        "both": at("terminals", 9, True),
        "zero": put("rewards", np.zeros(120, np.float32)),
        "short": put("rewards", np.ones(119, np.float32)),
        "flat": put("observations", np.zeros(120, np.float32)),
        "objectives": several_rewards,
        "more_than_played": put("rewards", np.ones((120, 3), np.float32)),
        "float_flags": put("terminals", np.zeros(120, np.float32)),
        "metadata": lambda file: file["metadata"].attrs.__setitem__("json", "{"),
        "simulator": lambda file: file["metadata"].attrs.__setitem__(
            "json", json.dumps({"name": "x", "env": "Reacher-v5", "info": {}})
        ),
    }
    for name, edit in edits.items():
        edited(good, name, edit)

    def lose_key(file: h5py.File) -> None:
        del file["actions"]

    edited(good, "keyless", lose_key)
    (folder / "text.hdf5").write_text("not HDF5")
    (folder / "cut.hdf5").write_bytes(good.read_bytes()[:3000])
    (folder / "text.npz").write_text("not a zip file")
    shutil.copy(good, folder / "data.txt")
    shape = {"obs_1": (6, 3, 4), "obs_2": (6, 3, 4), "action_1": (6, 3, 2), "action_2": (6, 3, 2)}
    human = {name: np.zeros(size) for name, size in shape.items()} | {"label": np.array([0, 1, 0.5, 1, 0, 1])}
    np.savez(folder / "human.npz", **human)
    np.savez(folder / "pickle.npz", **(human | {"label": np.array([0, None] * 3)}))
    np.savez(folder / "ties.npz", **(human | {"label": np.full(6, 0.5)}))
    np.savez(folder / "seven.npz", **(human | {"label": np.full(6, 7.0)}))
    np.savez(folder / "wide.npz", **(human | {"obs_1": np.zeros((6, 3, 9)), "obs_2": np.zeros((6, 3, 9))}))
    pairs = Pairs.sample(load(good), 5, 3, keys([0])[0])
    Preferences(pairs, torch.full((5,), 0.5), By("me")).save(folder / "ties_own.hdf5")
    Preferences(pairs.take(torch.arange(0)), torch.zeros(0), By("me")).save(folder / "empty_own.hdf5")
    own = folder / "good_own.hdf5"
    Preferences(pairs, torch.tensor([0.0, 1.0, 0.5, 1.0, 1.0]), By("me")).save(own)
    edited(own, "nan_own", at("segments/obs", 2, np.nan))
    edited(own, "unit_own", lambda file: file["segments/act"].__setitem__(..., 50 * file["segments/act"][()]))
    edited(own, "actions_own", put("segments/act", np.zeros((10, 3, 3), np.float32)))
    edited(own, "rows_own", put("segments/act", np.zeros((9, 3, 2), np.float32)))
    edited(own, "index_own", at("first", 0, 77))
    (folder / "file").write_text("")
    (folder / "empty").mkdir()
    return folder


CPL = "train cpl --dataset {files}/small.hdf5"
ONLINE = "train sac --env PointMass-v0"
ONE_STEP = "--dataset {files}/small.hdf5 --pairs 20 --segment-length 1"
CASES = [
    # words
    ("train clp", "unknown agent 'clp'", "did you mean"),
    ("trian", "unknown command 'trian'", "did you mean train"),
    ("train --seed 1", "begins with '--seed'", "expected an agent"),
    (f"{CPL} --alhpa 0.1", "--alhpa", "did you mean --alpha"),
    (f"{CPL} --expectile 0.7", "--expectile", "train cpl --help"),
    (f"{CPL} --alpha red", "--alpha", "red"),
    (f"{CPL} --alpha", "alpha has no values", "at least one"),
    (f"{CPL} --batch-size 8 16", "batch_size must be the same", "2 values"),
    (f"{CPL} --precision float16", "float16", "bf16"),
    (f"{CPL} --normalize-obs perhaps", "perhaps", "True"),
    ("train cpl extra", "unexpected 'extra'", "expected options"),
    # data sets
    ("train cpl", "--dataset is missing", "local/reacher/mixed-v1"),
    ("train cpl --dataset local/reacher/none-v1", "unknown data set", "local/reacher/mixed-v1"),
    ("train cpl --dataset {files}/missing.hdf5", "missing.hdf5", "no such file"),
    ("train cpl --dataset {files}/text.hdf5", "text.hdf5", "not an HDF5 file"),
    ("train cpl --dataset {files}/cut.hdf5", "cut.hdf5", "unreadable"),
    ("train cpl --dataset {files}/data.txt", "data.txt", "expected .hdf5"),
    ("train cpl --dataset {files}/keyless.hdf5", "'actions' is missing", "found"),
    ("train cpl --dataset {files}/nan.hdf5", "obs is nan at row 7", "finite"),
    ("train cpl --dataset {files}/infinite_reward.hdf5", "rew is inf at row 3", "finite"),
    ("train cpl --dataset {files}/unit.hdf5", "act is 40 at row 5", "[-1, 1]"),
    ("train cpl --dataset {files}/both.hdf5", "term and trunc are both set at row 9", "expected one"),
    ("train cpl --dataset {files}/zero.hdf5", "rew is 0 in all 120 rows", "expected"),
    ("train cpl --dataset {files}/short.hdf5", "rew has 119 rows", "expected 120"),
    ("train cpl --dataset {files}/flat.hdf5", "obs has shape [120]", "expected 2 axes"),
    ("train cpl --dataset {files}/objectives.hdf5", "3 per step", "weigh them into one"),
    ("train cpl --dataset {files}/more_than_played.hdf5", "PointMass-v0 has 1 reward per step", "expected 3"),
    ("train cpl --dataset {files}/float_flags.hdf5", "term has dtype float32", "expected bool"),
    ("train cpl --dataset {files}/metadata.hdf5", "metadata is damaged", "expected JSON"),
    # simulators
    (f"{CPL} --env Reacher-v9", "unknown environment 'Reacher-v9'", "Reacher-v5"),
    (f"{CPL} --env Reacher-v5", "environment Reacher-v5 has 10 observations", "expected 4"),
    ("train cpl --dataset {files}/simulator.hdf5", "environment Reacher-v5 has 10", "expected 4"),
    # labels
    (f"{CPL} --labels regert", "unknown labels 'regert'", "regret"),
    (f"{CPL} --labels regret", "no oracle", "critic"),
    (f"{CPL} --labels none", "'none'", "cpl needs labels"),
    (f"{CPL} --segment-length 3 --pairs 100000000", "pairs is 100000000", "expected at most 4560: small has no more"),
    (f"train reward_model {ONE_STEP} --link regret", "one step", "regret needs the state after a step"),
    (
        f"train reward_model {ONE_STEP} --link regret --feedback rankings",
        "one step",
        "regret needs the state after a step",
    ),
    (f"train p_iql {ONE_STEP} --reward-link regret", "one step", "regret needs the state after a step"),
    (f"{CPL} --labels partial_return partial_return", "given twice", "different"),
    (f"{CPL} --labels partial_return:discounted", "gamma", "needs one"),
    (f"{CPL} --label-gamma 0.9", "--label-gamma has no effect", "discount of partial_return:discounted"),
    (f"{CPL} --label-margin 3", "--label-margin has no effect", "unit of --label-equal and --label-skip"),
    (f"{CPL} --labels {{files}}/good_own.hdf5 --label-beta 3", "--label-beta has no effect", "own pairs and answers"),
    (f"{CPL} --labels {{files}}/good_own.hdf5 --pairs 20", "--pairs has no effect", "own pairs and answers"),
    (f"{CPL} --labels {{files}}/human.npz --held-out 0 --label-seed 3", "--label-seed has no effect", "human.npz"),
    ("train iql --dataset {files}/small.hdf5 --segment-length 3", "--segment-length has no effect", "iql takes no"),
    ("train iql --dataset {files}/small.hdf5 --labels none --held-out 0", "--held-out has no effect", "iql takes no"),
    (f"{CPL} --labels regret --label-equal 0.1", "--label-margin is missing", "'regret'"),
    (f"{CPL} --labels partial_return:mean --label-skip 0.1", "--label-margin is missing", "'partial_return:mean'"),
    (f"{CPL} --segment-length 10", "held-out episodes: small has one window of 10", "at least two"),
    (f"{CPL} --held-out 0.01", "12 episodes", "some to hold out"),
    (f"{CPL} --label-seed 99999999999999999999", "label_seed is 99999999999999999999", "below 2 to the power of 63"),
    (f"{CPL} --label-beta -1", "beta is -1", "between 0 and inf"),
    (f"{CPL} --label-mistake 2", "mistake is 2", "between 0 and 1"),
    (f"{CPL} --label-equal 0.1 --label-margin -3", "margin is -3", "above 0"),
    (f"{CPL} --label-equal 9 --label-margin 1000", "are ties", "at least one"),
    (f"{CPL} --label-skip 1 --label-margin 1000", "are empty", "at least one"),
    (f"{CPL} --pairs 0", "pairs is 0", "at least 1"),
    (f"{CPL} --segment-length 11", "segment length is 11", "at most 10"),
    (f"{CPL} --segment-length 0", "segment_length is 0", "at least 1"),
    (f"{CPL} --held-out 1", "held_out is 1", "below 1"),
    (f"{CPL} --labels {{files}}/pickle.npz", "pickled objects", "never loaded"),
    (f"{CPL} --labels {{files}}/text.npz", "not an npz file", "text.npz"),
    (f"{CPL} --labels {{files}}/missing.npz", "no such file", "missing.npz"),
    (f"{CPL} --labels {{files}}/ties.npz", "are ties", "ties.npz"),
    (f"{CPL} --labels {{files}}/seven.npz", "label is 7", "expected 0"),
    (f"{CPL} --held-out 0 --labels {{files}}/wide.npz", "observations of 9", "expected 4"),
    (f"{CPL} --labels {{files}}/ties_own.hdf5", "are ties", "at least one"),
    (f"{CPL} --labels {{files}}/empty_own.hdf5", "are empty", "at least one"),
    (f"{CPL} --labels {{files}}/small.hdf5", "not a file of preferences", "small.hdf5"),
    ("train iql --dataset {files}/small.hdf5 --labels regret", "iql takes no labels", "expected none"),
    *(
        (f"{CPL} --held-out 0 --labels {{files}}/{name}.hdf5", name, found)
        for name, found in (
            ("nan_own", "obs"),
            ("unit_own", "act"),
            ("index_own", "first points outside"),
            ("rows_own", "segments"),
        )
    ),
    (f"{CPL} --held-out 0 --labels {{files}}/actions_own.hdf5", "actions of 3", "expected 2"),
    ("train p_iql --held-out 0 --labels {files}/human.npz", "p_iql learns from transitions", "expected a data set"),
    # numbers
    (f"{CPL} --updates 0", "updates is 0", "at least 1"),
    (f"{CPL} --updates 20 --bc-updates 20", "updates is 20 but bc_updates is 20", "expected more updates"),
    (f"{CPL} --seed 1 2 1", "seed 1 is given twice", "different"),
    (f"{CPL} --seed -3", "seed is -3", "at least 0"),
    (f"{CPL} --seed", "seed has no values", "at least one"),
    (f"{CPL} --episodes -1", "episodes is -1", "at least 0"),
    (f"{CPL} --eval-every 6 --checkpoint-every 4", "eval_every is 6 and checkpoint_every 4", "multiple"),
    (f"{CPL} --threads -1", "threads is -1", "at least 0"),
    (f"{CPL} --alpha 0", "CPLConfig.alpha is 0", "above 0"),
    (f"{CPL} --alpha 0.1 nan", "alpha is nan", "above 0"),
    (f"{CPL} --alpha 0.1 0.1", "alpha has the value 0.1 twice", "each once"),
    (f"{CPL} --hidden 0", "CPLConfig.hidden is 0", "at least 1"),
    (f"{CPL} --hidden -3 4", "CPLConfig.hidden is -3 4", "at least 1"),
    ("train p_iql --dataset {files}/small.hdf5 --reward-hidden 8 0", "reward_hidden is 8 0", "at least 1"),
    (f"{CPL} --seed 99999999999999999999", "seed is 99999999999999999999", "below 2 to the power of 63"),
    (f"{CPL} --dropout 1.5", "dropout is 1.5", "at most 0.99"),
    # the simulator
    (ONLINE, "--dataset is missing", "--env-steps"),
    (f"{ONLINE} --env-steps 0", "--dataset is missing", "--env-steps"),
    ("train sac --env-steps 100", "neither --dataset nor --env", "a simulator to learn in"),
    (f"{ONLINE} --env-steps -5", "env_steps is -5", "at least 0"),
    (f"{ONLINE} --env-steps 99999999999999999999999", "env_steps is 99999999999999999999999", "at most 1000000000000"),
    (f"{ONLINE} --env-steps 100 --envs-per-member 0", "envs_per_member is 0", "at least 1"),
    (f"{ONLINE} --env-steps 100 --updates-per-step nan", "updates_per_step is nan", "at least 0"),
    (f"{ONLINE} --env-steps 100 --replay mixed", "there is no --dataset", "--replay empty"),
    (f"{ONLINE} --env-steps 100 --replay mix", "invalid choice 'mix'", "expected one of empty, mixed, prefill"),
    (f"{ONLINE} --env-steps 100 --replay-capacity 10", "replay_capacity is 10", "at least 100"),
    (f"{ONLINE} --env-steps 100 --updates 50", "--updates has no effect", "--env-steps"),
    (f"{ONLINE} --env-steps 100 --queries 50", "--queries has no effect", "asks"),
    (f"{ONLINE} --env-steps 100 --labels regret", "sac takes no labels", "expected none"),
    (f"{ONLINE} --env-steps 100 --seed 1 1", "seed 1 is given twice", "different"),
    ("train sac --env CartPole-v1 --env-steps 100", "a choice among 2", "ppo"),
    ("train bc --env PointMass-v0 --env-steps 60", "bc cannot learn online", "sac"),
    ("train cpl --env PointMass-v0 --env-steps 60", "cpl cannot learn online", "sac"),
    ("train p_iql --env PointMass-v0 --env-steps 60", "p_iql cannot learn online: it learns from pairs", "pebble"),
    ("train pt_iql --env PointMass-v0 --env-steps 60", "pt_iql cannot learn online: it learns from pairs", "pebble"),
    ("train ppo --env PointMass-v0 --env-steps 100 --envs-per-member 4", "--envs-per-member has no", "--environments"),
    ("train ppo --env PointMass-v0 --env-steps 100 --export True", "--export has no effect", "keeps no replay"),
    ("train spo --dataset {files}/small.hdf5", "spo learns from its own rollouts", "--env"),
    # machine and folders
    (f"{CPL} --threads 100000", "threads is 100000", "at most 1024"),
    (f"{CPL} --device cuda:64", "device is 'cuda:64'", "GPUs"),
    (f"{CPL} --device gpu", "unknown device 'gpu'", "cuda"),
    (f"{CPL} --out {{files}}/file", "/file/train", "cannot be written"),
    (f"{CPL} --name a/b", "'a/b'", "one part of a path"),
    # runs
    ("train --resume {files}/nothing", "no such folder", "pbrl train"),
    ("train --resume {files}/empty", "not a run", "config.json"),
    ("train --resume {files}/empty --updates 5", "--updates", "alone"),
    ("train cpl --resume {files}/empty", "cpl", "alone"),
    ("train --resume", "--resume is given without a run", "pbrl train"),
    (f"{CPL} --name=", "run name '' is not", "letters"),
    ("data import {files}/nowhere", "no such file or folder", "Minari"),
    ("label import {files}/nowhere", "no such file or folder", "labels"),
    ("evaluate {files}/empty", "not a run", "config.json"),
    ("data join a", "--name STR is missing", "What to call it"),
    ("data list extra", "unexpected extra", "help"),
    ("train iql --dataset {files}/small.hdf5 --seed 0.5", "--seed is '0.5'", "whole numbers"),
    ("regret safe --width a 1", "--width is 'a', '1'", "expected numbers"),
    ("regret safe --delta x", "--delta is 'x'", "expected a number"),
    ("data make PointMass-v0 --hidden", "--hidden is given without a value", "expected one"),
    ("evaluate", "RUN is missing", "Folder of the run"),
    ("report", "report has no runs", "runs/train"),
    # data commands
    ("data describe {files}/text.hdf5", "not an HDF5 file", "text.hdf5"),
    ("data import {files}/small.hdf5", "our own format", "small.hdf5"),
    ("data import {files}/data.txt", "data.txt", "expected .hdf5"),
    ("data make Nowhere-v0", "unknown environment 'Nowhere-v0'", "did you mean"),
    ("data make PointMass-v0 --steps 1", "steps is 1", "at least"),
    ("data make PointMass-v0 --tier best", "best", "medium"),
    ("data mkae", "unknown command 'data mkae'", "did you mean make"),
    ("bench speed --obs 0", "pbrl: --obs is 0", "at least 1"),
    ("bench human-labels --folder {files}/empty", "holds none of hopper-medium-expert-v2", "at least one"),
    ("bench preferences --agents sac", "sac", "expected"),
    ("bench preferences --agents cpl bc cpl", "agents names cpl twice", "different"),
    (f"{CPL} --updates 10000000000000", "updates is 10000000000000", "at most"),
    ("check cpl", "unknown check 'cpl'", "pbrl check --list"),
    ("check --seed -1", "pbrl: seed is -1", "at least 0"),
    ("regret safe --agents ucbvi step_mix ucbvi", "names ucbvi twice", "different"),
    ("check explain nothing", "unknown check 'nothing'", "pbrl check --list"),
    ("regret nowhere", "unknown study 'nowhere'", "safe"),
    ("regret safe --seeds 0", "pbrl: seeds is 0", "at least 1"),
    ("regret safe --agents cpl", "cpl learns from tensors", "pbrl train cpl"),
    ("data make PointMass-v0 --steps 2000 --behaviour {files}/empty", "manifest.json: no such file", "behaviour run"),
    ("data join {files}/small.hdf5 {files}/missing.hdf5 --name mine/x", "missing.hdf5", "no such file"),
    ("demo --updates 0", "pbrl: demo: updates is 0", "at least 4"),
    ("bench sped", "unknown command 'bench sped'", "speed"),
]


@pytest.mark.parametrize(("words", "found", "expected"), CASES, ids=[case[0][-48:] for case in CASES])
def test_one_sentence_and_nothing_written(
    words: str,
    found: str,
    expected: str,
    files: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PBRL_DATA_DIR", str(tmp_path / "data"))
    argv = words.format(files=files).split()
    if argv[0] == "train" and "--dataset" in argv:
        names = {word for word in argv if word.startswith("--")}
        quick = list(zip(QUICK[::2], QUICK[1::2]))
        labels = argv[argv.index("--labels") + 1] if "--labels" in argv else ""
        if argv[1] == "iql" or labels.endswith((".npz", ".hdf5")):  # they take no such options
            names |= {"--pairs", "--segment-length"}
        argv += [word for pair in quick if pair[0] not in names for word in pair]
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("pbrl: ")
    assert captured.err.count("\n") == 1
    assert found in captured.err
    assert expected in captured.err
    assert "Traceback" not in captured.err
    assert list(tmp_path.iterdir()) == []


def test_enough_cases() -> None:
    assert len(CASES) >= 40
