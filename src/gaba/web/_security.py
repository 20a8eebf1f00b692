"""What every request must be, and what every answer carries."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from typing import final
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LONGEST_TARGET = 4096
"""Bytes of path and query; longer ones are refused."""

LONGEST_HEADERS = 16_384
"""Bytes of all headers; more are refused."""

SHORTEST_TOKEN = 16

COOKIE = "gaba_token"

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server bound to ``host``.

    >>> [is_loopback(host) for host in ("127.0.0.1", "localhost", "::1", "0.0.0.0", "example.org")]
    [True, True, True, False, False]
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_token(host: str, token: str | None) -> None:
    """Refuse to be reached from elsewhere without a good token.

    Raises:
        ValueError: the host is not this machine's loopback and there is no token, or the token is
            short.

    >>> check_token("127.0.0.1", None)
    >>> check_token("0.0.0.0", None)
    Traceback (most recent call last):
    ValueError: host 0.0.0.0 can be reached from other machines, so a token is needed: ...
    """
    if token is None and not is_loopback(host):
        raise ValueError(
            f"host {host} can be reached from other machines, so a token is needed: "
            "give --token new"
        )
    if token is not None and (len(token) < SHORTEST_TOKEN or not token.isascii()):
        raise ValueError(
            f"token must be at least {SHORTEST_TOKEN} ASCII characters, found {len(token)}: "
            "give a longer one, or --token new"
        )


@final
class Guard:
    """Lets through what a page of ours would ask, and nothing else.

    Only GET and HEAD without a body, of a bounded length. Without a token the ``Host`` must be this
    machine's loopback, so that no other site can reach the server under its own name (DNS
    rebinding). With a token it is asked for: in the address once (``?token=``), after that in a
    cookie that holds a hash of it, or as ``Authorization: Bearer``.
    """

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app = app
        self._token = token
        key = (token or "").encode()
        self._cookie = hmac.new(key, b"gaba web", hashlib.sha256).hexdigest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or hand on, one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return

        async def dressed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        refusal = self._refusal(scope)
        await (refusal or self._app)(scope, receive, dressed)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if scope["method"] not in ("GET", "HEAD"):
            return _refuse(405, "only GET and HEAD are answered", {"allow": "GET, HEAD"})
        if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
            return _refuse(413, "a request must have no body")
        raw: bytes = scope.get("raw_path") or scope["path"].encode()
        if len(raw) + len(scope["query_string"]) > LONGEST_TARGET:
            return _refuse(414, f"the address is longer than {LONGEST_TARGET} bytes")
        if sum(len(name) + len(value) for name, value in headers.raw) > LONGEST_HEADERS:
            return _refuse(431, f"the headers are longer than {LONGEST_HEADERS} bytes")
        if self._token is None:
            return None if _own_name(headers.get("host", "")) else _foreign()
        return self._without_token(scope, headers, self._token)

    def _without_token(self, scope: Scope, headers: Headers, token: str) -> Response | None:
        cookies = headers.get("cookie", "").split(";")
        values = [value for name, _, value in (c.strip().partition("=") for c in cookies)
                  if name == COOKIE]  # fmt: skip
        if any(_same(value, self._cookie) for value in values):
            return None
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and _same(given, token):
            return None
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        if not any(name == "token" and _same(value, token) for name, value in query):
            return _refuse(401, "a token is needed: open the address that `gaba web` printed")
        rest = urlencode([(name, value) for name, value in query if name != "token"])
        # Two slashes at the beginning would name another host.
        path = "/" + scope["path"].lstrip("/\\")
        answer = RedirectResponse(f"{path}?{rest}" if rest else path, 303)
        answer.set_cookie(COOKIE, self._cookie, httponly=True, samesite="strict", path="/")
        return answer


def _refuse(status: int, text: str, headers: dict[str, str] | None = None) -> Response:
    return PlainTextResponse(text + "\n", status, {"cache-control": "no-store", **(headers or {})})


def _foreign() -> Response:
    return _refuse(421, "this server answers to localhost only")


def _own_name(host: str) -> bool:
    name = host[: host.find("]") + 1] if host.startswith("[") else host.rpartition(":")[0] or host
    return is_loopback(name.strip("[]").lower())


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())
