"""An offline run that is killed with SIGKILL, at any moment, and resumed ends as one that never was."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from experiments.cli import main
from pbrl.data import hdf5
from pbrl.records import checkpoint
from tests.data_cases import dataset

UPDATES = 300
OPTIONS = f"""--labels partial_return --pairs 40 --segment-length 3 --held-out 0.2 --episodes 0 --seed 0 1
--alpha 0.1 0.3
--updates {UPDATES} --bc-updates 100 --warmup 50 --hidden 64 64 --batch-size 32 --eval-every 50 --checkpoint-every 5
--threads 1""".split()


def start(*words: str) -> subprocess.Popen[bytes]:
    program = "import sys; from experiments.cli import main; sys.exit(main(sys.argv[1:]))"
    return subprocess.Popen(
        [sys.executable, "-c", program, "train", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=Path(__file__).parents[1],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def only_run(out: Path) -> Path:
    (run,) = (out / "train").iterdir()
    return run


def final_state(run: Path) -> tuple[int, dict[str, torch.Tensor], bytes]:
    index = checkpoint.find(run / "checkpoint")
    assert index is not None
    weights = safetensors.torch.load_file(run / "checkpoint" / index.weights)
    return index.updates, weights, (run / "metrics.csv").read_bytes()


def recorded(run: Path) -> int:
    path = run / "metrics.csv"
    return len(path.read_bytes()) if path.exists() else 0


def assert_resumes_as_never_killed(folder: Path, kills: int, seed: int) -> None:
    data = folder / "data.hdf5"
    hdf5.save(dataset(lengths=(30, 25, 40, 30), ends="xtx."), data)
    words = ("cpl", "--dataset", str(data), *OPTIONS)
    threads = torch.get_num_threads()
    assert main(["train", *words, "--out", str(folder / "whole")]) == 0
    torch.set_num_threads(threads)
    whole = only_run(folder / "whole")

    generator = random.Random(seed)
    process = start(*words, "--out", str(folder / "killed"))
    reached: list[int] = []
    for _ in range(kills):
        deadline = time.monotonic() + 60
        runs = folder / "killed" / "train"
        before = recorded(only_run(folder / "killed")) if reached else 0
        while time.monotonic() < deadline and process.poll() is None:
            # Once it is under way, or else every kill would hit the importing of torch.
            if runs.exists() and any(runs.glob("[!.]*/metrics.csv")) and recorded(only_run(folder / "killed")) > before:
                break
            time.sleep(0.002)
        time.sleep(generator.uniform(0.0, 0.25))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        run = only_run(folder / "killed")
        index = checkpoint.find(run / "checkpoint")  # raises unless it is intact
        reached.append(0 if index is None else index.updates)
        process = start("--resume", str(run))
    _, error = process.communicate(timeout=120)
    assert process.returncode == 0, error.decode()
    print("kept at each kill:", reached)
    assert reached == sorted(reached)
    assert reached[0] < UPDATES, "the first kill came too late to test anything"

    updates, weights, metrics = final_state(only_run(folder / "killed"))
    expected_updates, expected, expected_metrics = final_state(whole)
    assert updates == expected_updates == UPDATES
    assert weights.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(weights[name], tensor), name
    assert metrics == expected_metrics
    assert sorted(path.name for path in (only_run(folder / "killed") / "checkpoint").iterdir()) == [
        "checkpoint.json",
        f"weights-{UPDATES}.safetensors",
    ]


def test_killed_during_the_first_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the weights and the file that names them: nothing is complete, so training begins again."""
    data = tmp_path / "data.hdf5"
    hdf5.save(dataset(lengths=(30, 25, 40, 30), ends="xtx."), data)
    threads = torch.get_num_threads()
    words = ["train", "cpl", "--dataset", str(data), *OPTIONS, "--updates", "120", "--hidden", "8"]
    assert main([*words, "--out", str(tmp_path / "whole")]) == 0
    write = checkpoint._write

    def killed(path: Path, content: bytes) -> None:
        if path.name == checkpoint.INDEX:
            raise KeyboardInterrupt
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_write", killed)
        assert main([*words, "--out", str(tmp_path / "killed")]) == 130
    run = only_run(tmp_path / "killed")
    (left,) = (run / "checkpoint").iterdir()
    assert left.name.startswith("weights-")
    assert main(["train", "--resume", str(run)]) == 0
    torch.set_num_threads(threads)
    updates, weights, metrics = final_state(run)
    expected_updates, expected, expected_metrics = final_state(only_run(tmp_path / "whole"))
    assert (updates, metrics) == (expected_updates, expected_metrics)
    assert all(torch.equal(weights[name], tensor) for name, tensor in expected.items())
    seen = EventAccumulator(str(run))
    seen.Reload()
    recorded = [event.step for event in seen.Scalars(seen.Tags()["scalars"][0])]
    assert recorded == sorted(set(recorded))


def test_killed_three_times(tmp_path: Path) -> None:
    assert_resumes_as_never_killed(tmp_path, kills=3, seed=0)


@pytest.mark.slow
def test_killed_ten_times(tmp_path: Path) -> None:
    assert_resumes_as_never_killed(tmp_path, kills=10, seed=1)
