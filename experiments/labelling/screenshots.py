"""The pictures of the labelling page in docs/: a real browser opens a real server, and looks.

    python -m experiments.labelling.screenshots [FOLDER]       writes labelling-desktop.png, -phone.png and -results.png

They carry ``page_hash`` of the files that they show, by which a test knows whether they are still true. It needs
playwright (the extra ``dev``) and Debian's chromium.
"""

from __future__ import annotations

import io
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from pbrl.data.files import replacing
from pbrl.errors import InputError

from .app import PAGE
from .store import Segment, Store

DOCS = Path(__file__).parents[2] / "docs"
DATA, QUESTION = "local/reacher/mixed-v1", "Which finger reaches its target better?"
FRAME = "12"
PEOPLE = {"Ann": 0.05, "Bob": 0.15, "Zoë": 0.4}
"""Who answered before, and how often each says the opposite of what can be seen."""
READY = "() => !document.querySelector('#task').hidden && !document.querySelector('[data-answer=first]').disabled"


def page_hash() -> str:
    """16 hexadecimal digits of what a screenshot depends on: the files of the page, and what draws the results."""
    found = blake2b(digest_size=8)
    for path in (*sorted(PAGE.iterdir()), Path(__file__).with_name("result_page.py")):
        found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()


def main(words: Sequence[str]) -> int:
    """Make the pictures; see the module."""
    target = Path(words[0]) if words else DOCS
    try:
        _make(target)
    except InputError as error:
        print(f"pbrl: {error}", file=sys.stderr)
        return 2
    return 0


def _make(target: Path) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        raise InputError("there is no chromium, expected Debian's: apt-get install chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise InputError("there is no playwright, expected the extra: pip install 'pbrl[dev]'") from None
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name) / "labels"
        program = "import sys; from experiments.cli import main; sys.exit(main(sys.argv[1:]))"
        command = [sys.executable, "-c", program, "label", DATA, "--pairs", "30", "--segment-length", "25"]
        command += ["--question", QUESTION, "--overlap", "1", "--repeat", "0.3", "--out", str(folder), "--port", "0"]
        server = subprocess.Popen(command, cwd=DOCS.parent, stdout=subprocess.PIPE, text=True)
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        try:
            assert server.stdout is not None
            address = next(line.split()[1] for line in server.stdout if line.startswith("Open "))
            _answer(folder / "labels.sqlite")
            desktop = browser.new_context(viewport={"width": 1280, "height": 800})
            _save(_task(desktop, address).screenshot(), target / "labelling-desktop.png")
            phone = browser.new_context(viewport={"width": 390, "height": 760}, is_mobile=True, has_touch=True)
            _save(_task(phone, address).screenshot(), target / "labelling-phone.png")
            results = desktop.new_page()
            results.goto(address.split("?")[0] + "results")
            results.set_viewport_size({"width": 1040, "height": 400})
            results.wait_for_selector("svg")
            _save(results.screenshot(full_page=True), target / "labelling-results.png")
        finally:
            browser.close()
            server.kill()
            server.communicate()


def _task(context: Any, address: str) -> Any:
    """A page with two clips, at one frame."""
    context.set_default_timeout(120_000)
    page = context.new_page()
    page.goto(address)
    page.fill("#name", "Dora")
    page.keyboard.press("Enter")
    page.wait_for_function(READY)
    page.fill("#place", FRAME)
    page.locator("#question").focus()
    return page


def _answer(database: Path) -> None:
    """The answers of a few people, who see well or not so well."""
    store = Store(database)
    try:
        for person, mistaken in PEOPLE.items():
            draw = random.Random(person)
            while open_pairs := store.open_pairs(person):
                pair = store.pair(next(iter(open_pairs)))
                assert pair is not None
                first, second = (_distance(store.segment(name)) for name in (pair.first, pair.second))
                said = "equal" if abs(first - second) < 0.01 else "first" if first < second else "second"
                if draw.random() < mistaken:
                    said = {"first": "second", "second": "first", "equal": "skip"}[said]
                store.record(person, pair.id, said, round(draw.uniform(2.0, 9.0), 1), f"{person}-{pair.id}")
    finally:
        store.close()


def _distance(segment: Segment | None) -> float:
    """Metres from the finger to its target at the end."""
    assert segment is not None
    obs = np.frombuffer(segment.obs, np.float32).reshape(segment.length, -1)
    return float(np.hypot(obs[-1, 8], obs[-1, 9]))


def _save(picture: bytes, path: Path) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("page", page_hash())
    flat = Image.open(io.BytesIO(picture)).convert("RGB").quantize(160, dither=Image.Dither.NONE)
    with replacing(path) as temporary:
        flat.save(temporary, "png", optimize=True, pnginfo=text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
