"""The process that draws clips; ``clips`` starts it, and it ends with whoever started it. No torch, little memory.

It reads jobs on its standard input, a line of JSON {path, env, rows, bytes} and then so many bytes of observations
(float32), and answers each with a line of JSON {path, error}; error is null or a sentence. Its first line says whether
it can work.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from pbrl.errors import InputError

from . import clip_file, clip_words
from .clip_bodies import Bodies
from .clip_pictures import pictures
from .clip_poses import poses, task_of

RENDERERS = ("drawing", "egl", "osmesa")
PLAIN_STEP = 0.1  # seconds per step of problems without a simulator


def make(env: str, obs: np.ndarray[Any, Any], renderer: str = "drawing") -> bytes:
    """The file of the clip that shows observations [T, O] of consecutive steps.

    Raises:
        InputError: observations that are not those of the environment.
    """
    every, task = clip_file.stride(len(obs)), task_of(env)
    if task is None or not _is_readable(task, obs):
        frames = pictures(env)(obs[::every].astype(np.float64), clip_file.SIZE)
        words = clip_words.describe_picture(env, obs)
        return clip_file.pack(frames, PLAIN_STEP, every, words, drawn=True)
    artist = _artist(task, renderer)
    pose = poses(task, artist.model, artist.dt, obs)
    words = clip_words.describe_body(task, pose, obs)
    return clip_file.pack(artist.frames(pose[::every]), artist.dt, every, words, drawn=renderer == "drawing")


def _is_readable(task: str, obs: np.ndarray[Any, Any]) -> bool:
    """Whether a task's poses can be read off the observations; some variants of a task observe something else."""
    artist = _artist(task, "drawing")
    try:
        poses(task, artist.model, artist.dt, obs[:1])
    except InputError:
        return False
    return True


@lru_cache(maxsize=4)
def _artist(task: str, renderer: str) -> Any:
    if renderer == "drawing":
        return Bodies(task, clip_file.SIZE)
    from .clip_mujoco import Renderer

    return Renderer(task, clip_file.SIZE)


def main() -> None:
    """Work until the standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever started this; the input will end
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer
    renderer = sys.argv[1]

    def say(path: str | None, error: str | None) -> None:
        answers.write(json.dumps({"path": path, "error": error}) + "\n")

    try:
        if renderer != "drawing":
            from .clip_mujoco import try_renderer

            try_renderer()
    except Exception as error:  # a missing library is told in as many ways as there are libraries
        say(None, f"{type(error).__name__}: {error}")
        return
    say(None, None)
    for line in sys.stdin.buffer:
        job = json.loads(line)
        content = sys.stdin.buffer.read(job["bytes"])
        try:
            obs = np.frombuffer(content, np.float32).reshape(job["rows"], -1)
            clip_file.write(Path(job["path"]), make(job["env"], obs, renderer))
        except Exception as error:  # whatever is wrong with one clip, the next one is to be drawn
            say(job["path"], " ".join(f"{error}".split()) or type(error).__name__)
        else:
            say(job["path"], None)


if __name__ == "__main__":
    main()
