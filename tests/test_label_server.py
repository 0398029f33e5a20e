"""The server of ``pbrl label`` over real HTTP: what it promises to the page, and what it refuses, changing nothing."""

from __future__ import annotations

import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from experiments.labelling.app import Door
from experiments.labelling.server import DATABASE, check_address, open_socket, token, warning
from experiments.labelling.store import Store
from pbrl.errors import InputError

from .label_cases import Client, folder_with, served


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_with(tmp_path_factory.mktemp("labels"), 60)


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[Client]:
    with served(folder) as client:
        yield client


def answers(folder: Path) -> list[Any]:
    connection = sqlite3.connect(folder / DATABASE)
    try:
        return connection.execute("SELECT pair, annotator, answer, seconds, nonce, undone_at FROM answer").fetchall()
    finally:
        connection.close()


def good(client: Client, who: str = "eve") -> dict[str, Any]:
    """An answer that would be accepted."""
    pair = client.next(who)["pair"]
    return {"pair": pair, "annotator": who, "answer": "first", "seconds": 2.5, "nonce": "nonce-of-a-good-one"}


def test_an_annotator_answers_pair_after_pair_and_undoes(client: Client, folder: Path) -> None:
    first = client.next("ann")
    assert client.next("ann") == first  # also after a reload
    assert first["question"] == "Which one?"
    assert first["undo"] is None
    assert [len(first["upcoming"]), first["progress"]["done"]] == [4, 0]
    told = client.answer("ann", first["pair"], "second", "nonce-0001", seconds=3.0).json
    assert (told["ok"], told["replayed"]) == (True, False)
    second = told["next"]
    assert {key: second[key] for key in ("pair", "question", "first", "second")} == first["upcoming"][0]
    assert told["progress"] == second["progress"]
    assert (second["progress"]["done"], second["progress"]["left"]) == (1, first["progress"]["left"] - 1)
    assert second["progress"]["seconds_left"] == pytest.approx(3.0 * second["progress"]["left"])
    assert second["undo"] == {"pair": first["pair"], "nonce": "nonce-0001"}
    undone = client.post("/api/undo", {"annotator": "ann", **second["undo"]}).json
    assert (undone["next"]["pair"], undone["progress"]["done"]) == (first["pair"], 0)
    assert client.post("/api/undo", {"annotator": "ann", **second["undo"]}).json["replayed"]
    assert client.answer("ann", first["pair"], "equal", "nonce-0002").status == 200
    assert client.answer("ann", second["pair"], "skip", "nonce-0003").json["progress"]["done"] == 2
    mine = [(answer, nonce, gone is None) for _, who, answer, _, nonce, gone in answers(folder) if who == "ann"]
    assert mine == [("second", "nonce-0001", False), ("equal", "nonce-0002", True), ("skip", "nonce-0003", True)]


def test_an_answer_sent_twice_counts_once(client: Client, folder: Path) -> None:
    pair = client.next("bob")["pair"]
    assert not client.answer("bob", pair, "first", "nonce-1001").json["replayed"]
    before = answers(folder)
    again = client.answer("bob", pair, "first", "nonce-1001")
    assert (again.status, again.json["ok"], again.json["replayed"]) == (200, True, True)
    assert client.answer("bob", pair, "second", "nonce-1001").status == 409  # the nonce belongs to another answer
    assert client.answer("bob", pair, "second", "nonce-1002").status == 409  # answered already
    assert answers(folder) == before


def test_annotators_get_different_pairs_at_the_same_time(client: Client) -> None:
    seen = [client.next(who) for who in ("c1", "c2", "c3")]
    pairs = [pair for each in seen for pair in (each["pair"], *(coming["pair"] for coming in each["upcoming"]))]
    assert len(pairs) == len(set(pairs)) == 15


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"pair": "0123456789ab"}, 404, "unknown pair"),
        ({"pair": "../../etc/passwd"}, 400, "pair is missing or malformed"),
        ({"pair": 7}, 400, "pair is missing"),
        ({"pair": "0" * 65}, 400, "pair is missing"),
        ({"answer": "third"}, 400, "expected one of first, second, equal, skip"),
        ({"answer": None}, 400, "expected one of"),
        ({"seconds": -1}, 400, "expected a number from 0"),
        ({"seconds": 1e9}, 400, "expected a number from 0"),
        ({"seconds": float("nan")}, 400, "expected a number"),
        ({"seconds": 10**400}, 400, "expected a number"),
        ({"seconds": True}, 400, "expected a number"),
        ({"annotator": ""}, 400, "annotator is missing"),
        ({"annotator": "x" * 65}, 400, "annotator is missing or too long"),
        ({"annotator": "a\nb"}, 400, "cannot be printed"),
        ({"annotator": " a"}, 400, "spaces at an end"),
        ({"annotator": "\ud800"}, 400, "cannot be printed"),
        ({"nonce": "short"}, 400, "nonce is missing"),
        ({"nonce": "x" * 65}, 400, "nonce is missing"),
        ({"nonce": "'; DROP TABLE answer; --"}, 400, "nonce is missing"),
    ],
)
def test_bad_answers_change_nothing(
    changes: dict[str, Any], status: int, words: str, client: Client, folder: Path
) -> None:
    before = answers(folder)
    reply = client.post("/api/answer", {**good(client), **changes})
    assert (reply.status, words in reply.json["error"]) == (status, True), reply.body
    assert answers(folder) == before


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"7", b"[" * 3000, b"\xff", b'{"pair"'])
def test_bodies_that_are_no_object(body: bytes, client: Client, folder: Path) -> None:
    before = answers(folder)
    reply = client.request("POST", "/api/answer", body)
    assert (reply.status, "expected an object" in reply.json["error"] or "expected one" in reply.json["error"]) == (
        400,
        True,
    )
    assert answers(folder) == before


