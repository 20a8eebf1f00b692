"""What the live page is told of a run, as server-sent events that can be resumed."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from gaba.web._buckets import Slice
from gaba.web._hub import Hub
from gaba.web.follow import Follower

POINTS = 2048
"""Buckets of a run on the page at most: more than a screen has columns."""

BEAT = 0.25
"""Seconds between two looks whether there is something to tell."""

SOON = 0.05
"""Seconds between them at first, so that a page that opens is not kept waiting."""

OPENING = 2.0
"""Seconds for which it is "at first"."""

LOOK = 2.0
"""Seconds between two looks for new runs."""

QUIET = 15.0
"""After so many seconds without news a comment is sent, so that a dead connection is found."""


@final
@dataclass(frozen=True)
class Cursor:
    """What a page has of a run: the file's generation, steps and stride of its buckets."""

    generation: str = ""
    total: int = 0
    stride: int = 0

    def __str__(self) -> str:
        return f"{self.generation}.{self.total}.{self.stride}"


def cursors(text: str, count: int) -> list[Cursor]:
    """The cursors of a ``Last-Event-ID`` for ``count`` runs; fresh ones if it is none.

    >>> cursors("0a.120.1~ff.7.2", 2)[1].total
    7
    >>> cursors("../../etc", 1)
    [Cursor(generation='', total=0, stride=0)]
    """
    one = r"([0-9a-f]{0,16})\.(\d{1,15})\.(\d{1,15})"
    parts = [re.fullmatch(one, part) for part in text.split("~")] if len(text) < 1000 else []
    if len(parts) != count or not all(parts):
        return [Cursor()] * count
    return [Cursor(part[1], int(part[2]), int(part[3])) for part in parts if part]


def packed(values: np.ndarray[Any, Any], kind: str) -> str:
    """Numbers as little-endian bytes in base64."""
    with np.errstate(over="ignore"):
        return base64.b64encode(np.ascontiguousarray(values).astype(kind).tobytes()).decode()


def data(found: Slice, names: Sequence[str]) -> dict[str, Any]:
    """Buckets for JSON: ``x`` are float64, ``values`` (levels, series, buckets) float32.

    Series without any value are left out. There is one level where every bucket is one step, else
    least, mean and greatest.
    """
    has = [i for i in range(1, len(names)) if np.isfinite(found.mean[i]).any()]
    levels = [found.mean] if found.stride == 1 else [found.low, found.mean, found.high]
    return {
        "stride": found.stride,
        "start": found.start,
        "count": found.low.shape[1],
        "names": [names[i] for i in has],
        "levels": len(levels),
        "x": packed(found.low[0], "<f8"),
        "values": packed(np.stack([level[has] for level in levels]), "<f4"),
    }


def status(follower: Follower) -> dict[str, Any]:
    """What a run is doing, its last step, and the diagnosis, for JSON."""
    last, found = follower.last(), follower.last_diagnosis
    now: dict[str, Any] | None = None
    if last is not None and len(last):
        now = {
            name: _plain(getattr(last, name)[0])
            for name in ("losses", "norms", "weights", "contributions", "saturated", "cosines")
        }
        now |= {
            name: _plain(getattr(last, name)[0])
            for name in ("steps", "imbalance", "gain", "finite", "measured", "times")
        }
    return {
        "state": follower.state,
        "error": follower.error,
        "part": follower.read / follower.size if follower.size else 0.0,
        "total": follower.total,
        "tasks": follower.tasks,
        "meta": follower.header.meta if follower.header else {},
        "about": follower.about,
        "skipped": follower.skipped,
        "saturated": follower.saturated,
        "last": now,
        "diagnosis": None
        if found is None
        else {
            "steps": found.steps,
            "findings": [{"kind": f.kind, "text": f.text} for f in found.findings],
        },
    }


def _plain(value: Any) -> Any:
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


@final
class Teller:
    """Says what is new of one run since a cursor; what several pages ask is worked out once."""

    def __init__(self) -> None:
        self.streams = 0
        """How many pages are being told."""
        self._known: dict[str, tuple[tuple[Any, ...], bytes, Cursor]] = {}

    def tell(self, name: str, follower: Follower, cursor: Cursor) -> tuple[bytes, Cursor]:
        """The JSON of an event, and what the page has once it has it."""
        with follower.lock:
            return self._tell(name, follower, cursor)

    def _tell(self, name: str, follower: Follower, cursor: Cursor) -> tuple[bytes, Cursor]:
        fresh = cursor.generation != follower.generation
        cursor = Cursor() if fresh else cursor
        key = (follower.generation, follower.version, str(cursor))
        known = self._known.get(name)
        if known and known[0] == key:
            return known[1], known[2]
        buckets = follower.since(cursor.total, cursor.stride, POINTS)
        told = {"run": name, "generation": follower.generation, **status(follower)}
        after = Cursor(follower.generation)
        if buckets is not None:
            total = min(follower.total, buckets.stride * (buckets.start + buckets.low.shape[1]))
            told["buckets"] = data(buckets, follower.names)
            after = Cursor(follower.generation, total, buckets.stride)
        text = json.dumps(told, allow_nan=False, separators=(",", ":")).encode()
        self._known[name] = key, text, after
        return text, after


@final
class Stream:
    """The events of some runs, as an ASGI application.

    Nothing is stored up for a page that reads slowly: each event is made when it can be sent.

    Args:
        hub: where the runs are followed.
        teller: shared by all streams.
        names: the runs.
        last: the ``Last-Event-ID`` of the page, or nothing.
    """

    def __init__(self, hub: Hub, teller: Teller, names: tuple[str, ...], last: str) -> None:
        self._hub, self._teller, self._names, self._last = hub, teller, names, last

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the page goes away."""
        gone = asyncio.Event()

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            gone.set()

        watching = asyncio.create_task(watch())
        self._teller.streams += 1
        try:
            with self._hub.looking(self._names) as followers:
                await self._send(send, gone, followers)
        except (FileNotFoundError, OverflowError) as error:
            await PlainTextResponse(f"{error}\n", 503)(scope, receive, send)
        finally:
            self._teller.streams -= 1
            watching.cancel()

    async def _send(self, send: Send, gone: asyncio.Event, followers: list[Follower]) -> None:
        headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-store"),
            (b"x-accel-buffering", b"no"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await _body(send, b"retry: 1000\n\n")
        at = cursors(self._last, len(self._names))
        seen: list[tuple[str, int] | None] = [None] * len(at)
        listed: tuple[str, ...] | None = None
        quiet, look, opening = 0.0, 0.0, OPENING
        while not (gone.is_set() or self._hub.stopped):
            said = False
            if look <= 0:
                look = LOOK
                if (names := await asyncio.to_thread(self._hub.names)) != listed:
                    listed, said = names, True
                    await _body(send, b"event: runs\ndata: " + json.dumps(names).encode() + b"\n\n")
            for i, (name, follower) in enumerate(zip(self._names, followers, strict=True)):
                version = follower.generation, follower.version
                if seen[i] == version:
                    continue
                seen[i], said = version, True
                text, at[i] = self._teller.tell(name, follower, at[i])
                mark = "~".join(map(str, at)).encode()
                await _body(send, b"id: " + mark + b"\nevent: run\ndata: " + text + b"\n\n")
            beat = SOON if opening > 0 else BEAT
            opening -= beat
            look -= beat
            quiet = 0.0 if said else quiet + beat
            if quiet >= QUIET:
                quiet = 0.0
                await _body(send, b": still here\n\n")
            await _pause(gone, beat)


async def _body(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def _pause(gone: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(gone.wait(), seconds)
    except TimeoutError:
        return
