"""Clips: poses are those that were simulated, pictures show them, and queue, cache and failures are bounded."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import envs
from envs.mujoco import make_one
from experiments.labelling import clip_file, clip_mujoco, clip_words, clip_worker, clips
from experiments.labelling.clip_bodies import VIEWS, Bodies
from experiments.labelling.clip_pictures import pictures
from experiments.labelling.clip_poses import load, poses, task_of
from experiments.labelling.server import DATABASE
from experiments.labelling.store import Segment, Store

from .label_cases import ROOT
from .page_cases import make_segment, spiral

PATIENCE = 100.0  # seconds: other work may have both cores


def simulated(env: str, steps: int = 12) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Observations [T, O] of random play and the joint positions [T, nq] that the simulator had."""
    made: Any = make_one(env)
    made.action_space.seed(1)
    obs = [made.reset(seed=3)[0]]
    truth = [made.unwrapped.data.qpos.copy()]
    for _ in range(steps - 1):
        obs.append(made.step(made.action_space.sample())[0])
        truth.append(made.unwrapped.data.qpos.copy())
    made.close()
    return np.array(obs), np.array(truth)


def opened(content: bytes) -> tuple[dict[str, Any], Image.Image]:
    head, _, image = content.partition(b"\n")
    return json.loads(head), Image.open(io.BytesIO(image))


def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, "nothing happened for too long"
        time.sleep(0.02)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Store(tmp_path / DATABASE, create=True).close()
    return tmp_path


def put(folder: Path, segments: list[Segment]) -> list[str]:
    store = Store(folder / DATABASE)
    store.add(segments, [])
    store.close()
    return [segment.id for segment in segments]


@pytest.fixture
def start(folder: Path) -> Iterator[Callable[..., clips.Clips]]:
    begun: list[clips.Clips] = []

    def begin(**options: Any) -> clips.Clips:
        begun.append(clips.start(folder / "clips", folder / DATABASE, **options))
        return begun[-1]

    yield begin
    for each in begun:
        each.close()


# --- poses ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", sorted(VIEWS))
def test_poses_are_those_of_the_simulator(task: str) -> None:
    """What is observed comes back exactly; a place that is not observed to what adding up speeds gives."""
    obs, truth = simulated(task)
    model, dt = load(task)
    found = poses(task, model, dt, obs)
    hidden = truth.shape[1] + model.nv - obs.shape[1] if task in ("HalfCheetah-v5", "Hopper-v5", "Walker2d-v5") else 0
    hidden = 2 if task in ("Ant-v5", "Humanoid-v5", "HumanoidStandup-v5", "Swimmer-v5") else hidden
    turned = (found - truth + np.pi) % (2 * np.pi) - np.pi  # angles are known up to whole turns
    np.testing.assert_allclose(turned[:, hidden:], 0.0, atol=1e-9)
    moved = truth[:, :hidden] - truth[0, :hidden]
    np.testing.assert_allclose(found[:, :hidden], moved, atol=0.25 * max(np.abs(moved).max(initial=0.0), 0.1))
    assert hidden == 0 or np.abs(found[-1, :hidden]).max() > 1e-3


def test_environments_that_share_a_body() -> None:
    names = ["mo-hopper-v5", "hopper-medium-expert-v2", "Ant-v4", "antmaze-medium-play-v2", "HumanoidStandup-v5"]
    assert [task_of(name) for name in names] == ["Hopper-v5", "Hopper-v5", "Ant-v5", "Ant-v5", "HumanoidStandup-v5"]
    assert [task_of(name) for name in ("PointMass-v0", "", "antelope-v0", "pen-human-v1")] == [None] * 4


def test_a_maze_tells_where_the_ant_is() -> None:
    model, dt = load("Ant-v5")
    obs = np.random.default_rng(0).standard_normal((5, 29))
    np.testing.assert_array_equal(poses("Ant-v5", model, dt, obs), obs[:, :15])


