"""What the README's parts on studies and their pages in ``docs/`` are put together from: blocks of Markdown."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

README = "experiments/results/"
"""How the README refers to the committed results."""


def seen_from(folder: Path, results: Path) -> str:
    """How a page in ``folder`` refers to the results: ``../experiments/results/``."""
    return f"{Path(os.path.relpath(results, folder)).as_posix()}/"


def picture(results: Path, name: str, caption: str, root: str = README) -> str:
    """The figure ``name`` among the results; "" where there is none."""
    return f"![{caption}]({root}{name})" if (results / name).is_file() else ""


def bullets(sentences: Iterable[str]) -> str:
    """A list."""
    return "\n".join(f"- {sentence}" for sentence in sentences)


def folded(summary: str, blocks: Iterable[str]) -> str:
    """Blocks behind a line to click on; "" where all are empty."""
    inside = joined(blocks)
    return f"<details><summary>{summary}</summary>\n\n{inside}\n\n</details>" if inside else ""


def joined(blocks: Iterable[str]) -> str:
    """The blocks that are not empty, apart."""
    return "\n\n".join(block for block in blocks if block)
