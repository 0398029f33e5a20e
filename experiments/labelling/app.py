"""The web application: what ``server`` promises, as Starlette routes over a store, turns and clips."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import re
import socket
import sqlite3
import sys
import unicodedata
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from pbrl.errors import InputError

from . import result_page
from .store import ANSWERS, Conflict, Store, UnknownPair
from .turns import Turns

PAGE, ROOT = Path(__file__).parent / "page", Path(__file__).parents[2]
LONGEST_BODY = 4096
LONGEST_NAME = 64
LONGEST_SECONDS = 86_400.0
RETRY = "1"
_NONCE = re.compile(r"[A-Za-z0-9_-]{8,64}")
_PAIR = re.compile(r"[0-9a-f]{1,64}")
_FILE = re.compile(r"[A-Za-z0-9_-]{1,80}\.[a-z0-9]{1,8}")
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; media-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


class Clips(Protocol):
    """Makes clips in the background; no method waits for a clip."""

    def name(self, segment: str) -> str:
        """The file name that the clip of a segment has, or will have: letters, digits, - and _, a dot, an ending."""
        ...

    def path(self, name: str) -> Path | None:
        """Where the clip of that file name is; None while it is not ready, and where there is no such segment."""
        ...

    def problem(self, name: str) -> str | None:
        """A sentence why there will be no clip of that file name, or None."""
        ...

    def want(self, segments: Sequence[str]) -> None:
        """Ids of segments to render next, in this order, before all others."""
        ...

    def close(self) -> None:
        """Stop rendering."""
        ...


@dataclass(frozen=True)
class Door:
    """Who may come in.

    Attributes:
        token: that every request needs.
        address: that the server listens at.
        port: where.
    """

    token: str
    address: str
    port: int

    @property
    def cookie(self) -> str:
        """Name of the cookie; it has the port, as cookies of one machine's servers are not kept apart."""
        return f"pbrl_label_{self.port}"

    def is_host(self, host: str) -> bool:
        """Whether a request's Host header is an address of this server, and no name that somebody else gave it."""
        name, _, port = host.rpartition(":") if re.search(r":\d+$", host) else (host, "", "80")
        name = name.strip("[]").lower()
        if port != str(self.port):
            return False
        if is_loopback(self.address):
            return name in ("localhost", "127.0.0.1", "::1", self.address.lower())
        try:
            ipaddress.ip_address(name)
        except ValueError:  # names are allowed that only this machine has, as any other may be made to point here
            return name in ("localhost", self.address.lower(), socket.gethostname().lower())
        return True