# --- pictures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", sorted(VIEWS))
def test_a_drawing_shows_the_body_where_it_is(task: str) -> None:
    """The pixels of the body lie around where its geoms are projected, and change with the pose."""
    bodies = Bodies(task, (96, 72))
    obs, truth = simulated(task, 8)
    del obs
    first, last = (
        np.asarray(frame, dtype=np.int64) for frame in (*bodies.frames(truth[[0]]), *bodies.frames(truth[[-1]]))
    )
    assert first.shape == (72, 96, 3)
    body = np.abs(first - first[2, 2]).sum(-1) > 150
    assert 0.005 < body.mean() < 0.5
    assert (first != last).any(-1).mean() > 0.003
    model, data = bodies.model, mujoco.MjData(bodies.model)
    data.qpos[:] = truth[0]
    mujoco.mj_forward(model, data)
    places = np.array([data.geom_xpos[i] for i in range(model.ngeom) if model.geom_bodyid[i]])
    centre = np.array(bodies.view.centre)
    centre[: bodies.view.follows] += data.xpos[1, : bodies.view.follows]
    seen = bodies._project(places, centre)[:, :2] / 2  # drawn twice as fine
    inside = (seen >= 0).all(1) & (seen < [96, 72]).all(1)
    assert inside.mean() > 0.7
    columns, rows = seen[inside].round().astype(int).T.clip(1, None)
    near = [body[max(0, r - 2) : r + 3, max(0, c - 2) : c + 3].any() for r, c in zip(rows, columns)]
    assert np.mean(near) > 0.8


def test_the_ground_moves_under_a_runner() -> None:
    """A body far along its way is drawn in the middle, over lines that have shifted."""
    bodies = Bodies("HalfCheetah-v5", (96, 72))
    pose = np.zeros((2, 9))
    pose[1, 0] = 100.2
    here, there = (np.asarray(frame, dtype=np.int64) for frame in bodies.frames(pose))
    legs = np.abs(here - here[2, 2]).sum(-1) > 150
    assert np.abs(here - there)[legs].max() < 40
    assert (here != there).any(-1)[40:].mean() > 0.01


KNOWN = ["PointMass-v0", "PointMass1D-v0", "PointMass3D-v0", "TwoObjectiveLQR-v0", "DeepSeaTreasure-v0"]
KNOWN += ["DeepSeaTreasureConcave-v0", "ResourceGathering-v0", "FruitTree6-v0", "Pendulum-v1"]


@pytest.mark.parametrize("env", KNOWN)
def test_problems_without_a_body_are_drawn_too(env: str) -> None:
    world = envs.make(env, 1)
    draw = np.random.default_rng(0)
    obs = [world.reset([1])[0]]
    for _ in range(9):
        if world.spec.actions:
            act = np.full((1, 1), draw.choice([1, 3]) if "Deep" in env else draw.integers(world.spec.actions))
        else:
            act = draw.uniform(-1, 1, (1, world.spec.act_size))
        obs.append(world.step(act)[0][0])
    world.close()
    frames = list(pictures(env)(np.array(obs), (96, 72)))
    assert [frame.size for frame in frames] == [(96, 72)] * 10
    assert len({frame.tobytes() for frame in frames}) > 2
    words = clip_words.describe_picture(env, np.array(obs))
    assert words.endswith(".")
    assert "nan" not in words


def test_a_point_is_where_it_is() -> None:
    obs = np.zeros((2, 4))
    obs[1, :2] = [0.5, 0.5]
    for frame, (x, y) in zip(pictures("PointMass-v0")(obs, (96, 72)), ((48, 36), (48 + 14, 36 - 14))):
        r, g, b = frame.getpixel((x, y))  # type: ignore[misc]
        assert b > r + 60 > g


# --- words ------------------------------------------------------------------------------------------------------------


def test_what_happens_is_told_in_words() -> None:
    words = clip_words.describe_picture("PointMass-v0", spiral(0, 8).astype(float))
    assert words == "The point starts 1.00 from the goal, comes as near as 0.70 and ends at 0.70."
    pose = np.zeros((3, 9))
    pose[:, 0], pose[:, 1] = [0.0, 1.0, 1.5], [0.0, 0.1, -0.1]
    expected = "The body moves 1.50 m forwards; its height is 0.70 m at first, between 0.60 and 0.80 m, 0.60 m at last."
    assert clip_words.describe_body("HalfCheetah-v5", pose, pose) == expected