STRANGERS: list[tuple[dict[str, str | None], int]] = [
    ({"Cookie": None}, 401),
    ({"Cookie": "pbrl_label=guessed"}, 401),
    ({"Origin": "http://evil.example"}, 403),
    ({"Origin": "null"}, 403),
    ({"Origin": None}, 403),
    ({"Origin": "https://127.0.0.1"}, 403),
    ({"Host": "evil.example"}, 403),
    ({"Host": "evil.example:80"}, 403),
    ({"Sec_Fetch_Site": "cross-site"}, 403),
    ({"Sec_Fetch_Site": "same-site"}, 403),
    ({"Content_Type": "application/x-www-form-urlencoded"}, 415),
    ({"Content_Type": "text/plain"}, 415),
    ({"Content_Type": "multipart/form-data; boundary=x"}, 415),
]


@pytest.mark.parametrize(("headers", "status"), STRANGERS)
@pytest.mark.parametrize("path", ["/api/answer", "/api/undo"])
def test_strangers_and_forged_forms_change_nothing(
    headers: dict[str, str | None], status: int, path: str, client: Client, folder: Path
) -> None:
    content = good(client)
    before = answers(folder)
    reply = client.post(path, content, **headers)
    assert reply.status == status
    assert "expected" in reply.json["error"]
    assert answers(folder) == before


@pytest.mark.parametrize(
    "path",
    ["/", "/page/results.css", "/api/next?annotator=eve", "/api/results", "/results", f"/clips/{'a' * 32}.webp", "/x"],
)
def test_nothing_is_to_be_seen_without_the_token_or_from_elsewhere(path: str, client: Client) -> None:
    assert client.get(path, Cookie=None).status == 401
    assert client.get(path, Cookie="pbrl_label_80=x").status == 401
    assert client.get(path, Host="evil.example:8321").status == 403
    assert client.get(path, Origin="http://evil.example").status == 403
    if path != "/":  # the page itself may be opened from a link, with the token
        assert client.get(path, Sec_Fetch_Site="cross-site").status == 403
        assert client.get(f"{path}{'&' if '?' in path else '?'}token={client.token}", Cookie=None).status == 401


def test_the_printed_address_sets_a_cookie_that_scripts_and_others_cannot_use(client: Client) -> None:
    reply = client.get(f"/?token={client.token}", Cookie=None)
    cookie = reply.headers["set-cookie"]
    assert cookie.startswith(f"pbrl_label_{client.port}={client.token};")
    assert {"httponly", "samesite=strict", "path=/"} <= {part.strip().lower() for part in cookie.split(";")}
    assert client.get("/?token=wrong").status == 401
    assert "frame-ancestors 'none'" in reply.headers["content-security-policy"]
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["referrer-policy"] == "no-referrer"


def test_a_long_body_is_refused(client: Client, folder: Path) -> None:
    before = answers(folder)
    assert client.post("/api/answer", {**good(client), "more": "x" * 5000}).status == 413
    with socket.create_connection((client.host, client.port), timeout=10) as raw:
        head = (
            f"POST /api/answer HTTP/1.1\r\nHost: {client.host}:{client.port}\r\nOrigin: {client.origin}\r\n"
            f"Cookie: pbrl_label_{client.port}={client.token}\r\nContent-Type: application/json\r\n"
            "Transfer-Encoding: chunked\r\n\r\n"
        )
        raw.sendall(head.encode() + b"1000\r\n" + b" " * 4096 + b"\r\n10\r\n" + b" " * 16 + b"\r\n")
        assert raw.recv(4096).startswith(b"HTTP/1.1 413")  # without waiting for the end
    assert answers(folder) == before


@pytest.mark.parametrize(
    "path",
    [
        "/clips/../labels.sqlite",
        "/clips/..%2flabels.sqlite",
        "/clips/%2e%2e/token",
        "/clips/..%5ctoken",
        "/clips/token",
        "/clips//etc/passwd",
        "/clips/%00.webp",
        f"/clips/{'a' * 32}.webp",
        "/page/../app.py",
        "/page/..%2fapp.py",
        "/page/nothing.js",
        "/labels.sqlite",
        "/token",
    ],
)
def test_no_other_file_is_served(path: str, client: Client) -> None:
    reply = client.get(path)
    assert reply.status == 404
    assert "error" in reply.json


