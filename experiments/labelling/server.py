"""Serves one labelling folder: the page, the clips and the answers. The contract of the page with the server is here.

A labelling folder holds ``labels.sqlite`` (``store``), ``token`` (kept, so that open pages survive a restart) and
``clips/`` (a cache that may be deleted). Every request needs the token: in the printed address (``/?token=...``),
which answers with the page and sets a cookie (SameSite=Strict, HttpOnly), and from then on in the cookie. The page
should take the token out of the address bar (``history.replaceState``). The host must be one that this server is known
by; what changes anything must come from its own origin (``Origin``) as ``application/json`` of at most 4096 bytes.

    GET  /                          the page: page/index.html
    GET  /page/NAME                 its other files (css, js, svg), one flat folder
    GET  /api/next?annotator=NAME   NEXT
    POST /api/answer                {pair, annotator, answer: "first"|"second"|"equal"|"skip", seconds, nonce}
                                    -> {ok: true, replayed: bool, progress, next: NEXT}
    POST /api/undo                  {annotator, pair, nonce}: those of ``undo`` in NEXT -> the same as an answer
    GET  /clips/NAME                a clip, from the cache folder alone; 202 with Retry-After while it is not ready
    GET  /results                   agreement and consistency as a page with plots (uses page/results.css)
    GET  /api/results               the same as JSON

    NEXT = {
      pair: id or null (nothing to do for this annotator),
      question: text, first: clip url, second: clip url,        (null without a pair)
      progress: {done, left, seconds_left: number or null},      counts of this annotator
      upcoming: [{pair, question, first, second}, ...],          to preload, the next one first, at most 4
      undo: {pair, nonce} or null,                               this annotator's last answer, which may be undone
      waiting: bool                                              more pairs may come by themselves: ask again later
    }

``nonce`` is a random word (8 to 64 letters, digits, - or _) that the page makes for each answer and keeps while it
tries again: an answer that was recorded already is acknowledged (``replayed``) and changes nothing. ``seconds`` is how
long the annotator took. An annotator is a name of 1 to 64 printable characters, without spaces at its ends. The same
pair comes back from /api/next until it is answered, also after a reload. After an undo, NEXT is the undone pair.

Errors have a JSON body {"error": one sentence}, and nothing was changed: 400 malformed, 401 no or another token, 403
another host or origin, 404 no such thing, 405 method, 409 conflicts (answered already under another nonce, an answer
that can no longer be undone), 413 too long, 415 not JSON, 503 the disk cannot be written: try again.

Clips come from ``clips.start(folder, database)``, which returns what ``app.Clips`` describes: it renders in the
background, in the order of the last ``want``, and answers immediately. Segments are read from the database by
``store.Store(database).segment(id)``: float32 observations and actions, and the simulator's id.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import uvicorn

from pbrl.errors import InputError

from .app import Clips, Door, is_loopback, make_app
from .store import Store

DATABASE, TOKEN = "labels.sqlite", "token"
LOOPBACK = "127.0.0.1"


def check_address(address: str, *, open_to_network: bool) -> None:
    """Raise InputError unless a server at this address is reached by this machine alone, or may be by others."""
    if not is_loopback(address) and not open_to_network:
        raise InputError(
            f"--host is {address}, where other machines reach the server, expected --open-to-network with it, or "
            f"{LOOPBACK} for this machine alone"
        )


def warning(address: str) -> str:
    """What it means to serve at this address; "" for a loopback."""
    if is_loopback(address):
        return ""
    return (
        f"served at {address}: every machine that reaches this one may connect. Whoever has the address with its token "
        "can see all clips and results and answer under any name, and whoever can listen on the network can read the "
        "token, as it travels without encryption. Use a network that you trust, and stop the server when you are done."
    )


def open_socket(address: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        InputError: the port is in use, or the address is not one of this machine's.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    if not 0 <= port < 1 << 16:
        raise InputError(f"port is {port}, expected 0 (any) to 65535")
    try:
        return socket.create_server((address, port), family=family, backlog=256)
    except OSError as error:
        expected = "expected another --port (0: any that is free)" if port else "expected another --host"
        raise InputError(
            f"cannot listen at {address} port {port} ({os.strerror(error.errno) if error.errno else error}), {expected}"
        ) from None


def own_address() -> str:
    """The address by which others in the network reach this machine: a phone does not know its name."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # an address of nobody's: nothing is sent, but a route is looked up
            return str(probe.getsockname()[0])
        except OSError:
            return socket.gethostname()


def token(folder: Path) -> str:
    """The folder's token, made at the first call; readable by its owner alone."""
    path = folder / TOKEN
    try:
        with suppress(FileExistsError):
            made = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(made, "w") as file:
                file.write(secrets.token_urlsafe(24))
        found = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: no token can be kept there ({error}), expected a writable folder") from None
    if len(found) < 16:
        raise InputError(f"{path}: holds no token, expected it to be deleted, so that a new one is made")
    return found


def serve(
    folder: Path,
    listening: socket.socket,
    clips: Clips,
    *,
    ready: Callable[[str], None] = print,
) -> None:
    """Serve a labelling folder until Ctrl-C.

    Args:
        folder: that holds ``labels.sqlite``.
        listening: of ``open_socket``; it is closed at the end.
        clips: closed at the end.
        ready: called with the address to open, the token included.

    Raises:
        InputError: there are no labels in the folder, or no token can be kept there.
        KeyboardInterrupt: after Ctrl-C, when all requests have been answered.
    """
    with closing(listening), closing(clips), closing(Store(folder / DATABASE)) as store:
        address, port = listening.getsockname()[:2]
        door = Door(token(folder), address, port)
        config = uvicorn.Config(
            make_app(store, clips, door),
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            lifespan="off",
            limit_concurrency=512,
            timeout_graceful_shutdown=5,
            h11_max_incomplete_event_size=16_384,
        )
        reached = own_address() if address in ("0.0.0.0", "::") else address
        shown = f"[{reached}]" if ":" in reached else reached
        ready(f"http://{shown}:{port}/?token={door.token}")
        uvicorn.Server(config).run(sockets=[listening])