def is_loopback(address: str) -> bool:
    """Whether this machine alone can reach a server at this address."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


class Guard:
    """Lets nobody in without the token, under another host's name, or (to change things) from another origin."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self.app, self.door = app, door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # a websocket: not accepted
            return
        refused = self._refusal(Request(scope))
        if refused is not None:
            refused.headers.update(HEADERS)
            await refused(scope, receive, send)
            return

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] += [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
            await send(message)

        await self.app(scope, receive, send_with_headers)

    def _refusal(self, request: Request) -> Response | None:
        hosts, origin = request.headers.getlist("host"), request.headers.get("origin")
        if len(hosts) != 1 or not self.door.is_host(hosts[0]):
            return _error(403, "this host is not served here, expected the address that pbrl label printed")
        changes = request.method not in ("GET", "HEAD")
        if (origin is None and changes) or (origin is not None and origin != f"http://{hosts[0]}"):
            return _error(403, f"the request comes from {origin or 'no origin'}, expected the page of this server")
        site = request.headers.get("sec-fetch-site", "none")
        if site not in ("none", "same-origin") and (changes or request.url.path != "/"):
            return _error(403, f"the request comes from a {site} page, expected the page of this server")
        given = request.cookies.get(self.door.cookie, "")
        if request.url.path == "/" and not changes:
            given = request.query_params.get("token", given)
        if not hmac.compare_digest(given.encode(), self.door.token.encode()):
            return _error(401, "no token or not the right one, expected the whole address that pbrl label printed")
        return None


def make_app(store: Store, clips: Clips, door: Door) -> Guard:
    """The application.

    Args:
        store: questions and answers.
        clips: what shows them.
        door: who may come in.
    """
    front = Front(store, clips, door)
    routes = [
        Route("/", front.page),
        Route("/page/{name}", front.page_file),
        Route("/api/next", front.next),
        Route("/api/answer", front.answer, methods=["POST"]),
        Route("/api/undo", front.undo, methods=["POST"]),
        Route("/api/results", front.results_json),
        Route("/clips/{name}", front.clip),
        Route("/results", front.results_page),
    ]
    handlers: dict[Any, Callable[[Request, Any], Awaitable[Response]]] = {
        UnknownPair: partial(_failed, 404),
        Conflict: partial(_failed, 409),
        InputError: partial(_failed, 400),
        sqlite3.Error: _cannot_write,
        HTTPException: _http_failed,
    }
    return Guard(Starlette(routes=routes, exception_handlers=handlers), door)


class Front:
    """The routes. Whatever touches the disk runs in a thread."""

    def __init__(self, store: Store, clips: Clips, door: Door) -> None:
        self.store, self.clips, self.door = store, clips, door
        self.turns = Turns(store)
        self._counting = asyncio.Lock()

    async def page(self, request: Request) -> Response:
        """The page; the token of its address becomes a cookie."""
        response = _file(PAGE / "index.html", "no-store")
        if "token" in request.query_params:
            response.set_cookie(self.door.cookie, self.door.token, path="/", httponly=True, samesite="strict")
        return response

    async def page_file(self, request: Request) -> Response:
        """A file of the page."""
        name = request.path_params["name"]
        if not _FILE.fullmatch(name) or not (PAGE / name).is_file():
            return _error(404, "the page has no such file")
        return _file(PAGE / name, "no-cache")

    async def next(self, request: Request) -> Response:
        """What to ask an annotator next."""
        annotator = _annotator(request.query_params.get("annotator"))
        return _json(await run_in_threadpool(self._next, annotator))

    async def answer(self, request: Request) -> Response:
        """Keep an answer; once this is acknowledged, it is on the disk."""
        body = await _body(request)
        annotator, pair, nonce = _annotator(body.get("annotator")), _pair(body.get("pair")), _nonce(body.get("nonce"))
        answer, seconds = body.get("answer"), body.get("seconds")
        if not isinstance(answer, str) or answer not in ANSWERS:
            raise InputError(f"answer is {str(answer)[:40]!r}, expected one of {', '.join(ANSWERS)}")
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= LONGEST_SECONDS:
            raise InputError(f"seconds is {str(seconds)[:40]!r}, expected a number from 0 to {LONGEST_SECONDS:g}")

        def keep() -> dict[str, Any]:
            new = self.store.record(annotator, pair, answer, float(seconds), nonce)
            return self._acknowledge(annotator, replayed=not new)

        return _json(await run_in_threadpool(keep))

    async def undo(self, request: Request) -> Response:
        """Take back an annotator's last answer."""
        body = await _body(request)
        annotator, pair, nonce = _annotator(body.get("annotator")), _pair(body.get("pair")), _nonce(body.get("nonce"))

        def take_back() -> dict[str, Any]:
            new = self.store.undo(annotator, pair, nonce)
            return self._acknowledge(annotator, replayed=not new, first=pair if new else None)

        return _json(await run_in_threadpool(take_back))

    async def clip(self, request: Request) -> Response:
        """A clip."""
        name = request.path_params["name"]
        if not _FILE.fullmatch(name):
            return _error(404, "there is no clip of this name")
        path = await run_in_threadpool(self.clips.path, name)
        if path is not None:
            return FileResponse(path, headers={"Cache-Control": "private, max-age=86400, immutable"})
        if (problem := self.clips.problem(name)) is not None:
            return _error(404, problem)
        if await run_in_threadpool(self.store.segment, name.partition(".")[0]) is None:
            return _error(404, "there is no clip of this name")
        # Not an error: browsers would write each one of them on their consoles.
        response = JSONResponse({"waiting": True}, 202, headers={"Cache-Control": "no-store"})
        response.headers["Retry-After"] = RETRY
        return response

    async def results_json(self, request: Request) -> Response:  # noqa: ARG002 - Starlette gives it
        """Agreement and consistency."""
        return _json(await self._summary())

    async def results_page(self, request: Request) -> Response:  # noqa: ARG002 - Starlette gives it
        """The same to look at."""
        return HTMLResponse(result_page.page(await self._summary()), headers={"Cache-Control": "no-store"})

    async def _summary(self) -> Any:
        """What ``results`` finds, in a process of its own; one at a time."""
        words = (sys.executable, "-m", "experiments.labelling.results", str(self.store.path.resolve()))
        async with self._counting:
            pipe = asyncio.subprocess.PIPE
            process = await asyncio.create_subprocess_exec(*words, cwd=ROOT, stdout=pipe, start_new_session=True)
            try:
                told, _ = await process.communicate()
            finally:
                if process.returncode is None:
                    process.kill()
        if process.returncode:
            raise HTTPException(500, "the results cannot be computed, see what the server printed")
        return json.loads(told)

    def _acknowledge(self, annotator: str, *, replayed: bool, first: str | None = None) -> dict[str, Any]:
        after = self._next(annotator, first)
        return {"ok": True, "replayed": replayed, "progress": after["progress"], "next": after}

    def _next(self, annotator: str, first: str | None = None) -> dict[str, Any]:
        turn = self.turns.turn(annotator, first)
        shown = [shown for shown in map(self._show, turn.queue) if shown is not None]
        nothing = {"pair": None, "question": None, "first": None, "second": None}
        pace, last = self.store.pace(annotator), self.store.last(annotator)
        wanted = [self.store.pair(name) for name in self.turns.wanted()]
        self.clips.want(
            list(dict.fromkeys(segment for pair in wanted if pair for segment in (pair.first, pair.second)))
        )
        return {
            **(shown[0] if shown else nothing),
            "progress": {
                "done": self.store.done(annotator),
                "left": turn.left,
                "seconds_left": None if pace is None else turn.left * pace,
            },
            "upcoming": shown[1:],
            "undo": None if last is None else {"pair": last[0], "nonce": last[1]},
            "waiting": self.store.about().get("more", "") == "coming",
        }

    def _show(self, name: str) -> dict[str, str] | None:
        pair = self.store.pair(name)
        if pair is None:
            return None
        first, second = (f"/clips/{self.clips.name(segment)}" for segment in (pair.first, pair.second))
        return {"pair": pair.id, "question": pair.question, "first": first, "second": second}


def _annotator(value: object) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= LONGEST_NAME:
        raise InputError(f"annotator is missing or too long, expected a name of 1 to {LONGEST_NAME} characters")
    if not value.isprintable() or value != value.strip():
        raise InputError("annotator has characters that cannot be printed or spaces at an end, expected a plain name")
    return unicodedata.normalize("NFC", value)  # an accent is one person's, however a keyboard puts it together


def _pair(value: object) -> str:
    if not isinstance(value, str) or not _PAIR.fullmatch(value):
        raise InputError("pair is missing or malformed, expected the id of a pair from /api/next")
    return value


def _nonce(value: object) -> str:
    if not isinstance(value, str) or not _NONCE.fullmatch(value):
        raise InputError("nonce is missing or malformed, expected 8 to 64 letters, digits, - or _")
    return value


async def _body(request: Request) -> dict[str, Any]:
    """The JSON object that was sent."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "the body is not declared as JSON, expected application/json")
    parts, size = [], 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > LONGEST_BODY:
                raise HTTPException(413, f"the body is too long, expected at most {LONGEST_BODY} bytes")
            parts.append(part)
    except ClientDisconnect:
        raise HTTPException(400, "the body ended too early, expected all of it") from None
    try:
        body = json.loads(b"".join(parts))
    except (ValueError, RecursionError):
        raise InputError("the body is not JSON, expected an object") from None
    if not isinstance(body, dict):
        raise InputError("the body is not an object, expected one in JSON")
    return body


def _file(path: Path, cache: str) -> Response:
    kind = _KINDS.get(path.suffix)
    return FileResponse(path, media_type=kind, headers={"Cache-Control": cache})


def _json(content: Any) -> Response:
    return JSONResponse(content, headers={"Cache-Control": "no-store"})


def _error(status: int, sentence: str) -> Response:
    return JSONResponse({"error": sentence}, status, headers={"Cache-Control": "no-store"})


async def _failed(status: int, request: Request, error: Exception) -> Response:  # noqa: ARG001 - Starlette gives it
    return _error(status, str(error))


async def _cannot_write(request: Request, error: sqlite3.Error) -> Response:  # noqa: ARG001 - Starlette gives it
    print(f"pbrl: the database cannot be used: {error}", file=sys.stderr, flush=True)
    return _error(503, f"the server cannot keep answers now ({error}), expected room on its disk")


async def _http_failed(request: Request, error: HTTPException) -> Response:
    sentences = {404: "there is no such page here", 405: f"{request.method} is not possible here"}
    response = _error(error.status_code, sentences.get(error.status_code, error.detail))
    response.headers.update(error.headers or {})
    return response
