"""The server of the pages: ``gaba web``."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import final

from gaba.extras import needs

with needs("the pages need", "web", "starlette", "uvicorn"):
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse, PlainTextResponse, Response
    from starlette.routing import Route
    from starlette.types import ASGIApp

from gaba.web._events import POINTS, Stream, data
from gaba.web._folder import Folder
from gaba.web._hub import Hub
from gaba.web._security import Guard, check_token

__all__ = ["Server", "application"]

STATIC = Path(__file__).with_name("static")
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".woff2": "font/woff2",
}
PAGES = {"/": "explorer/index.html", "/live": "live/index.html"}

MOST_CONNECTIONS = 1024

MOST_RUNS = 8
"""Runs on one page."""


@final
@dataclass(frozen=True)
class _Asset:
    body: bytes
    kind: str
    mark: str


def _assets() -> dict[str, _Asset]:
    """Every file that is ever served, by its address; no request looks for another."""
    found: dict[str, _Asset] = {}
    for path in sorted(STATIC.rglob("*")):
        if path.is_file() and path.suffix in TYPES:
            body = path.read_bytes()
            mark = f'"{hashlib.sha256(body).hexdigest()[:24]}"'
            asset = _Asset(body, TYPES[path.suffix], mark)
            found[f"/static/{path.relative_to(STATIC).as_posix()}"] = asset
    for address, name in PAGES.items():
        if (asset := found.get(f"/static/{name}")) is not None:
            found[address] = asset
    return found


@final
class _Pages:
    """The end points."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._assets = _assets()

    def asset(self, request: Request) -> Response:
        found = self._assets.get(request.url.path)
        if found is None:
            return PlainTextResponse("no such page\n", 404)
        headers = {"etag": found.mark, "cache-control": "no-cache"}
        if request.headers.get("if-none-match") == found.mark:
            return Response(status_code=304, headers=headers)
        return Response(found.body, headers={**headers, "content-type": found.kind})

    async def runs(self, _: Request) -> Response:
        names = await asyncio.to_thread(self._hub.names)
        folder = self._hub.folder
        told = {"folder": folder.root.name if folder else None, "runs": names}
        return JSONResponse(told, headers={"cache-control": "no-store"})

    async def stream(self, request: Request) -> ASGIApp:
        names = tuple(dict.fromkeys(request.query_params.getlist("run")))
        if len(names) > MOST_RUNS:
            return PlainTextResponse(f"ask for at most {MOST_RUNS} runs\n", 400)
        known = await asyncio.to_thread(self._hub.names)
        if missing := [name for name in names if name not in known]:
            return PlainTextResponse(f"no run {missing[0]!r} here\n", 404)
        asked = request.query_params.get("last", "")
        last = request.headers.get("last-event-id", asked)
        return Stream(self._hub, names, last)

    async def range(self, request: Request) -> Response:
        name = request.query_params.get("run", "")
        try:
            low, high = (float(request.query_params[end]) for end in ("from", "to"))
        except (KeyError, ValueError):
            return PlainTextResponse("from and to must be steps\n", 400)
        if not low <= high:
            return PlainTextResponse("from must not be above to\n", 400)
        try:
            with self._hub.looking((name,)) as (watched,):
                follower = watched.follower
                found = await asyncio.to_thread(follower.between, low, high, POINTS)
                told = {
                    "run": name,
                    "generation": follower.generation,
                    "buckets": None if found is None else data(found, follower.names),
                }
        except FileNotFoundError as error:
            return PlainTextResponse(f"{error}\n", 404)
        except OverflowError as error:
            return PlainTextResponse(f"{error}\n", 503)
        return JSONResponse(told, headers={"cache-control": "no-store"})


