"""A drawing of our own of MuJoCo bodies: forward kinematics and flat shapes, for machines on which nothing else draws.

Needs no graphics library: every geom becomes a filled outline in parallel projection, the far ones first and paler,
over a ground whose lines show how far a body gets. The camera goes along with a walker.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from .clip_poses import load

Array = NDArray[np.float64]
Colour = tuple[int, int, int]

FINE = 2  # how many times finer than the picture everything is drawn, so that edges are smooth
SKY, GROUND, LINES = (238, 241, 245), (219, 225, 231), (200, 208, 216)
SHADOW, FURNITURE, EDGE = (186, 195, 204), (168, 178, 190), (58, 64, 74)
LIMBS: tuple[Colour, ...] = ((214, 120, 66), (66, 124, 172), (98, 152, 104), (150, 106, 160), (196, 158, 62))
CORNERS = np.array([[x, y, z] for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)])


@dataclass(frozen=True)
class View:
    """Where a task is seen from.

    Attributes:
        azimuth, elevation: in degrees, as MuJoCo's cameras have them.
        tall: metres from the lower to the upper edge of the picture.
        centre: of the picture; along the axes that ``follows`` counts, relative to the body.
        follows: 0, 1 (x) or 2 (x and y): the axes along which the camera goes with the body.
        ground: height of the floor; None without one.
        lines: metres between lines on the floor.
    """

    azimuth: float
    elevation: float
    tall: float
    centre: tuple[float, float, float]
    follows: int = 0
    ground: float | None = 0.0
    lines: float = 1.0


VIEWS = {
    "HalfCheetah-v5": View(90.0, -14.0, 1.9, (0.05, 0.0, 0.62), 1, 0.0, 0.5),
    "Hopper-v5": View(90.0, -10.0, 2.1, (0.0, 0.0, 0.85), 1, 0.0, 0.5),
    "Walker2d-v5": View(90.0, -10.0, 2.2, (0.0, 0.0, 0.9), 1, 0.0, 0.5),
    "Swimmer-v5": View(90.0, -90.0, 3.2, (0.0, 0.0, 0.0), 2, -0.1, 0.5),
    "Ant-v5": View(115.0, -38.0, 3.0, (0.0, 0.0, 0.4), 2, 0.0, 1.0),
    "Humanoid-v5": View(140.0, -16.0, 2.4, (0.0, 0.0, 0.95), 2, 0.0, 0.5),
    "HumanoidStandup-v5": View(140.0, -24.0, 2.4, (0.0, 0.0, 0.55), 2, 0.0, 0.5),
    "InvertedPendulum-v5": View(90.0, -6.0, 1.9, (0.0, 0.0, 0.25), 0, None),
    "InvertedDoublePendulum-v5": View(90.0, -6.0, 2.9, (0.0, 0.0, 0.55), 0, None),
    "Reacher-v5": View(90.0, -90.0, 0.56, (0.0, 0.0, 0.0), 0, -0.02, 0.1),
    "Pusher-v5": View(90.0, -52.0, 1.9, (0.1, -0.2, -0.2), 0, -0.325, 0.25),
}


class Bodies:
    """Draws segments of one task."""

    def __init__(self, task: str, size: tuple[int, int]) -> None:
        """``size``: width and height of a picture in pixels."""
        self.size, self.view = size, VIEWS[task]
        self.model, self.dt = load(task)
        self._data = mujoco.MjData(self.model)
        azimuth, elevation = np.radians([self.view.azimuth, self.view.elevation])
        flat = np.cos(elevation)
        ahead = np.array([np.cos(azimuth) * flat, np.sin(azimuth) * flat, np.sin(elevation)])
        right = np.array([np.sin(azimuth), -np.cos(azimuth), 0.0])
        self._axes = np.stack([right, np.cross(right, ahead), ahead])  # right, up and away from who looks
        self._scale = FINE * size[1] / self.view.tall
        kinds = mujoco.mjtGeom
        drawn = (kinds.mjGEOM_CAPSULE, kinds.mjGEOM_SPHERE, kinds.mjGEOM_CYLINDER, kinds.mjGEOM_BOX)
        shown = np.isin(self.model.geom_type, [int(kind) for kind in drawn]) & (self.model.geom_rgba[:, 3] > 0)
        self._geoms = [int(i) for i in np.flatnonzero(shown)]
        names = [self.model.body(int(body)).name for body in self.model.geom_bodyid]
        self._targets = {i for i in self._geoms if names[i] == "target"}  # seen through what covers them

    def frames(self, pose: Array) -> Iterator[Image.Image]:
        """One picture per row of the joint positions [T, nq]."""
        for qpos in pose:
            self._data.qpos[:] = qpos
            mujoco.mj_kinematics(self.model, self._data)
            yield self._picture()

    def _picture(self) -> Image.Image:
        width, height = self.size[0] * FINE, self.size[1] * FINE
        centre = np.array(self.view.centre)
        centre[: self.view.follows] += self._data.xpos[1, : self.view.follows]
        image = Image.new("RGB", (width, height), GROUND if self.view.follows == 2 else SKY)
        draw = ImageDraw.Draw(image)
        shapes = [self._shape(i) for i in self._geoms]
        if self.view.ground is not None:
            self._floor(draw, centre, self.view.ground)
            for points, radius, _ in shapes:
                flat = points.copy()
                flat[:, 2] = self.view.ground
                _fill(draw, self._project(flat, centre)[:, :2], radius * self._scale, SHADOW, None)
        placed = [(self._project(points, centre), radius, colour) for points, radius, colour in shapes]
        depth = [float(points[:, 2].mean()) for points, _, _ in placed]
        span = max(max(depth) - min(depth), 1e-6)
        for i in sorted(range(len(placed)), key=lambda i: (self._geoms[i] in self._targets, -depth[i])):
            points, radius, colour = placed[i]
            pale = 0.4 * (depth[i] - min(depth)) / span if span > 0.02 else 0.0
            _fill(draw, points[:, :2], radius * self._scale, _mixed(colour, SKY, pale), EDGE)
        return image.reduce(FINE)

    def _project(self, points: Array, centre: Array) -> Array:
        """[n, 3] world -> [n, 3] pixels to the right, pixels down, and metres away."""
        seen: Array = (points - centre) @ self._axes.T
        seen[:, 0] = 0.5 * self.size[0] * FINE + seen[:, 0] * self._scale
        seen[:, 1] = 0.5 * self.size[1] * FINE - seen[:, 1] * self._scale
        return seen

    def _shape(self, i: int) -> tuple[Array, float, Colour]:
        """A geom as points [n, 3] of the world whose hull, widened by a radius, is its outline; and its colour."""
        place, turn, size = self._data.geom_xpos[i], self._data.geom_xmat[i].reshape(3, 3), self.model.geom_size[i]
        kind = int(self.model.geom_type[i])
        if kind == int(mujoco.mjtGeom.mjGEOM_SPHERE):
            points, radius = place[None], float(size[0])
        elif kind == int(mujoco.mjtGeom.mjGEOM_CAPSULE):
            points, radius = place + np.outer([-size[1], size[1]], turn[:, 2]), float(size[0])
        elif kind == int(mujoco.mjtGeom.mjGEOM_CYLINDER):
            angle = np.linspace(0.0, 2.0 * np.pi, 16, endpoint=False)
            ring = size[0] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
            ends = [np.column_stack([ring, np.full(16, z)]) for z in (-size[1], size[1])]
            points, radius = place + np.concatenate(ends) @ turn.T, 0.0
        else:
            points, radius = place + (CORNERS * size) @ turn.T, 0.0
        red, green, blue = (float(x) for x in self.model.geom_rgba[i, :3])
        if self.model.geom_bodyid[i] == 0:  # walls and rails
            return points, radius, FURNITURE
        named = max(red, green, blue) - min(red, green, blue) > 0.45  # a target or a tip: its own colour says so
        own = (int(220 * red) + 20, int(220 * green) + 20, int(220 * blue) + 20)
        return points, radius, own if named else LIMBS[self._limb(i) % len(LIMBS)]

    def _limb(self, i: int) -> int:
        """Which branch of the body a geom belongs to, so that left and right legs differ."""
        body, parents = int(self.model.geom_bodyid[i]), self.model.body_parentid
        while body and parents[body] and parents[parents[body]]:
            body = int(parents[body])
        siblings = [b for b in range(1, self.model.nbody) if parents[b] == parents[body]]
        return 1 + siblings.index(body) if body and parents[body] else 0

    def _floor(self, draw: Any, centre: Array, height: float) -> None:
        step, reach = self.view.lines, 2.0 * self.view.tall
        far = 1.2 if self.view.follows == 1 else reach
        x0, y0 = (np.floor(centre[k] / step) * step for k in (0, 1))
        across, deep = (np.arange(-np.ceil(r / step), np.ceil(r / step) + 1) * step for r in (reach, far))
        left, right, near, back = x0 - reach, x0 + reach, y0 - far, y0 + far
        ends = [[(left, near), (left, back)], [(right, back), (right, near)]]
        ends += [[(x0 + a, near), (x0 + a, back)] for a in across]
        ends += [[(left, y0 + b), (right, y0 + b)] for b in deep]
        flat = np.array(ends).reshape(-1, 2)
        seen = self._project(np.column_stack([flat, np.full(len(flat), height)]), centre)[:, :2].tolist()
        draw.polygon([tuple(p) for p in seen[:4]], fill=GROUND)
        for i in range(4, len(seen), 2):
            draw.line([*seen[i], *seen[i + 1]], fill=LINES, width=FINE)


def _fill(draw: Any, points: Array, radius: float, colour: Colour, edge: Colour | None) -> None:
    """What lies within a radius (in pixels) of one or two points [n, 2]; without a radius, the hull of the points."""
    if radius == 0.0:
        draw.polygon(_hull(points), fill=colour, outline=edge)
        return
    rim = 0.5 * FINE if edge else 0.0
    for reach, fill in [(radius + rim, edge), (radius - rim, colour)] if edge else [(radius, colour)]:
        r = max(reach, 1.0)
        if len(points) > 1:
            along = points[1] - points[0]
            aside = np.array([-along[1], along[0]]) * (r / max(float(np.hypot(*along)), 1e-9))
            (ax, ay), (bx, by), (dx, dy) = points[0].tolist(), points[1].tolist(), aside.tolist()
            draw.polygon([(ax + dx, ay + dy), (bx + dx, by + dy), (bx - dx, by - dy), (ax - dx, ay - dy)], fill=fill)
        for x, y in points.tolist():
            draw.ellipse([x - r, y - r, x + r, y + r], fill=fill)


def _hull(points: Array) -> list[tuple[float, float]]:
    """The convex hull of points [n, 2] (Andrew's monotone chain)."""
    ordered = sorted({(float(x), float(y)) for x, y in points})

    def half(run: list[tuple[float, float]]) -> list[tuple[float, float]]:
        kept: list[tuple[float, float]] = []
        for x, y in run:
            while len(kept) > 1:
                (ax, ay), (bx, by) = kept[-2:]
                if (bx - ax) * (y - ay) - (by - ay) * (x - ax) > 0.0:
                    break
                kept.pop()
            kept.append((x, y))
        return kept[:-1]

    return half(ordered) + half(ordered[::-1])


def _mixed(one: Colour, other: Colour, share: float) -> Colour:
    r, g, b = (round(a + (b - a) * share) for a, b in zip(one, other))
    return r, g, b
