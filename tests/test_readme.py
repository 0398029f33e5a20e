"""The README's example, run as it stands there, and what it and the pages of docs/ refer to."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))


def test_the_example_runs(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    script = tmp_path / "example.py"
    script.write_text(code, encoding="utf-8")
    command = [sys.executable, "-W", "error", str(script)]
    threads = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=os.environ | threads, check=False)
    assert done.returncode == 0, done.stderr
    data = re.search(r"mean return in the data: (-[\d.]+)", done.stdout)
    learned = re.search(r"95 % interval: (-[\d.]+) \[", done.stdout)
    assert data is not None
    assert learned is not None
    assert float(learned[1]) > 0.7 * float(data[1]), "the agent has learned nothing"  # returns are negative


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    lost = [name for name in targets if "://" not in name and not (page.parent / name).exists()]
    assert targets or page.name == "human_labels.md"
    assert not lost


def test_the_readme_leads_to_every_page() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(f"](docs/{page.name})" in text for page in PAGES if page.parent.name == "docs")
