"""Plain pictures of problems that have no body: points that are steered, grids, trees, and any numbers over time."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Array = NDArray[np.float64]
Size = tuple[int, int]
Frames = Iterator[Image.Image]

FINE = 2  # everything is drawn this many times finer than the picture, so that edges are smooth
PAPER, FAINT, LINE, INK = (246, 247, 249), (226, 230, 235), (176, 184, 194), (58, 64, 74)
BLUE, ORANGE, GREEN, RED, SAND = (66, 124, 172), (214, 120, 66), (98, 152, 104), (190, 70, 70), (222, 208, 178)
COLOURS = (BLUE, ORANGE, GREEN, (150, 106, 160), (196, 158, 62), (70, 150, 150), (160, 110, 90), (110, 110, 120))
MOST_CURVES = len(COLOURS)


def pictures(env: str) -> Callable[[Array, Size], Frames]:
    """What draws observations [T, O] of an environment without a body; curves for those that are not known here."""
    if re.fullmatch(r"PointMass(\d+D)?-v0", env):
        return points
    return _GRIDS.get(re.sub(r"(Concave|\d)?-v0$", "", env), curves)


def points(obs: Array, size: Size) -> Frames:
    """A point that should come to rest in the middle: where it is, how fast, and where it was.

    Observations are positions and velocities, d of each. A point in a plane is drawn there, in any other dimension as
    beads, one on each line.
    """
    place, speed = np.split(obs, 2, axis=1)
    yield from (_plane if place.shape[1] == 2 else _beads)(place, speed, size)


def regulated(obs: Array, size: Size) -> Frames:
    """The same for a point in a plane whose observations are positions alone."""
    yield from _plane(obs, np.zeros_like(obs), size)


def _plane(place: Array, speed: Array, size: Size) -> Frames:
    width, height = (FINE * n for n in size)
    scale = 0.5 * height / 1.3
    at = np.column_stack([0.5 * width + place[:, 0] * scale, 0.5 * height - place[:, 1] * scale])
    at = np.clip(at, 0.0, [width, height])  # what leaves the picture stays at its edge
    tip = at + np.column_stack([speed[:, 0], -speed[:, 1]]) * 0.5 * scale
    r = 0.045 * height
    for t in range(len(place)):
        image, draw = _sheet(size)
        for x in np.arange(-2.0, 2.01, 0.25) * scale:
            draw.line([0.5 * width + x, 0, 0.5 * width + x, height], fill=FAINT, width=FINE)
            draw.line([0, 0.5 * height + x, width, 0.5 * height + x], fill=FAINT, width=FINE)
        for reach in (3 * r, 1.5 * r):
            _circle(draw, (0.5 * width, 0.5 * height), reach, None, GREEN)
        if t:
            draw.line([tuple(p) for p in at[: t + 1].tolist()], fill=LINE, width=2 * FINE, joint="curve")
        _circle(draw, at[0].tolist(), 0.4 * r, LINE, None)
        draw.line([*at[t].tolist(), *tip[t].tolist()], fill=ORANGE, width=3 * FINE)
        _circle(draw, at[t].tolist(), r, BLUE, INK)
        yield image.reduce(FINE)


def _beads(place: Array, speed: Array, size: Size) -> Frames:
    width, height = (FINE * n for n in size)
    rows = place.shape[1]
    scale, r = 0.5 * width / 1.3, min(0.05 * height, 0.3 * height / rows)
    level = (np.arange(rows) + 0.5) * height / rows
    for t in range(len(place)):
        image, draw = _sheet(size)
        draw.line([0.5 * width, 0, 0.5 * width, height], fill=GREEN, width=FINE)
        for i, y in enumerate(level.tolist()):
            x, before = (0.5 * width + place[k, i] * scale for k in (t, max(0, t - 8)))
            draw.line([0, y, width, y], fill=LINE, width=FINE)
            draw.line([before, y, x, y], fill=LINE, width=int(r))
            draw.line([x, y, x + 0.5 * speed[t, i] * scale, y], fill=ORANGE, width=3 * FINE)
            _circle(draw, (x, y), r, BLUE, INK)
        yield image.reduce(FINE)


def sea_treasure(obs: Array, size: Size) -> Frames:
    """A submarine, the sea bed, and what lies there."""
    from envs.multi_objective.sea_treasure import CONVEX, DEPTHS, SIZE  # brings torch: only when a grid is asked for

    cells = np.stack([obs[:, :SIZE].argmax(1), obs[:, SIZE:].argmax(1)], axis=1)
    rock = {(row, column) for column in range(SIZE) for row in range(DEPTHS[column] + 1, SIZE)}
    chests = {(DEPTHS[column], column): f"{1 + column}" for column in range(len(CONVEX))}
    for t in range(len(cells)):
        image, draw = _sheet(size)
        grid = _Grid(draw, size, SIZE)
        for row in range(SIZE):
            for column in range(SIZE):
                here = (row, column)
                grid.cell(here, INK if here in rock else SAND if here in chests else PAPER)
                if here in chests:
                    grid.text(here, chests[here])
        grid.path(cells[: t + 1])
        grid.disc(tuple(cells[t].tolist()), BLUE)
        yield image.reduce(FINE)


def resource_gathering(obs: Array, size: Size) -> Frames:
    """Home, gold, diamond, two enemies, and who fetches them; what is aboard is worn as rings."""
    from envs.multi_objective.resource_gathering import DIAMOND, ENEMIES, GOLD, HOME, SIZE

    cells = np.stack([obs[:, :SIZE].argmax(1), obs[:, SIZE : 2 * SIZE].argmax(1)], axis=1)
    signs = {HOME: ("home", FAINT), GOLD: ("gold", SAND), DIAMOND: ("gem", (196, 220, 232))}
    signs |= dict.fromkeys(ENEMIES, ("enemy", (236, 200, 196)))
    for t in range(len(cells)):
        image, draw = _sheet(size)
        grid = _Grid(draw, size, SIZE)
        for row in range(SIZE):
            for column in range(SIZE):
                sign, colour = signs.get((row, column), ("", PAPER))
                grid.cell((row, column), colour)
                grid.text((row, column), sign)
        grid.path(cells[: t + 1])
        here = (int(cells[t, 0]), int(cells[t, 1]))
        for aboard, colour, reach in ((obs[t, -2], (226, 178, 60), 0.42), (obs[t, -1], (90, 170, 210), 0.36)):
            if aboard > 0:
                grid.disc(here, colour, reach)
        grid.disc(here, BLUE)
        yield image.reduce(FINE)


def fruit_tree(obs: Array, size: Size) -> Frames:
    """The tree, and the way down it so far."""
    width, height = (FINE * n for n in size)
    depth = obs.shape[1]
    level = (np.arange(depth + 1) + 0.5) * height / (depth + 1)

    def place(row: int, number: int) -> tuple[float, float]:
        return (number + 0.5) * width / 2**row, float(level[row])

    for turns in obs:
        image, draw = _sheet(size)
        for row in range(depth):
            for number in range(2**row):
                for child in (2 * number, 2 * number + 1):
                    draw.line([*place(row, number), *place(row + 1, child)], fill=LINE, width=FINE)
        here, number = place(0, 0), 0
        for row, turn in enumerate(turns[turns != 0.0]):
            number = 2 * number + int(turn > 0)
            after = place(row + 1, number)
            draw.line([*here, *after], fill=BLUE, width=3 * FINE)
            here = after
        _circle(draw, here, 0.03 * height, BLUE, INK)
        yield image.reduce(FINE)


def curves(obs: Array, size: Size) -> Frames:
    """The first observations as curves up to now, each in a band of its own between -3 and 3 (softly bounded)."""
    width, height = (FINE * n for n in size)
    rows = min(obs.shape[1], MOST_CURVES)
    band = height / rows
    bounded = np.tanh(obs[:, :rows] / 3.0)
    x = np.linspace(0.04, 0.96, max(len(obs), 2))[: len(obs)] * width
    y = (np.arange(rows) + 0.5) * band - 0.45 * band * bounded  # [T, rows]
    for t in range(len(obs)):
        image, draw = _sheet(size)
        for i in range(rows):
            draw.line([0, (i + 0.5) * band, width, (i + 0.5) * band], fill=FAINT, width=FINE)
            way = list(zip(x[: t + 1].tolist(), y[: t + 1, i].tolist()))
            if t:
                draw.line(way, fill=COLOURS[i], width=2 * FINE, joint="curve")
            _circle(draw, way[-1], 3.0 * FINE, COLOURS[i], None)
        yield image.reduce(FINE)


class _Grid:
    """A square of cells in the middle of a picture."""

    def __init__(self, draw: Any, size: Size, cells: int) -> None:
        width, height = (FINE * n for n in size)
        self.draw, self.side = draw, 0.96 * height / cells
        self.left, self.top = 0.5 * (width - cells * self.side), 0.02 * height
        self.font = ImageFont.load_default(0.26 * self.side if cells < 8 else 0.5 * self.side)

    def middle(self, cell: tuple[int, ...]) -> tuple[float, float]:
        return self.left + (cell[1] + 0.5) * self.side, self.top + (cell[0] + 0.5) * self.side

    def cell(self, cell: tuple[int, ...], colour: tuple[int, int, int]) -> None:
        (x, y), h = self.middle(cell), 0.5 * self.side
        self.draw.rectangle([x - h, y - h, x + h, y + h], fill=colour, outline=LINE, width=FINE)

    def text(self, cell: tuple[int, ...], word: str) -> None:
        self.draw.text(self.middle(cell), word, fill=INK, font=self.font, anchor="mm")

    def path(self, cells: NDArray[np.int64]) -> None:
        if len(cells) > 1:
            way = [self.middle(tuple(cell)) for cell in cells.tolist()]
            self.draw.line(way, fill=LINE, width=3 * FINE, joint="curve")

    def disc(self, cell: tuple[int, ...], colour: tuple[int, int, int], reach: float = 0.28) -> None:
        _circle(self.draw, self.middle(cell), reach * self.side, colour, INK)


def _sheet(size: Size) -> tuple[Image.Image, Any]:
    image = Image.new("RGB", (FINE * size[0], FINE * size[1]), PAPER)
    return image, ImageDraw.Draw(image)


def _circle(draw: Any, centre: Any, radius: float, fill: Any, outline: Any) -> None:
    x, y = centre
    draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=fill, outline=outline, width=FINE)


_GRIDS: dict[str, Callable[[Array, Size], Frames]] = {
    "DeepSeaTreasure": sea_treasure,
    "ResourceGathering": resource_gathering,
    "FruitTree": fruit_tree,
    "TwoObjectiveLQR": regulated,
}
