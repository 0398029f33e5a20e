"""The run's folder: checkpoints of others, damage, and what is cut back on resume."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from agents.offline.bc import BC, BCConfig
from agents.offline.iql import IQL, IQLConfig
from pbrl.errors import InputError
from pbrl.members import sweep
from pbrl.records import checkpoint
from pbrl.records.run import Record, Run
from pbrl.spec import Spec

SPEC = Spec("toy", obs_size=3, act_size=2)
ROWS = [{"member": i, "seed": i} for i in range(2)]
CONFIG = {"agent": "bc", "identity": {"lr": 0.1}}


def learner(seed: int = 0) -> BC:
    return BC(SPEC, sweep(BCConfig(hidden=(4,)), [seed, seed + 1]))


def make(folder: Path) -> Run:
    return Run.create(folder, "test", "name", CONFIG, ROWS)


def test_checkpoints_hold_everything(tmp_path: Path) -> None:
    trained, fresh = learner(0), learner(5)
    trained.adam.step([torch.ones_like(p) for p in trained.policy.parameters()])
    trained.count.value = 7
    run = make(tmp_path)
    run.save(trained)
    assert run.load(fresh) == 7
    assert fresh.updates == 7
    assert fresh.adam.steps == 1
    expected = trained.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in fresh.state_dict().items())


def test_the_old_checkpoint_goes_when_the_new_one_stands(tmp_path: Path) -> None:
    trained = learner()
    for updates in (1, 2):
        trained.count.value = updates
        checkpoint.save(tmp_path, trained, agent="bc", config="x")
        (tmp_path / ".weights-3.safetensors.1234.partial").write_text("left by a kill")
    checkpoint.save(tmp_path, trained, agent="bc", config="x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.json", "weights-2.safetensors"]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("agent", "iql", "is of agent 'iql', expected 'bc'"),
        ("pbrl", "9.9.9", "was written by pbrl 9.9.9"),
        ("config", "0123", "is of another config"),
        ("sha256", "0123", "damaged"),
        ("weights", "gone.safetensors", "unreadable"),
    ],
)
def test_checkpoints_of_others_are_refused(tmp_path: Path, field: str, value: str, message: str) -> None:
    run = make(tmp_path)
    run.save(learner())
    path = run.checkpoint / "checkpoint.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), field: value}))
    with pytest.raises(InputError, match=message):
        run.load(learner())


def test_weights_of_another_agent_are_refused(tmp_path: Path) -> None:
    other = IQL(SPEC, sweep(IQLConfig(hidden=(4,)), [0, 1]))
    checkpoint.save(tmp_path, other, agent="bc", config="x")
    with pytest.raises(InputError, match="does not hold the state of this agent"):
        checkpoint.load(tmp_path, learner(), agent="bc", config="x")


def test_damaged_files_are_told(tmp_path: Path) -> None:
    run = make(tmp_path)
    with pytest.raises(InputError, match="has no checkpoint yet"):
        run.load(learner())
    run.save(learner())
    weights = next(run.checkpoint.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(InputError, match="damaged"):
        run.load(learner())
    (run.checkpoint / "checkpoint.json").write_text("{")
    with pytest.raises(InputError, match=r"checkpoint\.json: damaged"):
        run.load(learner())
    (run.folder / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"config\.json: damaged"):
        Run.open(run.folder)


def test_metrics_are_cut_back_to_the_checkpoint(tmp_path: Path) -> None:
    run = make(tmp_path)
    with run.recording(["a", "b"], updates=0) as record:
        for updates in (10, 20, 30):
            record(updates, {"loss": [updates / 10, 0.1], "score": [1.0, float("nan")]})
    path = run.folder / "metrics.csv"
    whole = path.read_text()
    path.write_text(whole + "0,40,0,lo")  # killed while writing
    with run.recording(["a", "b"], updates=20) as record:
        record(30, {"loss": [3.0, 0.1], "score": [1.0, float("nan")]})
    assert path.read_text() == whole
    counts, values = run.series("loss")
    assert counts == [10, 20, 30]
    assert values == [[1.0, 2.0, 3.0], [0.1, 0.1, 0.1]]


def test_only_one_process_trains_in_a_folder(tmp_path: Path) -> None:
    """A lock belongs to an open file, so that two recordings of one process stand for those of two."""
    run = Run.create(tmp_path, "train", "x", {"a": 1}, [{"member": 0}])
    with run.recording(["a"], updates=0) as record:
        record(1, {"loss": [1.0]})
        with pytest.raises(InputError, match="another process is training in it"), run.recording(["a"], updates=0):
            pytest.fail("it was let in")
    with run.recording(["a"], updates=1) as record:
        record(2, {"loss": [0.5]})
    assert [row["updates"] for row in run.metrics()] == ["1", "2"]


def test_events_are_not_doubled(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
        EventAccumulator,
    )

    run = make(tmp_path)
    for since in (0, 10):
        with run.recording(["a", "b"], updates=since) as record:
            for updates in range(since + 10, 31, 10):
                record(updates, {"loss": [updates / 10, 0.5]})
    seen = EventAccumulator(str(run.folder))
    seen.Reload()
    assert sorted(seen.Tags()["scalars"]) == ["loss/a", "loss/b"]
    assert [(event.step, event.value) for event in seen.Scalars("loss/a")] == [(10, 1.0), (20, 2.0), (30, 3.0)]


def test_ctrl_c_waits_until_a_row_is_written(tmp_path: Path) -> None:
    """And until the thread behind the events, which it could leave waiting for ever, has been told."""

    class Events:
        told = 0

        def add_scalar(self, *_: object) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
            self.told += 1

    path, events = tmp_path / "metrics.csv", Events()
    with path.open("w") as file, pytest.raises(KeyboardInterrupt):
        Record(file, events, ("a", "b"))(10, {"loss": [1.0, 2.0], "score": [3.0, 4.0]})
    assert events.told == 4
    assert len(path.read_text().splitlines()) == 4
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_two_runs_of_one_second_are_apart(tmp_path: Path) -> None:
    runs = [make(tmp_path) for _ in range(3)]
    assert len({run.folder for run in runs}) == 3
    assert not list(tmp_path.rglob("*.partial"))
    assert runs[0].identity == runs[1].identity
    other = Run.create(tmp_path, "test", "other", {"agent": "bc", "identity": {"lr": 0.2}}, ROWS)
    assert other.identity != runs[0].identity
    about = json.loads((other.folder / "environment.json").read_bytes())
    assert {"pbrl", "python", "torch", "numpy", "gymnasium", "mujoco", "commit", "threads"} <= about.keys()
    assert [row["seed"] for row in other.members()] == ["0", "1"]


def test_a_run_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    unwritable = {"agent": "bc", "identity": {"lr": float("nan")}}
    with pytest.raises(ValueError, match="not JSON compliant"):
        Run.create(tmp_path, "test", "name", unwritable, ROWS)
    assert list((tmp_path / "test").iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        Run.create(tmp_path / "file", "test", "name", CONFIG, ROWS)