def test_clips_that_are_ready_that_are_not_and_that_never_will_be(client: Client, folder: Path) -> None:
    url = client.next("dan")["first"]
    waiting = client.get(url)
    assert (waiting.status, waiting.headers["retry-after"]) == (202, "1")
    (folder / "clips").mkdir(exist_ok=True)
    (folder / url.removeprefix("/")).write_bytes(b"moving pictures")
    ready = client.get(url)
    assert (ready.status, ready.body) == (200, b"moving pictures")
    assert "immutable" in ready.headers["cache-control"]
    part = client.get(url, Range="bytes=0-5")
    assert (part.status, part.body) == (206, b"moving")
    assert client.get(f"/clips/f00{'0' * 29}.webp").json["error"] == "cannot be drawn"


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS"])
def test_other_methods(method: str, client: Client, folder: Path) -> None:
    before = answers(folder)
    assert client.request(method, "/api/answer", b"{}", Origin=client.origin).status == 405
    assert client.get("/api/answer").status == 405
    assert answers(folder) == before


def test_undo_of_what_is_not_ones_own(client: Client, folder: Path) -> None:
    pair = client.next("fay")["pair"]
    client.answer("fay", pair, "first", "nonce-2001")
    before = answers(folder)
    for content, status in (
        ({"annotator": "gus", "pair": pair, "nonce": "nonce-2001"}, 404),
        ({"annotator": "fay", "pair": pair, "nonce": "nonce-2002"}, 404),
        ({"annotator": "fay", "pair": "0123456789ab", "nonce": "nonce-2001"}, 404),
        ({"annotator": "fay"}, 400),
    ):
        assert client.post("/api/undo", content).status == status
    assert answers(folder) == before
    client.answer("fay", client.next("fay")["pair"], "first", "nonce-2003")
    late = client.post("/api/undo", {"annotator": "fay", "pair": pair, "nonce": "nonce-2001"})
    assert (late.status, "not the last one" in late.json["error"]) == (409, True)


def test_results_over_http(client: Client) -> None:
    found = client.get("/api/results").json
    assert {one["name"] for one in found["annotators"]} >= {"ann", "bob"}
    page = client.get("/results")
    assert page.headers["content-type"].startswith("text/html")
    assert page.body.count(b"<svg ") == 3


def test_other_addresses_need_a_flag_and_are_told_what_it_means() -> None:
    with pytest.raises(InputError, match=r"--host is 0\.0\.0\.0, .* expected --open-to-network"):
        check_address("0.0.0.0", open_to_network=False)
    check_address("0.0.0.0", open_to_network=True)
    for address in ("127.0.0.1", "localhost", "::1"):
        check_address(address, open_to_network=False)
        assert warning(address) == ""
    assert "without encryption" in warning("0.0.0.0")


def test_hosts_by_which_a_server_is_known() -> None:
    here = Door("x" * 20, "127.0.0.1", 8321)
    assert all(map(here.is_host, ("127.0.0.1:8321", "localhost:8321", "[::1]:8321")))
    assert not any(map(here.is_host, ("127.0.0.1", "127.0.0.1:80", "evil.example:8321", "10.0.0.1:8321", "")))
    open_door = Door("x" * 20, "0.0.0.0", 8321)
    assert all(map(open_door.is_host, ("192.168.1.7:8321", "localhost:8321", f"{socket.gethostname()}:8321")))
    assert not any(
        map(open_door.is_host, ("evil.example:8321", "192.168.1.7:80"))
    )  # no names that others may point here


def test_a_port_in_use_and_a_token_that_is_kept(tmp_path: Path) -> None:
    listening = open_socket("127.0.0.1", 0)
    with pytest.raises(InputError, match=r"cannot listen at 127\.0\.0\.1 port \d+ .* expected another --port"):
        open_socket("127.0.0.1", listening.getsockname()[1])
    listening.close()
    with pytest.raises(InputError, match="port is 70000"):
        open_socket("127.0.0.1", 70_000)
    made = token(tmp_path)
    assert len(made) >= 32
    assert token(tmp_path) == made
    assert (tmp_path / "token").stat().st_mode & 0o077 == 0
    (tmp_path / "token").write_text("short")
    with pytest.raises(InputError, match="holds no token"):
        token(tmp_path)


def test_files_that_are_no_labels(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        Store(tmp_path / "none.sqlite")
    (tmp_path / "text.sqlite").write_text("this is not a database, whatever its name says" * 100)
    with pytest.raises(InputError, match="not a file of labels"):
        Store(tmp_path / "text.sqlite")
    other = sqlite3.connect(tmp_path / "other.sqlite")
    other.execute("CREATE TABLE mine (x)")
    other.commit()
    other.close()
    with pytest.raises(InputError, match="not a file of labels"):
        Store(tmp_path / "other.sqlite")
