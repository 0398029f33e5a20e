"""The labelling page in a real browser: headless Chromium, driven by Playwright, at a real server with real clips."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from agents.preference.pebble import PEBBLE
from envs.point_mass import PointMass
from experiments.labelling.app import PAGE
from experiments.labelling.desk import PageDesk
from experiments.labelling.server import DATABASE
from experiments.labelling.store import Store
from pbrl.asking.query_schedule import Interview, QuerySchedule
from pbrl.data.buffer import Buffer
from pbrl.loops import query_and_learn
from pbrl.members import sweep
from pbrl.play.collector import Collector

from .asking_cases import SMALL
from .page_cases import CHROMIUM, SLOWLY, Server, browsing, fill_folder, serving

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no /usr/bin/chromium: apt-get install chromium")

READY = "() => !document.querySelector('[data-answer=first]').disabled && !document.querySelector('#task').hidden"
SAID = {"ArrowLeft": "first", "ArrowRight": "second", "ArrowDown": "equal", "ArrowUp": "skip"}


@pytest.fixture(scope="module")
def context() -> Iterator[Any]:
    with browsing(viewport={"width": 1280, "height": 800}) as found:
        yield found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    fill_folder(tmp_path, 6)
    return tmp_path


@pytest.fixture
def page(context: Any) -> Iterator[Any]:
    """A page of nobody; errors in its scripts fail the test."""
    context.clear_cookies()
    found = context.new_page()
    faults: list[str] = []
    found.on("pageerror", lambda error: faults.append(str(error)))
    yield found
    found.close()
    assert faults == []


def ready(page: Any) -> None:
    """Waits until both clips can be seen, and as long as it takes to judge: sooner, the page believes no key."""
    page.wait_for_function(READY)
    page.wait_for_timeout(170)


def enter(page: Any, server: Server, name: str = "Ann") -> None:
    """Opens the address and says who one is."""
    page.goto(server.address)
    page.fill("#name", name)
    page.keyboard.press("Enter")
    ready(page)


def done(page: Any, count: int) -> None:
    """Waits until so many answers are acknowledged and the next pair, or the end, can be seen."""
    page.wait_for_function(
        "n => document.querySelector('#progress-words').textContent.startsWith(`${n} of `) &&"
        " (!document.querySelector('#nothing').hidden || !document.querySelector('[data-answer=first]').disabled)",
        arg=count,
    )
    page.wait_for_timeout(170)


def pending(page: Any) -> list[tuple[str, Any]]:
    """What the browser keeps as it has not been acknowledged."""
    found = page.evaluate("Object.entries(localStorage).filter(([name]) => name.startsWith('pbrl.pending.'))")
    return [(name, json.loads(value)) for name, value in found]


def answers(folder: Path) -> list[tuple[str, str]]:
    """Pair and answer of all that were not undone, in the order in which they came."""
    store = Store(folder / DATABASE)
    try:
        return [(said.pair, said.answer) for said in store.answers()]
    finally:
        store.close()


def test_a_person_labels_thirty_pairs_by_keyboard(tmp_path: Path, page: Any) -> None:
    """And undoes, skips, reloads and goes on."""
    fill_folder(tmp_path, 30)
    store = Store(tmp_path / DATABASE)
    pairs = [pair.id for pair in store.pairs()]
    store.close()
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    pressed: list[str] = []
    undone = reloaded = False
    with serving(tmp_path) as server:
        page.goto(server.address)
        assert "token" not in page.url
        page.keyboard.type("Ann")  # the field has the focus
        page.keyboard.press("Enter")
        ready(page)
        while len(pressed) < 30:
            key = list(SAID)[(7 * len(pressed) + len(pressed) // 3) % 4]
            page.keyboard.press(key)
            pressed.append(key)
            done(page, len(pressed))
            if len(pressed) == 10 and not undone:
                undone = True
                for _ in range(2):
                    page.keyboard.press("u")
                    pressed.pop()
                    done(page, len(pressed))
                page.keyboard.press("ArrowRight")
                pressed.append("ArrowRight")
                done(page, len(pressed))
            if len(pressed) == 20 and not reloaded:
                reloaded = True
                page.reload()
                ready(page)
                assert page.locator("#welcome").is_hidden(), "it asks for a name once"
                done(page, 20)
                page.keyboard.press("u")  # also what was answered before the reload
                pressed.pop()
                done(page, 19)
        assert page.inner_text("#nothing-title") == "All done. Thank you!"
        assert {url.split("/")[2] for url in requests if not url.startswith("blob:")} == {f"127.0.0.1:{server.port}"}
    assert answers(tmp_path) == [(pair, SAID[key]) for pair, key in zip(pairs, pressed)]
    store = Store(tmp_path / DATABASE)
    assert store._rows("SELECT count(*) FROM answer WHERE undone_at IS NOT NULL") == [(3,)]
    times = [said.seconds for said in store.answers()]
    store.close()
    assert all(0.1 < seconds < 600 for seconds in times)


def test_both_clips_are_in_exact_step(folder: Path, page: Any) -> None:
    with serving(folder) as server:
        enter(page, server)
        shown = page.evaluate(
            """() => new Promise((done) => {
                const all = [], [a, b] = document.querySelectorAll('canvas');
                const look = () => { all.push([a.dataset.frame, b.dataset.frame]);
                    all.length < 60 ? requestAnimationFrame(look) : done(all); };
                look(); })"""
        )
        assert all(a == b for a, b in shown)
        assert len({a for a, _ in shown}) > 2, "they move"
        page.keyboard.press(" ")
        assert page.inner_text("#play") == "Play"
        page.fill("#place", "3")
        assert page.evaluate("[...document.querySelectorAll('canvas')].map((c) => c.dataset.frame)") == ["3", "3"]
        still = page.evaluate("document.querySelector('canvas').toDataURL()")
        page.fill("#place", "7")
        assert page.evaluate("document.querySelector('canvas').toDataURL()") != still
        page.locator("#question").focus()
        page.keyboard.press("r")
        assert page.inner_text("#play") == "Pause"
        page.keyboard.press("+")
        assert page.input_value("#speed") == "2"
        page.keyboard.press("-")
        page.keyboard.press("-")
        assert page.input_value("#speed") == "0.5"
        assert answers(folder) == []


def test_nothing_is_lost_while_the_server_is_away(folder: Path, page: Any) -> None:
    """An answer waits on the page, through a reload, until the server is back; it is recorded once."""
    with serving(folder) as server:
        enter(page, server)
        page.keyboard.press("ArrowLeft")
        done(page, 1)
        server.kill()
        page.keyboard.press("ArrowRight")
        page.wait_for_selector("#trouble:visible")
        assert "does not answer" in page.inner_text("#trouble")
        assert "Your answer is kept here" in page.inner_text("#trouble")
        assert page.locator("[data-answer=first]").is_disabled()
        ((_, unsent),) = pending(page)
        nonce = unsent["body"]["nonce"]
        server.start()
        done(page, 2)
        assert page.locator("#trouble").is_hidden()
        assert [what for _, what in answers(folder)] == ["first", "second"]
        # The answer reached the server, but its acknowledgement got lost, and then the page was closed.
        page.route("**/api/answer", lambda route: (route.fetch(), route.abort())[1])
        page.keyboard.press("ArrowDown")
        page.wait_for_selector("#trouble:visible")
        page.unroute("**/api/answer")
        page.reload()
        done(page, 3)
        assert pending(page) == []
    assert [what for _, what in answers(folder)] == ["first", "second", "equal"]
    store = Store(folder / DATABASE)
    assert store._rows("SELECT count(*) FROM answer WHERE nonce = ?", (nonce,)) == [(1,)]
    store.close()


def test_with_screen_reader_keyboard_and_little_motion(folder: Path, context: Any) -> None:
    """Everything has a name, is reached by Tab and works by Enter; nothing moves that was not asked to."""
    calm = context.browser.new_context(reduced_motion="reduce", viewport={"width": 1280, "height": 800})
    calm.set_default_timeout(SLOWLY)
    page = calm.new_page()
    try:
        with serving(folder) as server:
            enter(page, server)
            page.wait_for_timeout(400)
            assert page.evaluate("document.querySelector('canvas').dataset.frame") == "0"
            assert page.inner_text("#play") == "Play"
            for side, label in (("Left", 0), ("Right", 1)):
                words = page.locator("canvas").nth(label).get_attribute("aria-label")
                assert re.fullmatch(rf"{side} clip\. The point starts .* and ends at \d\.\d\d\.", words)
            news = page.inner_text("#news")
            assert news.startswith("0 of 6. Which comes nearer to the middle? Left: The point starts")
            seen = []
            page.locator("#question").focus()
            for _ in range(9):
                page.keyboard.press("Tab")
                seen.append(page.evaluate("document.activeElement.ariaLabel || document.activeElement.textContent"))
            named = " ".join(" ".join(seen).split())
            for expected in ("Play", "Place in both clips", "Replay", "Left is better", "Equally", "Right is better"):
                assert expected in named
            page.get_by_role("button", name="Right is better").focus()
            page.keyboard.press("Enter")
            done(page, 1)
            assert page.inner_text("#news").startswith("Saved: right is better. 1 of 6. Which comes")
            page.get_by_role("button", name="Undo").press("Enter")
            done(page, 0)
            page.get_by_role("button", name="Play", exact=True).press(" ")
            page.wait_for_function("() => document.querySelector('canvas').dataset.frame === '7'")
            page.wait_for_function("() => document.querySelector('#play').textContent === 'Play'")
    finally:
        calm.close()
    assert answers(folder) == []


def test_on_a_phone_everything_is_within_reach(folder: Path, context: Any) -> None:
    phone = context.browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    phone.set_default_timeout(SLOWLY)
    page = phone.new_page()
    try:
        with serving(folder) as server:
            enter(page, server)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            assert page.evaluate("document.documentElement.scrollHeight <= innerHeight")
            for button in page.locator("#answers button").all():
                assert button.bounding_box()["height"] >= 44
                assert button.bounding_box()["width"] >= 100
            left, right = (clip.bounding_box() for clip in page.locator("canvas").all())
            assert left["y"] == right["y"]
            assert left["x"] + left["width"] < right["x"]
            assert left["width"] > 170
            page.get_by_role("button", name="Equally good").tap()
            done(page, 1)
    finally:
        phone.close()
    assert [what for _, what in answers(folder)] == ["equal"]


def test_words_are_shown_as_words(tmp_path: Path, page: Any) -> None:
    """A question or a name with markup in it is text; a name that cannot be one is refused at once."""
    fill_folder(tmp_path, 2, question="<img src=x onerror='document.title=1'>Which?")
    with serving(tmp_path) as server:
        page.goto(server.address)
        page.fill("#name", "   ")
        page.keyboard.press("Enter")
        assert "1 to 64 characters" in page.inner_text("#name-wrong")
        page.fill("#name", "<b>Zoë</b> 🙂")
        page.keyboard.press("Enter")
        ready(page)
        assert page.inner_text("#question") == "<img src=x onerror='document.title=1'>Which?"
        assert page.inner_text("#who") == "<b>Zoë</b> 🙂"
        assert page.locator("main img").count() == 0
        page.keyboard.press("ArrowLeft")
        done(page, 1)
        page.click("#who")
        page.fill("#name", "Bob")
        page.keyboard.press("Enter")
        done(page, 0)
    store = Store(tmp_path / DATABASE)
    assert {said.annotator for said in store.answers()} == {"<b>Zoë</b> 🙂"}
    store.close()


def test_two_pages_of_one_person(folder: Path, page: Any) -> None:
    """What one page answered, the other need not; what both still have to send is sent, whichever is closed."""
    with serving(folder) as server:
        enter(page, server)
        other = page.context.new_page()
        other.goto(server.address)
        ready(other)
        page.keyboard.press("ArrowLeft")
        done(page, 1)
        other.keyboard.press("ArrowRight")
        done(other, 1)
        assert "has answered pair" in other.inner_text("#trouble")
        assert "Nothing was changed" in other.inner_text("#trouble")
        assert other.locator("figure.chosen").count() == 0
        other.keyboard.press("ArrowRight")
        done(other, 2)
        page.reload()
        ready(page)
        assert page.inner_text("#progress-words").startswith("2 of ")
        server.kill()
        page.keyboard.press("ArrowDown")
        other.close()
        page.wait_for_selector("#trouble:visible")
        assert len(pending(page)) == 1
        # As another page left it that was closed meanwhile: an answer to a later pair.
        ((name, unsent),) = pending(page)
        store = Store(folder / DATABASE)
        name = name.replace(unsent["body"]["nonce"], "another-page")
        unsent["body"] |= {"pair": store.pairs()[4].id, "nonce": "another-page", "answer": "first"}
        store.close()
        page.evaluate("([name, value]) => localStorage.setItem(name, value)", [name, json.dumps(unsent)])
        page.close()
        server.start()
        page = other.context.new_page()
        page.goto(server.address)
        done(page, 4)
        assert pending(page) == []
        page.close()
    assert [what for _, what in answers(folder)[:2]] == ["first", "second"]
    assert sorted(what for _, what in answers(folder)[2:]) == ["equal", "first"]


def test_long_words_fit_the_smallest_and_the_widest_phone(tmp_path: Path, context: Any) -> None:
    fill_folder(tmp_path, 2, question="Which?" + "W" * 80)
    with serving(tmp_path) as server:
        for width, height in ((320, 568), (844, 390)):
            phone = context.browser.new_context(
                viewport={"width": width, "height": height}, has_touch=True, is_mobile=True
            )
            phone.set_default_timeout(SLOWLY)
            page = phone.new_page()
            enter(page, server, "M" * 64)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), width
            assert page.locator("kbd").first.is_hidden(), "there is no keyboard"
            page.goto(f"{server.address.split('?')[0]}results")
            page.wait_for_selector("h1")
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), width
            phone.close()


def test_a_stranger_is_told_what_to_open(folder: Path, page: Any) -> None:
    with serving(folder) as server:
        enter(page, server)
        page.context.clear_cookies()
        page.keyboard.press("ArrowLeft")
        page.wait_for_selector("#trouble:visible")
        assert "Open the whole address again that pbrl label printed" in page.inner_text("#trouble")
        page.goto(server.address)  # what was answered meanwhile is sent then
        done(page, 1)
    assert [what for _, what in answers(folder)] == ["first"]


def test_the_next_pair_is_there_before_it_is_asked_for(folder: Path, page: Any) -> None:
    came: list[str] = []
    page.on("requestfinished", lambda request: came.append(request.url))
    with serving(folder) as server:
        enter(page, server)
        upcoming = page.evaluate("fetch('/api/next?annotator=Ann').then((r) => r.json()).then((n) => n.upcoming[0])")
        paths = [Path(server.folder / url.removeprefix("/")) for url in (upcoming["first"], upcoming["second"])]
        while not all(path.exists() for path in paths):
            page.wait_for_timeout(50)
        page.wait_for_timeout(1500)  # it asks again every 0.4 seconds
        assert any(url.endswith(upcoming["second"]) for url in came)
        came.clear()
        page.keyboard.press("ArrowLeft")
        done(page, 1)
        assert any(url.endswith("/api/answer") for url in came)
        assert not any(url.endswith((upcoming["first"], upcoming["second"])) for url in came)


def test_pebble_learns_on_the_point_mass_from_answers_given_in_the_browser(tmp_path: Path, page: Any) -> None:
    """The learner asks, goes on, and takes what has been answered; the person goes by what the clips' words say."""
    torch.set_num_threads(1)
    schedule = QuerySchedule(
        segment_length=8,
        max_queries=12,
        session_queries=4,
        query_every=60,
        candidates=2,
        recent_episodes=3,
        random_steps=110,
        unsupervised_steps=10,
        neighbours=2,
        fit_updates=120,
        reset_updates=5,
    )
    env = PointMass(1)
    learner = PEBBLE(env.spec, sweep(SMALL, seeds=[0]))
    collector = Collector(env, Buffer(env.spec, 1, 1000), learner.model.keys)
    interview = Interview(env.spec, 1, schedule)
    labels = tmp_path / "labels"
    desk = PageDesk(labels / DATABASE, env.spec, 8, run="run")
    steps = query_and_learn(learner.model, learner.agent, desk, collector, interview, 420, every=60)
    answered: list[int] = []
    fitted: list[float] = []
    given = 0
    with serving(labels) as server:
        page.goto(server.address)
        page.fill("#name", "Ann")
        page.keyboard.press("Enter")
        for metrics in steps:
            answered.append(int(metrics["answered"]))
            fitted += [float(metrics["reward_accuracy"])] if "reward_accuracy" in metrics else []
            waiting = int(metrics["waiting"])
            for _ in range(waiting):  # the page finds new questions by itself
                ready(page)
                labels_of = [page.locator("canvas").nth(i).get_attribute("aria-label") for i in (0, 1)]
                ends = [float(re.findall(r"ends at (\d+\.\d+)", words)[0]) for words in labels_of]
                page.keyboard.press("ArrowLeft" if ends[0] < ends[1] else "ArrowRight")
                given += 1
                page.wait_for_function(f"() => document.querySelector('#progress').value === {given}")
        page.wait_for_selector("#nothing:visible")
    assert given == 12
    assert answered[-1] == 12
    assert answered[0] == 0, "the loop went on without an answer"
    assert fitted[-1] > 0.9, "its reward says what the person said"
    assert [said.annotator for said in desk.store.answers()] == ["Ann"] * 12
    desk.close()


def test_colours_can_be_told_apart() -> None:
    """WCAG 2.2: text 4.5 to 1, what is no text (the focus, a chosen clip) 3 to 1, in light and in dark."""
    themes = re.findall(r":root \{(.*?)\}", (PAGE / "page.css").read_text(), re.DOTALL)
    assert len(themes) == 2
    for theme in themes:
        colour = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", theme))
        for ink, paper in (("ink", "paper"), ("ink", "card"), ("soft", "paper"), ("soft", "card")):
            assert contrast(colour[ink], colour[paper]) >= 4.5, (ink, paper)
        for ink, paper in (("accent", "card"), ("accent-ink", "accent"), ("bad", "bad-paper"), ("bad", "paper")):
            assert contrast(colour[ink], colour[paper]) >= 4.5, (ink, paper)
        for paper in ("paper", "card"):
            assert contrast(colour["chosen"], colour[paper]) >= 3.0, paper
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)


def contrast(one: str, other: str) -> float:
    """WCAG's ratio of two colours."""

    def light(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, bright = sorted((light(one), light(other)))
    return (bright + 0.05) / (dark + 0.05)
