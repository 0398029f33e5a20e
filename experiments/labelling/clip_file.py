"""The file of a clip: one line of JSON, and one image that holds all its frames, row after row.

    {"type": "image/png", "frames": 64, "columns": 8, "width": 384, "height": 288, "milliseconds": 50, "words": "..."}

A page that has two of them can show both in exact step, at any speed, and needs no decoder of videos.
"""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

SIZE = (384, 288)  # of a frame, in pixels
COLUMNS = 8
MOST_FRAMES = 64  # of longer segments, every second step is shown, or every third, ...
FASTEST, SLOWEST = 0.04, 0.12  # seconds per step, whatever the simulator's are


def stride(steps: int) -> int:
    """Every how many steps a frame is drawn."""
    return -(-steps // MOST_FRAMES)


def pack(frames: Iterable[Image.Image], dt: float, every: int, words: str, *, drawn: bool) -> bytes:
    """A file's contents.

    Args:
        frames: pictures of one size.
        dt: seconds per step of the simulator; what would be too fast to see is slowed down.
        every: steps per frame.
        words: what happens, in one sentence.
        drawn: flat colours, which PNG keeps best; otherwise they are kept as WebP.
    """
    pictures = list(frames)
    width, height = pictures[0].size
    columns = min(COLUMNS, len(pictures))
    sheet = Image.new("RGB", (columns * width, math.ceil(len(pictures) / columns) * height))
    for i, picture in enumerate(pictures):
        sheet.paste(picture, (i % columns * width, i // columns * height))
    image = io.BytesIO()
    if drawn:
        flat = sheet.quantize(96, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        flat.save(image, "png", compress_level=6)
    else:
        sheet.save(image, "webp", quality=80, method=2)
    head = {
        "type": "image/png" if drawn else "image/webp",
        "frames": len(pictures),
        "columns": columns,
        "width": width,
        "height": height,
        "milliseconds": round(1000 * every * min(max(dt, FASTEST), SLOWEST)),
        "words": words,
    }
    return json.dumps(head).encode() + b"\n" + image.getvalue()


def write(path: Path, content: bytes) -> None:
    """The whole file or nothing."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