@pytest.mark.parametrize("task", sorted(VIEWS))
def test_every_task_has_words(task: str) -> None:
    obs, truth = simulated(task, 6)
    words = clip_words.describe_body(task, truth, obs)
    assert re.fullmatch(r"The [a-z]+ [^.].*\.", words)
    assert "nan" not in words
    elsewhere = truth[[0, 0]] + np.array([[0.0], [0.5]])
    seen = obs[[0, 0]] + np.array([[0.0], [0.5]]) * (np.arange(obs.shape[1]) < 20)  # a goal stays
    assert clip_words.describe_body(task, elsewhere, seen) != words


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_file_holds_all_frames_in_order() -> None:
    colours = [(5 * i, 255 - 5 * i, 40) for i in range(20)]
    frames = [Image.new("RGB", (16, 12), colour) for colour in colours]
    head, sheet = opened(clip_file.pack(frames, 0.05, 2, "Words.", drawn=True))
    assert head == {
        "type": "image/png",
        "frames": 20,
        "columns": 8,
        "width": 16,
        "height": 12,
        "milliseconds": 100,
        "words": "Words.",
    }
    assert sheet.size == (8 * 16, 3 * 12)
    for i, colour in enumerate(colours):
        found = sheet.convert("RGB").getpixel((16 * (i % 8) + 8, 12 * (i // 8) + 6))
        assert np.abs(np.subtract(np.array(found), colour)).max() <= 12


@pytest.mark.parametrize(("steps", "every"), [(1, 1), (64, 1), (65, 2), (500, 8)])
def test_long_segments_have_no_more_frames(steps: int, every: int) -> None:
    assert clip_file.stride(steps) == every
    head, _ = opened(clip_worker.make("PointMass-v0", spiral(1, steps)))
    assert head["frames"] == -(-steps // every) <= clip_file.MOST_FRAMES
    assert head["milliseconds"] == 100 * every


def test_a_variant_of_a_task_that_observes_something_else_is_drawn_as_curves() -> None:
    head, _ = opened(clip_worker.make("mo-reacher-v5", np.zeros((4, 6), np.float32)))
    assert head["words"].startswith("The first numbers observed")


# --- in the background ------------------------------------------------------------------------------------------------


def test_what_is_wanted_first_is_drawn_first(folder: Path, start: Callable[..., clips.Clips]) -> None:
    ids = put(folder, [make_segment("PointMass-v0", spiral(i, 6)) for i in range(4)])
    drawn = start()
    assert drawn.path(drawn.name(ids[0])) is None
    drawn.want(ids[:2])
    drawn.want(ids[2:])
    until(lambda: drawn.kept()[0] == 4)
    files = [folder / "clips" / drawn.name(name) for name in ids]
    times = [path.stat().st_mtime_ns for path in files]
    assert times[2] < times[3] < times[1], "the last wish goes before the ones that still waited"
    assert drawn.path(drawn.name(ids[3])) == files[3]
    assert not list((folder / "clips").glob("*.part"))
    head, _ = opened(files[0].read_bytes())
    assert head["frames"] == 6
    again = start()
    assert again.path(again.name(ids[1])) == files[1], "what was drawn is kept for the next time"


def test_queue_and_cache_are_bounded(folder: Path, start: Callable[..., clips.Clips]) -> None:
    ids = put(folder, [make_segment("PointMass-v0", spiral(i, 3)) for i in range(30)])
    size = len(clip_worker.make("PointMass-v0", spiral(0, 3)))
    drawn = start(most_bytes=5 * size, most_waiting=12)
    drawn.want(ids)
    assert drawn.kept()[2] <= 12
    until(lambda: drawn.kept()[2] == 0 and drawn.path(drawn.name(ids[11])) is not None)
    files, total, _ = drawn.kept()
    assert 1 < files < 10
    assert total <= 5 * size
    assert sum(path.stat().st_size for path in (folder / "clips").iterdir()) == total
    gone = drawn.name(ids[0])
    assert drawn.path(gone) is None
    until(lambda: drawn.path(gone) is not None)  # what was thrown away is drawn again when it is asked for
    assert drawn.kept()[1] <= 5 * size
    smaller = start(most_bytes=2 * size)
    assert smaller.kept()[1] <= 2 * size, "what is left from before is bounded, too"


def test_a_clip_that_cannot_be_drawn_is_told_and_the_next_one_is_drawn(
    folder: Path, start: Callable[..., clips.Clips]
) -> None:
    broken = dataclasses.replace(make_segment("FruitTree5-v0", np.zeros((4, 5), np.float32)), length=3)
    (bad, good) = put(folder, [broken, make_segment("PointMass-v0", spiral(0, 3))])
    drawn = start()
    drawn.want([bad, good])
    until(lambda: drawn.kept()[0] == 1)
    told = drawn.problem(drawn.name(bad))
    assert told is not None
    assert told.startswith("the clip cannot be drawn: ")
    assert drawn.path(drawn.name(bad)) is None
    assert drawn.problem(drawn.name(good)) is None


def test_a_process_that_dies_is_started_again(folder: Path, start: Callable[..., clips.Clips]) -> None:
    ids = put(folder, [make_segment("PointMass-v0", spiral(i, 3)) for i in range(2)])
    drawn = start()
    drawn.want(ids[:1])
    until(lambda: drawn.path(drawn.name(ids[0])))
    (worker,) = (pid for pid in children(os.getpid()) if "clip_worker" in command(pid))
    os.kill(worker, signal.SIGKILL)
    drawn.want(ids[1:])
    until(lambda: drawn.path(drawn.name(ids[1])))


def test_the_process_ends_with_the_one_that_started_it(folder: Path) -> None:
    """Also after kill -9; and it does not bring torch."""
    (name,) = put(folder, [make_segment("PointMass-v0", spiral(0, 3))])
    script = (
        "import sys, time; from experiments.labelling import clips; "
        f"c = clips.start({str(folder / 'clips')!r}, {str(folder / DATABASE)!r}); c.want([{name!r}])\n"
        f"while c.path(c.name({name!r})) is None: time.sleep(0.02)\n"
        "print('torch' in sys.modules, flush=True); time.sleep(1000)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdout.readline().strip() == "False"
    (worker,) = children(parent.pid)
    assert "libtorch" not in Path(f"/proc/{worker}/maps").read_text()
    parent.kill()
    parent.communicate()
    until(lambda: not Path(f"/proc/{worker}").exists() or command(worker) == "")


def test_names_and_files_that_are_none(folder: Path, start: Callable[..., clips.Clips]) -> None:
    drawn = start()
    for name in ("../labels.sqlite", "x.clip", "0" * 32 + ".png", "0" * 31 + "/.clip"):
        assert drawn.path(name) is None
        assert drawn.kept()[2] == 0
    unknown = "0" * 32
    assert drawn.path(f"{unknown}.clip") is None
    until(lambda: drawn.kept()[2] == 0 and not drawn._busy)
    assert drawn.problem(f"{unknown}.clip") is None
    blocked = folder / "file"
    blocked.write_text("")
    with pytest.raises(ValueError, match="expected a folder for clips"):
        clips.start(blocked / "clips", folder / DATABASE)
    with pytest.raises(ValueError, match="expected drawing or mujoco"):
        clips.start(folder / "clips", folder / DATABASE, renderer="povray")


def test_mujocos_own_renderer_or_what_to_install(folder: Path, start: Callable[..., clips.Clips]) -> None:
    (name,) = put(folder, [make_segment("Reacher-v5", simulated("Reacher-v5", 3)[0].astype(np.float32))])
    try:
        drawn = start(renderer="mujoco")
    except ValueError as error:
        assert "apt-get install libosmesa6" in str(error)  # noqa: PT017 - one or the other, by machine
        return
    assert re.fullmatch(r"Clips are rendered by MuJoCo through (EGL|OSMesa)\.", drawn.sentence)
    drawn.want([name])
    until(lambda: drawn.path(drawn.name(name)) or drawn.problem(drawn.name(name)))
    path = drawn.path(drawn.name(name))
    assert path is not None
    head, sheet = opened(path.read_bytes())
    assert (head["type"], head["frames"]) == ("image/webp", 3)
    assert np.asarray(sheet).std() > 10


def test_a_missing_renderer_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(clips.Worker):
        def __init__(self, renderer: str) -> None:
            self.problem = f"no {renderer} here"

        def close(self) -> None:
            return

    monkeypatch.setattr(clips, "Worker", Broken)
    with pytest.raises(ValueError, match=r"egl: no egl here; osmesa: no osmesa here\); install libegl1 .* libosmesa6"):
        clips.working("mujoco")
    assert clips.working("drawing") == "drawing"
    assert callable(clip_mujoco.try_renderer)


def children(parent: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(words[1]) == parent and words[0] != "Z":
            found.append(int(status.parent.name))
    return found


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""
