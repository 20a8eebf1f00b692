"""Following the record of a run while it is written, in bounded memory."""

from __future__ import annotations

import json
import os
import secrets
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Literal, final

import numpy as np
from numpy.typing import NDArray

from gaba import History, diagnose
from gaba.record import Diagnosis
from gaba.record.cosines import Cosines, median_cosines
from gaba.record.jsonl import Header, Parsed, Row, header, parse_lines
from gaba.web._buckets import Buckets, Floats, Slice, stride_for
from gaba.web._state import Doing, Facts, doing
from gaba.web._tail import LONGEST, PIECE, Piece, Tail

__all__ = ["Follower", "State"]

EVALUATION = "metrics.json"
"""What a finished turbofan run leaves beside its record."""

LARGEST = 1 << 20
"""No evaluation is longer, in bytes."""

PACE = 200
"""The latest steps that say how long one takes."""

State = Literal["waiting", "reading", "following", "error"]
"""``waiting`` for the first line, ``reading`` what is there, ``following`` what comes, or stopped
by an ``error`` until the file is another."""

WINDOW = 50_000
"""The latest steps that are kept whole. The diagnosis is of these."""

CELLS = 1_000_000
"""Numbers kept of the latest steps at most, and as many in the buckets of least, mean, greatest;
with many tasks these are fewer steps and wider buckets."""

MOST_TASKS = 1024
"""A record of more tasks is not followed."""

MOST_COSINES = 12
"""With more tasks than this, cosines are not followed: 66 pairs are enough for a page."""

VECTORS = ("losses", "norms", "multipliers", "weights", "contributions", "shares", "saturated")


