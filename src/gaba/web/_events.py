"""What the live page is told of a run, as server-sent events that can be resumed."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, final

import numpy as np
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from gaba import History
from gaba.web._advice import on_cosines
from gaba.web._buckets import Slice
from gaba.web._hub import Hub, Watched
from gaba.web._state import Doing
from gaba.web.follow import Follower

POINTS = 2048
"""Buckets of a run on the page at most: more than a screen has columns."""

BEAT = 0.1
"""Seconds between two looks whether there is something to tell."""

LOOK = 2.0
"""Seconds between two looks for new runs."""

QUIET = 15.0
"""After so many seconds without news a comment is sent, so that a dead connection is found."""

LAST = (
    *("losses", "norms", "multipliers", "weights", "contributions", "shares", "saturated"),
    *("steps", "imbalance", "finite", "measured", "times"),
)
"""What is told of the last step, by the names of :class:`gaba.History`."""

MEASURED = ("steps", "norms", "contributions", "shares", "imbalance")
"""What is told of the last step that was measured."""


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


def status(follower: Follower, now: Doing) -> dict[str, Any]:
    """What a run is doing, its last step, cosines and diagnosis, for JSON; not finite is None.

    Of ``meta`` only what is no list and no object: a page shows no more, whatever a file may hold.
    """
    last, found, cosines = follower.latest[-1:], follower.diagnosis, follower.cosines
    meta = follower.header.meta if follower.header else {}
    why, line = on_cosines(last.about, len(follower.tasks))
    told = {
        "state": follower.state,
        "doing": asdict(now),
        "error": follower.error,
        "part": follower.read / follower.size if follower.size else 0.0,
        "total": follower.total,
        "tasks": follower.tasks,
        "meta": {name: value for name, value in meta.items() if not isinstance(value, dict | list)},
        "about": last.about,
        "limit": _limit(last.about),
        "effective": along(follower.latest),
        "without_cosines": {"why": why, "code": line},
        "skipped": follower.skipped,
        "saturated": follower.saturated,
        "last": _of(last, LAST),
        "measured": _of(_last_measured(follower.latest), MEASURED),
        "cosines": None
        if cosines is None
        else {"steps": cosines.steps, "median": cosines.median.tolist()},
        "diagnosis": None
        if found is None
        else {
            "steps": found.steps,
            "grade": found.grade,
            "verdict": found.verdict,
            "code": found.code,
            "evidence": [
                {"kind": f.kind, "grade": f.grade, "text": f.text} for f in found.evidence
            ],
        },
    }
    return json.loads(json.dumps(told), parse_constant=lambda _: None)


def along(history: History) -> bool:
    """Whether the norms of the latest steps are effective ones, along the update."""
    engines = set(history[-1000:].engines.tolist())
    return bool(engines & {"products", "probe"}) and history.about.get("method") != "observe"


def _last_measured(latest: History) -> History:
    """The last finite one of these steps whose norms are known, alone; none if there is none."""
    known = latest.measured & latest.finite & np.isfinite(latest.norms).any(axis=1)
    known = np.flatnonzero(known)
    at = int(known[-1]) if known.size else len(latest)
    return latest[at : at + 1]


def _of(one: History, names: Sequence[str]) -> dict[str, Any] | None:
    """These values of a single step."""
    return {name: getattr(one, name)[0].tolist() for name in names} if len(one) else None


def _limit(about: Mapping[str, str]) -> float | None:
    """The most by which a loss may be multiplied or divided; None without a limit."""
    try:
        limit = float(about["limit"])
    except (KeyError, ValueError):
        return None
    return limit if 1 <= limit < math.inf else None


def tell(watched: Watched, cursor: Cursor, now: Doing) -> tuple[bytes, Cursor]:
    """The JSON of what is new of a run since ``cursor``, and what the page has once it has it."""
    follower = watched.follower
    with follower.lock:
        cursor = cursor if cursor.generation == follower.generation else Cursor()
        key = follower.generation, follower.version, cursor, now
        if watched.told[:1] != (key,):
            buckets = follower.since(cursor.total, cursor.stride, POINTS)
            told = {"run": watched.name, "generation": follower.generation, **status(follower, now)}
            after = Cursor(follower.generation)
            if buckets is not None:
                end = buckets.stride * (buckets.start + buckets.low.shape[1])
                told["buckets"] = data(buckets, follower.names)
                after = Cursor(follower.generation, min(follower.total, end), buckets.stride)
            text = json.dumps(told, allow_nan=False, separators=(",", ":")).encode()
            watched.told = key, text, after
        return watched.told[1:]


@final
class Stream(StreamingResponse):
    """The events of some runs.

    Nothing is stored up for a page that reads slowly: each event is made when it can be sent.

    Args:
        hub: where the runs are followed.
        names: the runs.
        last: the ``Last-Event-ID`` of the page, or nothing.
    """

    def __init__(self, hub: Hub, names: tuple[str, ...], last: str) -> None:
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        super().__init__(iter(()), headers=headers, media_type="text/event-stream")
        self._hub, self._names, self._last = hub, names, last

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the page goes away."""
        try:
            with self._hub.looking(self._names) as runs:
                self.body_iterator = self._events(runs)
                await super().__call__(scope, receive, send)
        except (FileNotFoundError, OverflowError) as error:
            await PlainTextResponse(f"{error}\n", 503)(scope, receive, send)

    async def _events(self, runs: list[Watched]) -> AsyncIterator[bytes]:
        yield b"retry: 1000\n\n"
        at = cursors(self._last, len(runs))
        seen: list[tuple[str, int, str] | None] = [None] * len(runs)
        listed: tuple[str, ...] | None = None
        look = quiet = 0.0
        while not self._hub.stopped:
            now = time.monotonic()
            if now >= look:
                look = now + LOOK
                names = await asyncio.to_thread(self._hub.names)
                if names != listed:
                    listed, quiet = names, now + QUIET
                    yield b"event: runs\ndata: " + json.dumps(names).encode() + b"\n\n"
            for i, watched in enumerate(runs):
                follower = watched.follower
                doing = follower.doing(self._hub.clock())
                version = follower.generation, follower.version, doing.word
                if version != seen[i]:
                    seen[i], quiet = version, now + QUIET
                    text, at[i] = tell(watched, at[i], doing)
                    mark = "~".join(map(str, at)).encode()
                    yield b"id: " + mark + b"\nevent: run\ndata: " + text + b"\n\n"
            if now >= quiet:
                quiet = now + QUIET
                yield b": still here\n\n"
            await asyncio.sleep(BEAT)
