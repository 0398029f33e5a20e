"""MuJoCo's own renderer, off the screen: lights and shadows, for those who have a graphics driver and the time.

Which library draws must be said before MuJoCo is imported (MUJOCO_GL: egl, or osmesa), so this runs in a process of its
own, ``clip_worker``. A software driver takes some 20 ms for a frame, ten times as long as ``clip_bodies``.
"""

from __future__ import annotations

from collections.abc import Iterator

import mujoco
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .clip_bodies import VIEWS
from .clip_poses import load

Array = NDArray[np.float64]


class Renderer:
    """Renders segments of one task, seen as ``clip_bodies`` shows them."""

    def __init__(self, task: str, size: tuple[int, int]) -> None:
        self.task = task
        self.model, self.dt = load(task)
        self._data = mujoco.MjData(self.model)
        self.model.vis.global_.offwidth, self.model.vis.global_.offheight = size
        self._renderer = mujoco.Renderer(self.model, size[1], size[0])
        self._camera = mujoco.MjvCamera()
        view = VIEWS[task]
        self._camera.azimuth, self._camera.elevation = view.azimuth, view.elevation
        self._camera.distance = 0.5 * view.tall / np.tan(0.5 * np.radians(self.model.vis.global_.fovy))

    def frames(self, pose: Array) -> Iterator[Image.Image]:
        """One picture per row of the joint positions [T, nq]."""
        view = VIEWS[self.task]
        for qpos in pose:
            self._data.qpos[:] = qpos
            mujoco.mj_forward(self.model, self._data)
            self._camera.lookat[:] = view.centre
            self._camera.lookat[: view.follows] += self._data.xpos[1, : view.follows]
            self._renderer.update_scene(self._data, self._camera)
            yield Image.fromarray(self._renderer.render())


def try_renderer() -> None:
    """Render something, or raise what prevents it."""
    model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><geom size='1'/></worldbody></mujoco>")
    with mujoco.Renderer(model, 16, 16) as renderer:
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        renderer.update_scene(data)
        renderer.render()