def application(
    path: str | os.PathLike[str] | None = None,
    token: str | None = None,
    clock: Callable[[], float] = time.time,
) -> ASGIApp:
    """The pages as an ASGI application.

    ``/`` is the explorer, ``/live`` the live page, ``/api/stream?run=NAME`` its server-sent events.
    The server reads nothing but the records in ``path`` and the files of the pages.

    Args:
        path: a folder of runs, or the record of one; None for the explorer alone.
        token: what a request must know; None if everyone who reaches the server may look.
        clock: gives the seconds since 1970; by them a run that is silent for 60 is stalled.

    Raises:
        FileNotFoundError: there is no such folder or record.

    Example:
        >>> from starlette.testclient import TestClient
        >>> with TestClient(application(), base_url="http://localhost") as client:
        ...     client.get("/api/runs").json()
        {'folder': None, 'runs': []}
    """
    return _application(_hub(path, clock), token)


def _hub(path: str | os.PathLike[str] | None, clock: Callable[[], float]) -> Hub:
    return Hub(None if path is None else Folder(path), clock)


def _application(hub: Hub, token: str | None) -> ASGIApp:
    pages = _Pages(hub)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        hub.start()
        yield
        await asyncio.to_thread(hub.stop)

    routes = [
        Route("/api/runs", pages.runs),
        Route("/api/stream", pages.stream),
        Route("/api/range", pages.range),
        Route("/{path:path}", pages.asset),
    ]
    return Guard(Starlette(routes=routes, lifespan=lifespan), token)


@final
class _Uvicorn(uvicorn.Server):
    """Ends the streams before it waits for the connections; they would go on for ever."""

    def __init__(self, config: uvicorn.Config, hub: Hub) -> None:
        super().__init__(config)
        self._hub = hub

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await asyncio.to_thread(self._hub.stop)
        await super().shutdown(sockets)


@final
class Server:
    """The pages on a port of this machine.

    Args:
        path: a folder of runs, or the record of one; None for the explorer alone.
        host: the address to bind to; one that other machines reach needs a ``token``.
        port: 0 for any free one.
        token: at least 16 characters, or ``"new"`` for a random one.
        clock: gives the seconds since 1970; by them a run that is silent for 60 is stalled.

    Raises:
        ValueError: other machines could reach the server and there is no good token.
        OSError: the port is taken, or the host is not an address of this machine.

    Example:
        >>> import threading, urllib.request
        >>> server = Server(port=0)
        >>> thread = threading.Thread(target=server.run)
        >>> thread.start()
        >>> with urllib.request.urlopen(f"{server.address}api/runs") as answer:
        ...     answer.read()
        b'{"folder":null,"runs":[]}'
        >>> server.stop()
        >>> thread.join()
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        host: str = "127.0.0.1",
        port: int = 8765,
        token: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.token = secrets.token_urlsafe(24) if token == "new" else token
        check_token(host, self.token)
        hub = _hub(path, clock)
        self._socket = _bound(host, port)
        self.port = int(self._socket.getsockname()[1])
        shown = f"[{host}]" if ":" in host else host
        self.address = f"http://{shown}:{self.port}/"
        """Where the pages are."""
        from gaba.web._patience import ImpatientProtocol

        self._server = _Uvicorn(
            uvicorn.Config(
                _application(hub, self.token),
                http=ImpatientProtocol,
                ws="none",
                log_level="warning",
                access_log=False,
                server_header=False,
                h11_max_incomplete_event_size=24_576,
                limit_concurrency=MOST_CONNECTIONS,
                timeout_keep_alive=10,
                timeout_graceful_shutdown=1,
            ),
            hub,
        )

    def run(self) -> None:
        """Serve until :meth:`stop`, or until Ctrl-C."""
        self._server.run(sockets=[self._socket])

    def stop(self) -> None:
        """End :meth:`run`, from another thread."""
        self._server.should_exit = True


def _bound(host: str, port: int) -> socket.socket:
    bound = None
    try:
        kind, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(kind, socket.SOCK_STREAM)
        if os.name == "posix":
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(512)
    except OSError as error:
        if bound is not None:
            bound.close()
        raise OSError(
            f"cannot listen on {host}, port {port} ({error.strerror or error}): "
            "give another --port, or 0 for any free one"
        ) from error
    return bound
