"""Following the record of a run while it is written, in bounded memory."""

from __future__ import annotations

import secrets
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Literal, final

import numpy as np

from gaba.record import diagnosis
from gaba.web._buckets import Buckets, Slice, stride_for
from gaba.web._columns import Columns, all_cosines, cosines_of
from gaba.web._parse import SCALARS, VECTORS, Floats, Header, Rows, header, rows
from gaba.web._tail import Piece, Tail

__all__ = ["Follower", "State"]

State = Literal["waiting", "reading", "following", "error"]
"""``waiting`` for the first line, ``reading`` what is there, ``following`` what comes, or stopped
by an ``error`` until the file is another."""

WINDOW = 50_000
"""The latest steps that are kept whole; the diagnosis is of these."""

CELLS = 1_000_000
"""Numbers kept of the latest steps at most; with many tasks these are fewer steps."""

MOST_COSINES = 12
"""With more tasks than this, cosines are not followed: 66 pairs are enough for a page."""


@final
class Follower:
    """Follows the record of a run: the latest steps whole, all of them in buckets.

    :meth:`advance` belongs to one thread; everything else may be asked for from any.

    Args:
        path: the JSONL file of a :class:`gaba.RunRecord`.
        opener: opens it for reading, if not simply by its path.
        window: the latest steps that are kept whole, fewer with many tasks; None for all.

    Example:
        >>> import tempfile, torch, gaba
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> balancer = gaba.Balancer(["a", "b"], shared=[w])
        >>> _ = balancer.backward({"a": w.sum(), "b": 3 * w.sum()})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     balancer.history.write(f"{folder}/run.jsonl")
        ...     follower = Follower(f"{folder}/run.jsonl")
        ...     while follower.advance():
        ...         pass
        ...     closer = follower.between(0, 0, points=10)
        >>> follower.state, follower.total, follower.latest.weights.round(4).tolist()
        ('following', 1, [[0.75, 0.25]])
        >>> follower.diagnose_anew(), follower.diagnose_anew()
        (True, False)
        >>> row, mean = follower.names.index("norms/1"), follower.since(0, 0, points=10).mean
        >>> bool(mean[row, 0] == closer.mean[row, 0] == follower.last().norms[0, 1])
        True
    """

    def __init__(
        self,
        path: str | Path,
        opener: Callable[[], BinaryIO] | None = None,
        window: int | None = WINDOW,
    ) -> None:
        self.path = Path(path)
        self._opener = opener or (lambda: self.path.open("rb"))
        self._tail = Tail(self._opener)
        self._asked = window
        self._window = 0
        self.lock = threading.RLock()
        """Held while what is known changes."""
        self._clear()

    def _clear(self) -> None:
        self.generation = secrets.token_hex(4)
        """Another one for every beginning, so that what belongs to an older file is known."""
        self.version = 0
        """Grows with every change."""
        self.header: Header | None = None
        self.error = self._malformed = ""
        self._absent = False
        self.about: dict[str, str] = {}
        self.skipped = 0
        """Steps whose losses or norms were not finite."""
        self.read = self.size = 0
        self._reading = True
        self._buckets: Buckets | None = None
        self._recent: list[Floats] = []
        self._recent_cosines: list[Floats | None] = []
        self._kept = 0
        self._last_time = np.nan
        self._saturated: Floats = np.zeros(0)
        self._diagnosis: tuple[int, diagnosis.Diagnosis | None] = -1, None

    # --- reading --------------------------------------------------------------------------------

    def advance(self) -> bool:
        """Read the next piece of the file; False if there was nothing new."""
        try:
            piece = self._tail.read()
        except (OSError, ValueError) as error:
            said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            self._fail(f"{self.path}: {said}")
            self._absent = True
            return False
        if piece is None:
            with self.lock:
                self._recovered()
                self.version += self._reading
                self._reading = False
            return False
        begun = None if piece.restarted else self.header
        found, read = None, ""
        lines, first = piece.lines, piece.first
        if not self._malformed or piece.restarted:
            try:
                if begun is None and lines:
                    begun = header(lines[0], str(self.path))
                    lines, first = lines[1:], first + 1
                found = rows(lines, begun.tasks, str(self.path), first) if begun else None
            except ValueError as error:
                read = str(error)
        with self.lock:
            self._recovered()
            if piece.restarted:
                self._clear()
            self._take(piece, begun, found, len(piece.lines) - len(lines))
            if read:
                self._end_at(read)
            self.version += 1
        return True

    def _recovered(self) -> None:
        if self._absent:
            self._absent, self.error = False, self._malformed
            self.version += 1

    def _end_at(self, malformed: str) -> None:
        self._malformed = malformed
        self._fail(malformed)

    def _fail(self, text: str) -> None:
        with self.lock:
            self.version += self.error != text
            self.error = text

    def _take(self, piece: Piece, begun: Header | None, found: Rows | None, before: int) -> None:
        """Add the steps ``found`` in ``piece`` after its first ``before`` lines."""
        self.read, self.size = piece.end, piece.size
        self._reading = piece.end < piece.size
        if begun is None or found is None:
            return
        if self.header is None or self._buckets is None:
            k = len(begun.tasks)
            self.header = begun
            self._buckets = Buckets(len(self.names))
            self._saturated = np.zeros(k)
            bound = CELLS // (4 * k + k * k)
            self._window = sys.maxsize if self._asked is None else min(self._asked, bound)
        self.about = {**self.about, **found.about} if found.about else self.about
        lengths = np.array([len(line) + 1 for line in piece.lines], dtype=np.int64)
        begins = (piece.offset + np.cumsum(lengths) - lengths)[before:]
        columns = self._columns(found)
        self._buckets.add(self._series(columns, self._last_time), begins[found.lines])
        self._last_time = columns.times[-1] if len(columns) else self._last_time
        self.skipped += int((~columns.finite).sum())
        self._saturated = self._saturated + columns.saturated.sum(axis=0)
        self._remember(found.table, found.cosines)
        if found.error:
            self._end_at(found.error)

    def _columns(self, found: Rows) -> Columns:
        k = len(self.tasks)
        return Columns(self.tasks, found.table, cosines_of(found.cosines, len(found.table), k))

    def _remember(self, table: Floats, cosines: Floats | None) -> None:
        if not len(table):
            return
        self._recent.append(table)
        self._recent_cosines.append(cosines)
        self._kept += len(table)
        while self._recent and self._kept - len(self._recent[0]) >= self._window:
            self._kept -= len(self._recent.pop(0))
            self._recent_cosines.pop(0)
        if len(self._recent) > 64:  # many small pieces are one
            self._recent_cosines = [all_cosines(self._recent_cosines, self._recent)]
            self._recent = [np.concatenate(self._recent)]

    # --- what is known --------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """What the follower is doing."""
        if self.error:
            return "error"
        if self.header is None:
            return "waiting"
        return "reading" if self._reading else "following"

    @property
    def tasks(self) -> tuple[str, ...]:
        """The K names; none while the first line is awaited."""
        return self.header.tasks if self.header else ()

    @property
    def total(self) -> int:
        """Steps read so far."""
        return self._buckets.total if self._buckets else 0

    @property
    def saturated(self) -> list[float]:
        """Of each task, the part of all steps in which its weight sat on its floor."""
        return (self._saturated / max(1, self.total)).tolist()

    @property
    def nbytes(self) -> int:
        """The memory of the tables."""
        with self.lock:
            kept = [*self._recent, *(c for c in self._recent_cosines if c is not None)]
            return sum(t.nbytes for t in kept) + (self._buckets.nbytes if self._buckets else 0)

    @property
    def names(self) -> list[str]:
        """The series: ``step``, ``imbalance``, ..., then ``losses/0`` of the first task, ..."""
        k = len(self.tasks)
        vectors = ("losses", "norms", "weights", "contributions", "saturated")
        return [
            *("step", "imbalance", "gain", "seconds", "skipped"),
            *(f"{vector}/{i}" for vector in vectors for i in range(k)),
            *(f"cosines/{i}/{j}" for i, j in self._pairs()),
        ]

    def _pairs(self) -> list[tuple[int, int]]:
        k = len(self.tasks)
        wanted = k <= MOST_COSINES
        return [(i, j) for i in range(k) for j in range(i + 1, k)] if wanted else []

    def _series(self, columns: Columns, before: float) -> Floats:
        """The series of ``self.names``, (n, S); ``before`` is the time of the step before."""
        seconds = np.diff(columns.times, prepend=before)
        scalars: tuple[Any, ...] = (
            columns.steps,
            columns.imbalance,
            columns.gain,
            np.where(seconds >= 0, seconds, np.nan),
            ~columns.finite,
        )
        pairs = np.array(self._pairs(), dtype=np.int64).reshape(-1, 2)
        return np.column_stack(
            [
                *(np.asarray(scalar, dtype=np.float64) for scalar in scalars),
                columns.losses,
                columns.norms,
                columns.weights,
                columns.contributions,
                columns.saturated.astype(np.float64),
                columns.cosines[:, pairs[:, 0], pairs[:, 1]],
            ]
        )

    @property
    def latest(self) -> Columns:
        """The latest steps, whole: ``window`` of them, or fewer if there are not so many yet."""
        with self.lock:
            k = len(self.tasks)
            empty = np.empty((0, len(SCALARS) + len(VECTORS) * k))
            cut = max(0, self._kept - self._window)
            table = np.concatenate([*self._recent, empty])
            cosines = cosines_of(all_cosines(self._recent_cosines, self._recent), len(table), k)
            return Columns(self.tasks, table[cut:], cosines[cut:], dict(self.about))

    def last(self) -> Columns | None:
        """The last step alone, or None."""
        with self.lock:
            if not self._recent:
                return None
            table, cosines = self._recent[-1], self._recent_cosines[-1]
            whole = cosines_of(cosines, len(table), len(self.tasks))
            return Columns(self.tasks, table[-1:], whole[-1:], dict(self.about))

    def diagnose(self) -> diagnosis.Diagnosis | None:
        """What the latest steps say; remembered until there are more."""
        self.diagnose_anew()
        return self._diagnosis[1]

    def diagnose_anew(self) -> bool:
        """Diagnose if there are more steps than last time; whether that was so."""
        with self.lock:
            if self._diagnosis[0] == self.total:
                return False
            steps, latest = self.total, self.latest
        self._diagnosis = steps, latest.diagnose()
        self.version += 1
        return True

    @property
    def last_diagnosis(self) -> diagnosis.Diagnosis | None:
        """What :meth:`diagnose` said last."""
        return self._diagnosis[1]

    # --- few points for many steps --------------------------------------------------------------

    def since(self, cursor: int, stride: int, points: int) -> Slice | None:
        """The buckets that changed since ``cursor`` steps were read; all if the stride is another.

        None if there are no steps.
        """
        with self.lock:
            if self._buckets is None or not self._buckets.total:
                return None
            wanted = stride_for(self._buckets.total, points, self._buckets.stride)
            return self._buckets.slice(wanted, cursor if stride == wanted else 0)

    def between(self, low: float, high: float, points: int) -> Slice | None:
        """The steps numbered from ``low`` to ``high``, in about ``points`` buckets at most.

        A stretch too short for the buckets in memory is read again from the file.
        """
        with self.lock:
            if self._buckets is None or not self._buckets.total:
                return None
            first, last, offset = self._buckets.find(0, low, high)
            wanted = stride_for(last - first, points)
            if wanted >= self._buckets.stride or last - first > WINDOW:
                wanted = stride_for(last - first, points, self._buckets.stride)
                return self._buckets.slice(wanted, first, last)
        return self._again(offset, first, last, points)

    def _again(self, offset: int, first: int, last: int, points: int) -> Slice | None:
        if self.header is None:
            return None
        lines: list[bytes] = []
        with self._opener() as file:
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n") or len(lines) == 2 * (last - first):
                    break
                if not line.startswith(b'{"about"'):
                    lines.append(line)
                if len(lines) == last - first:
                    break
        found = rows(lines, self.header.tasks, str(self.path), 1)
        columns = self._columns(found)
        series = self._series(columns, np.nan)
        buckets = Buckets(len(self.names), capacity=2 * WINDOW)
        buckets.add(series, np.zeros(len(series), dtype=np.int64))
        return buckets.slice(stride_for(len(series), points)) if len(series) else None
