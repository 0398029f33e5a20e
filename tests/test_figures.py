"""Figures: what they say, that they are reproducible, and that nothing is left half-written."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from pbrl.errors import InputError
from pbrl.figures import PALETTE, accuracy_by_gap, learning_curves, score_bars
from pbrl.statistics import accuracy_by_gap as by_gap

RANDOM = np.random.default_rng(0)
TRUTH = RANDOM.normal(size=200)
SCORES: dict[tuple[str, str], Any] = {
    ("cpl", "regret"): 60 + RANDOM.normal(size=8),
    ("cpl", "partial_return"): [40.0, 41.0, np.nan],
    ("sft", "regret"): [np.nan, np.nan],
    ("iql", "true_reward"): [2500.0],
}
CURVES = {name: (np.arange(20), RANDOM.normal(size=(4, 20)).cumsum(1)) for name in ("cpl", "iql")}
GAPS = {name: by_gap(TRUTH + RANDOM.normal(size=(3, 200)), TRUTH) for name in ("cpl", "reward model")}

DRAWN: dict[str, Callable[[Path], None]] = {
    "bars": lambda path: score_bars(SCORES, path, title="Bars", axis="score", references={"expert": 100.0}),
    "curves": lambda path: learning_curves(CURVES, path, title="Curves", axis="score", references={"data": 0.5}),
    "gap": lambda path: accuracy_by_gap(GAPS, path, title="Gap"),
}


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every text that is put on axes."""
    said: list[str] = []
    write = Axes.text

    def text(self: Axes, x: float, y: float, s: str, *args: Any, **kwargs: Any) -> Any:
        said.append(s.strip())
        return write(self, x, y, s, *args, **kwargs)

    monkeypatch.setattr(Axes, "text", text)
    return said


@pytest.mark.parametrize("name", DRAWN)
def test_same_numbers_same_file(name: str, tmp_path: Path) -> None:
    DRAWN[name](tmp_path / "a.png")
    DRAWN[name](tmp_path / "new" / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "new" / "b.png").read_bytes()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["b.png"], "a temporary file is left"
    image = imread(tmp_path / "a.png")
    assert min(image.shape[:2]) > 400
    for colour in PALETTE[:2]:
        assert (np.abs(image[..., :3] - to_rgb(colour)).max(-1) < 0.02).sum() > 50, f"no series in {colour}"


def test_bars_say_what_diverged(tmp_path: Path, words: list[str]) -> None:
    DRAWN["bars"](tmp_path / "bars.png")
    assert "partial_return  40.5  (1 of 3 diverged)" in words
    assert "regret  (2 of 2 diverged)" in words
    assert "true_reward  2500" in words
    assert "expert" in words


def test_curves_are_named_at_their_ends_without_overlap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places: dict[str, float] = {}
    write = Axes.text

    def text(self: Axes, x: float, y: float, s: str, *args: Any, **kwargs: Any) -> Any:
        places[s] = y
        return write(self, x, y, s, *args, **kwargs)

    monkeypatch.setattr(Axes, "text", text)
    flat = {name: (np.arange(2), np.full((3, 2), level)) for name, level in [("a", 0.0), ("b", 0.001), ("c", 1.0)]}
    learning_curves(flat, tmp_path / "curves.png", title="Curves", axis="score")
    assert places["a"] < places["b"] < places["c"]
    assert places["b"] - places["a"] > 0.04
    assert places["c"] == pytest.approx(1.0, abs=0.05)


def test_nothing_to_draw(tmp_path: Path) -> None:
    path = tmp_path / "none.png"
    with pytest.raises(InputError, match="no scores"):
        score_bars({}, path, title="", axis="")
    with pytest.raises(InputError, match="nothing to draw"):
        learning_curves({}, path, title="", axis="")
    with pytest.raises(InputError, match=r"curve 'cpl' has shapes \[3\] and \[2, 4\]"):
        learning_curves({"cpl": (np.zeros(3), np.zeros((2, 4)))}, path, title="", axis="")
    with pytest.raises(InputError, match="no bins"):
        accuracy_by_gap({}, path, title="")
    with pytest.raises(InputError, match=r"\[3, 5\] bins"):
        accuracy_by_gap({"a": GAPS["cpl"], "b": by_gap(TRUTH, TRUTH, bins=3)}, path, title="")
    assert not list(tmp_path.iterdir())


def test_unwritable_path(tmp_path: Path) -> None:
    (tmp_path / "gap.png" / "occupied").mkdir(parents=True)
    with pytest.raises(InputError, match="cannot be written"):
        DRAWN["gap"](tmp_path / "gap.png")
    assert [path.name for path in tmp_path.iterdir()] == ["gap.png"], "a temporary file is left"


def test_no_window_system_is_touched() -> None:
    code = "import sys, pbrl.figures; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