@final
class _Run:
    """What is known of a run once its first line is there."""

    def __init__(self, begun: Header) -> None:
        k = len(begun.tasks)
        if k > MOST_TASKS:
            raise ValueError(
                f"{k:,} tasks: the page follows at most {MOST_TASKS:,}; `gaba explain` reads all"
            )
        self.header = begun
        self.window = max(4, min(WINDOW, CELLS // (4 * k + k * k)))
        self.history = History(begun.tasks, keep=self.window)
        few = range(k if k <= MOST_COSINES else 0)
        self.pairs = [(i, j) for i in few for j in few if i < j]
        self.names = [
            *("step", "imbalance", "seconds", "skipped"),
            *(f"{vector}/{i}" for vector in VECTORS for i in range(k)),
            *(f"cosines/{i}/{j}" for i, j in self.pairs),
        ]
        self.buckets = Buckets(len(self.names), _capacity(len(self.names)))
        self.about: dict[str, str] = {}  # with how it ended
        self._beside: dict[str, int] = {}  # what stands beside the tasks, and its width
        self.saturated = np.zeros(k)
        self.skipped = 0
        self.lost = 0
        self.diagnosed = 0
        self.diagnosis: Diagnosis | None = None
        self.cosines: Cosines | None = None
        self._last_time = np.nan

    def add(self, parsed: Parsed, begins: NDArray[np.int64]) -> None:
        """Add the steps of ``parsed``, whose lines begin at ``begins`` (n,) in the file."""
        if parsed.rows:
            steps = self._steps(parsed)
            self.buckets.add(self._series(steps, self._last_time), begins)
            self._last_time = steps.times[-1]
            self.saturated += steps.saturated.sum(axis=0)
            finite = steps.finite
            self.skipped += int((~finite).sum())
            self.lost = int(finite[::-1].argmax()) if finite.any() else self.lost + len(finite)
        self.about = parsed.about or self.about
        self.history.add([self._bounded(row) for row in parsed.rows], parsed.about)

    def _bounded(self, row: Row) -> Row:
        """``row`` without what stands beside the tasks under more names than there is room for."""
        k, room = len(self.header.tasks), max(64, 4 * CELLS // self.window)
        for found, width in ((row.others, 1), (row.groups, k)):
            for name in found or ():
                if name not in self._beside and sum(self._beside.values()) + width <= room:
                    self._beside[name] = width
        kept = [
            {name: values for name, values in (found or {}).items() if name in self._beside}
            for found in (row.others, row.groups)
        ]
        return row._replace(others=kept[0], groups=kept[1])

    def series_of(self, parsed: Parsed, before: float = np.nan) -> tuple[Floats, float]:
        """The series of ``names`` for these steps, (n, S), and the time of the last one."""
        steps = self._steps(parsed)
        return self._series(steps, before), steps.times[-1] if len(steps) else before

    def _steps(self, parsed: Parsed) -> History:
        steps = History(self.header.tasks, keep=None)
        steps.add(parsed.rows)
        return steps

    def _series(self, steps: History, before: float) -> Floats:
        """Of ``steps``, (n, S); ``before`` is the time of the step before."""
        seconds = np.diff(steps.times, prepend=before)
        pairs = np.array(self.pairs, dtype=np.int64).reshape(-1, 2)
        angles = [steps.cosines[:, pairs[:, 0], pairs[:, 1]]] if self.pairs else []
        columns = [
            steps.steps,
            steps.imbalance,
            np.where(seconds >= 0, seconds, np.nan),
            ~steps.finite,
            *(getattr(steps, name) for name in VECTORS),
            *angles,
        ]
        return np.column_stack([np.asarray(column, dtype=np.float64) for column in columns])


@final
class Follower:
    """Follows the record of a run: the latest steps whole, all of them in buckets.

    :meth:`advance` and :meth:`diagnose` belong to one thread. You may ask for everything else from
    any.

    Args:
        path: the JSONL file of a :class:`gaba.RunRecord`.
        opener: opens it for reading, if not simply by its path.
        beside: opens another file of its folder by its name.

    Example:
        >>> import tempfile, torch, gaba
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> balancer = gaba.Balancer(["a", "b"], [w], "inverse")
        >>> _ = balancer.backward({"a": w.sum(), "b": 3 * w.sum()})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     balancer.history.write(f"{folder}/run.jsonl")
        ...     follower = Follower(f"{folder}/run.jsonl")
        ...     while follower.advance():
        ...         pass
        ...     closer = follower.between(0, 0, points=10)
        >>> follower.state, follower.total, follower.latest.weights.round(4).tolist()
        ('following', 1, [[0.75, 0.25]])
        >>> follower.diagnose(), follower.diagnose()
        (True, False)
        >>> row, mean = follower.names.index("norms/1"), follower.since(0, 0, points=10).mean
        >>> bool(mean[row, 0] == closer.mean[row, 0] == follower.latest.norms[-1, 1])
        True
        >>> follower.fail("the disk is gone")
        >>> follower.state, follower.error
        ('error', 'the disk is gone')
    """

    def __init__(
        self,
        path: str | Path,
        opener: Callable[[], BinaryIO] | None = None,
        beside: Callable[[str], BinaryIO] | None = None,
    ) -> None:
        self.path = Path(path)
        self._opener = opener or (lambda: self.path.open("rb"))
        self._beside = self._open_beside if opener is None else beside
        self._tail = Tail(self._opener)
        self.lock = threading.RLock()
        """Held while what is known changes."""
        self.version = 0
        """Grows with every change."""
        self._begin()

    def _open_beside(self, name: str) -> BinaryIO:
        return self.path.with_name(name).open("rb")

    def _begin(self) -> None:
        self.generation = secrets.token_hex(4)
        """Another one for every beginning, so that what belongs to an older file is known."""
        self._run: _Run | None = None
        self._malformed = self._unreadable = ""
        self.read = self.size = 0
        self._reading = True
        self._seen: tuple[int, ...] = ()
        self._evaluated = -1  # after how many steps a finished evaluation was made
        self._facts = -1, Facts()  # and the version that they are of

    # --- reading --------------------------------------------------------------------------------

    def advance(self) -> bool:
        """Read the next piece of the file; False if there was nothing new."""
        try:
            piece = self._tail.read()
        except (OSError, ValueError) as error:
            said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            self._change(_unreadable=f"{self.path}: {said}")
            return False
        self._change(_unreadable="")
        if piece is None:
            self._change(_reading=False, _evaluated=self._look_beside())
            return False
        run = None if piece.restarted else self._run
        malformed, parsed = "" if piece.restarted else self._malformed, None
        lines = piece.lines
        try:
            if piece.first == 1 and lines:
                begun, lines = header(lines[0], self.path), lines[1:]
                run = self._followed(begun)
            if run is not None and not malformed:
                first = piece.first + len(piece.lines) - len(lines)
                parsed = parse_lines(lines, run.header.tasks, self.path, first)
                malformed = parsed.error
        except ValueError as error:
            malformed = str(error)
        with self.lock:
            if piece.restarted:
                self._begin()
            self._run, self._malformed = run, malformed
            self.read, self.size = piece.end, piece.size
            self._reading = piece.end < piece.size
            if run is not None and parsed is not None:
                run.add(parsed, _begins(piece, len(lines))[parsed.lines])
            self.version += 1
        return True

    def _followed(self, begun: Header) -> _Run:
        try:
            return _Run(begun)
        except ValueError as error:
            raise ValueError(f"{self.path}, line 1: {error}") from None

    def fail(self, text: str) -> None:
        """Stop at the error ``text`` until the file is another."""
        self._change(_malformed=text)

    def _look_beside(self) -> int:
        """After how many steps the finished evaluation beside the record was made, or -1."""
        if self._beside is None or self._run is None:
            return -1
        try:
            with self._beside(EVALUATION) as file:
                found = os.fstat(file.fileno())
                seen = found.st_ino, found.st_size, found.st_mtime_ns
                if seen == self._seen or found.st_size > LARGEST:
                    return self._evaluated
                self._seen = seen
                metrics = json.loads(file.read())
        except (OSError, ValueError, RecursionError):
            return -1
        finished = isinstance(metrics, dict) and metrics.get("finished") is True
        steps = metrics.get("steps") if finished else None
        return steps if isinstance(steps, int) else -1

    def _change(self, **values: str | bool | int) -> None:
        with self.lock:
            self.version += any(getattr(self, name) != value for name, value in values.items())
            vars(self).update(values)

    # --- what is known --------------------------------------------------------------------------

    @property
    def error(self) -> str:
        """Why the file cannot be read, or not further; empty if it can."""
        return self._unreadable or self._malformed

    @property
    def state(self) -> State:
        """What the follower is doing."""
        if self.error:
            return "error"
        if self._run is None:
            return "waiting"
        return "reading" if self._reading else "following"

    def doing(self, now: float) -> Doing:
        """What the run is doing at ``now``, in seconds since 1970.

        Example:
            >>> Follower("nowhere").doing(now=0.0).word
            'waiting'
        """
        with self.lock:
            if self._facts[0] != self.version:
                self._facts = self.version, self._found()
            return doing(replace(self._facts[1], heard=self._tail.written), now)

    def _found(self) -> Facts:
        """All that is known but for when it was written."""
        if self._run is None:
            return Facts(self.error)
        last = self.latest[-PACE:]
        seconds = np.diff(last.times)
        known = seconds[seconds >= 0]
        steps = int(last.steps[-1]) + 1 if len(last) else 0
        return Facts(
            error=self.error,
            meta=self._run.header.meta,
            about=self._run.about,
            steps=steps,
            lost=self._run.lost,
            pace=float(np.median(known)) if known.size else np.nan,
            evaluated=0 < steps == self._evaluated,
        )

    @property
    def header(self) -> Header | None:
        """What the first line says; None while it is awaited."""
        return self._run.header if self._run else None

    @property
    def tasks(self) -> tuple[str, ...]:
        """The K names; none while the first line is awaited."""
        return self._run.header.tasks if self._run else ()

    @property
    def names(self) -> list[str]:
        """The series: ``step``, ``imbalance``, ..., then ``losses/0`` of the first task, ..."""
        return self._run.names if self._run else []

    @property
    def total(self) -> int:
        """Steps read so far."""
        return self._run.buckets.total if self._run else 0

    @property
    def skipped(self) -> int:
        """Steps whose losses or norms were not finite."""
        return self._run.skipped if self._run else 0

    @property
    def saturated(self) -> list[float]:
        """Of each task, the part of all steps in which it was saturated."""
        return (self._run.saturated / max(1, self.total)).tolist() if self._run else []

    @property
    def latest(self) -> History:
        """The latest steps, whole: as many as are kept, or all if there are not so many yet."""
        with self.lock:
            return self._run.history[-self._run.window :] if self._run else History(())

    @property
    def diagnosis(self) -> Diagnosis | None:
        """What the latest steps said at the last :meth:`diagnose`; None if there were none."""
        return self._run.diagnosis if self._run else None

    @property
    def cosines(self) -> Cosines | None:
        """The median cosines of the latest steps at the last :meth:`diagnose`; None without any."""
        return self._run.cosines if self._run else None

    def diagnose(self) -> bool:
        """Diagnose the latest steps if there are more than last time; whether there were."""
        run, total, latest = self._run, self.total, self.latest
        if run is None or run.diagnosed == total:
            return False
        run.diagnosis, run.cosines, run.diagnosed = diagnose(latest), median_cosines(latest), total
        self.version += 1
        return True

    # --- few points for many steps --------------------------------------------------------------

    def since(self, cursor: int, stride: int, points: int) -> Slice | None:
        """The buckets that changed since ``cursor`` steps were read; all if the stride is another.

        None if there are no steps.
        """
        with self.lock:
            if self._run is None or not self.total:
                return None
            buckets = self._run.buckets
            wanted = stride_for(buckets.total, points, buckets.stride)
            return buckets.slice(wanted, cursor if stride == wanted else 0)

    def between(self, low: float, high: float, points: int) -> Slice | None:
        """The steps numbered from ``low`` to ``high``, in about ``points`` buckets at most.

        A stretch too short for the buckets in memory is read again from the file.
        """
        with self.lock:
            if self._run is None or not self.total:
                return None
            run, buckets = self._run, self._run.buckets
            first, last, offset = buckets.find(0, low, high)
            wanted = stride_for(last - first, points)
            if wanted >= buckets.stride or last - first > min(WINDOW, CELLS // len(run.names)):
                wanted = stride_for(last - first, points, buckets.stride)
                return buckets.slice(wanted, first, last)
        return self._again(run, offset, last - first, points)

    def _again(self, run: _Run, offset: int, count: int, points: int) -> Slice | None:
        """``count`` steps of the file from the byte ``offset`` on."""
        buckets = Buckets(len(run.names), capacity=count + count % 2)
        with self._opener() as file:
            file.seek(offset)
            before, more = np.nan, True
            while more and buckets.total < count:
                lines, more = _some_lines(file, count - buckets.total)
                found = parse_lines(lines, run.header.tasks, self.path)
                series, before = run.series_of(found, before)
                buckets.add(series, np.zeros(len(series), dtype=np.int64))
                more = more and not found.error
        return buckets.slice(stride_for(buckets.total, points)) if buckets.total else None


def _capacity(series: int) -> int:
    """How many buckets of so many series there may be: a power of two."""
    return min(1 << 14, 1 << max(1, (CELLS // series).bit_length() - 1))


def _some_lines(file: BinaryIO, most: int) -> tuple[list[bytes], bool]:
    """At most so many of the next steps, about a piece of them, and whether there may be more."""
    lines: list[bytes] = []
    size = 0
    while len(lines) < most and size < PIECE:
        line = file.readline(LONGEST)
        if not line.endswith(b"\n"):
            return lines, False
        size += len(line)
        if not line.startswith(b'{"about"'):
            lines.append(line)
    return lines, True


def _begins(piece: Piece, last: int) -> NDArray[np.int64]:
    """Where the ``last`` lines of ``piece`` begin in the file."""
    lengths = np.array([len(line) + 1 for line in piece.lines], dtype=np.int64)
    return (piece.offset + np.cumsum(lengths) - lengths)[len(lengths) - last :]
