"""The pictures in docs/ show the labelling page as it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from experiments.labelling.screenshots import DOCS, page_hash


@pytest.mark.parametrize("name", ["desktop", "phone", "results"])
def test_pictures_are_of_the_page_as_it_is(name: str) -> None:
    with Image.open(DOCS / f"labelling-{name}.png") as picture:
        made = picture.info.get("page")
    assert made == page_hash(), "make them anew: python -m experiments.labelling.screenshots"


@pytest.mark.parametrize("page", ["README.md", "docs/labelling.md"])
def test_pictures_that_are_shown_are_there(page: str) -> None:
    path = Path(__file__).parents[1] / page
    shown = re.findall(r"!\[[^\]]+\]\(([^)]*labelling-[^)]*)\)", path.read_text())
    assert shown
    assert all((path.parent / name).is_file() for name in shown)
