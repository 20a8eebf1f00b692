"""Many steps in few buckets: least, mean and greatest of each series, in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_MERGE = np.fmin, np.fmax, np.add, np.add
"""How two buckets become one: least, greatest, sum and count of their values."""

_NOTHING = np.array([np.nan, np.nan, 0.0, 0.0])[:, None, None]


@final
@dataclass(frozen=True)
class Slice:
    """Buckets of ``stride`` steps each, from bucket number ``start`` on.

    Attributes:
        stride: steps in a bucket; the last one may hold fewer.
        start: the number of the first bucket, from 0.
        low: (S, B), the least of each series, NaN where it has no value.
        mean: (S, B).
        high: (S, B).
    """

    stride: int
    start: int
    low: Floats
    mean: Floats
    high: Floats


@final
class Buckets:
    """S series of any number of steps in at most ``capacity`` buckets of equal numbers of steps.

    When all are full, every two neighbours become one and the stride doubles. So 10⁶ steps and
    10⁹ take the same memory, and the least and greatest of every stretch are exact.

    Args:
        series: S.
        capacity: an even number.

    Example:
        >>> import numpy as np
        >>> buckets = Buckets(1, capacity=4)
        >>> buckets.add(np.arange(10.0)[:, None], np.arange(10))
        >>> found = buckets.slice(stride=4)
        >>> found.low.tolist(), found.high.tolist()
        ([[0.0, 4.0, 8.0]], [[3.0, 7.0, 9.0]])
    """

    def __init__(self, series: int, capacity: int = 1 << 14) -> None:
        self.total = 0
        self.stride = 1
        self._capacity = capacity
        self._tables = np.empty((4, 0, series))
        self._offset = np.empty(0, dtype=np.int64)
        self._grow(min(capacity, 256))

    @property
    def nbytes(self) -> int:
        """The memory of the tables."""
        return self._tables.nbytes + self._offset.nbytes

    @property
    def _used(self) -> int:
        return -(-self.total // self.stride)

    def add(self, values: Floats, offsets: NDArray[np.int64]) -> None:
        """Append the steps ``values`` (n, S), whose lines begin at ``offsets`` (n,) in the file."""
        n = len(values)
        if not n:
            return
        while (self.total + n - 1) // self.stride >= self._capacity:
            self._halve()
        bucket = (self.total + np.arange(n)) // self.stride
        self._grow(int(bucket[-1]) + 1)
        firsts = np.flatnonzero(np.r_[True, bucket[1:] != bucket[:-1]])
        at = slice(int(bucket[0]), int(bucket[-1]) + 1)
        known = np.isfinite(values)
        finite = np.where(known, values, np.nan)
        news = finite, finite, np.where(known, values, 0.0), known.astype(np.float64)
        for merge, table, new in zip(_MERGE, self._tables, news, strict=True):
            table[at] = merge(table[at], merge.reduceat(new, firsts))
        fresh = firsts[1:] if self.total % self.stride else firsts
        self._offset[bucket[fresh]] = offsets[fresh]
        self.total += n

    def _grow(self, needed: int) -> None:
        _, size, series = self._tables.shape
        if needed > size:
            more = min(self._capacity, max(needed, 2 * size)) - size
            space = np.broadcast_to(_NOTHING, (4, more, series))
            self._tables = np.concatenate([self._tables, space], axis=1)
            self._offset = np.pad(self._offset, (0, more))

    def _halve(self) -> None:
        self._grow(self._capacity)
        half = self._capacity // 2
        for merge, table in zip(_MERGE, self._tables, strict=True):
            table[:half] = merge(table[::2], table[1::2])
        self._tables[:, half:] = _NOTHING
        self._offset[:half] = self._offset[::2]
        self.stride *= 2

    def slice(self, stride: int, first: int = 0, last: int | None = None) -> Slice:
        """The steps from ``first`` up to and without ``last`` in buckets of ``stride`` steps.

        Whole buckets are given: the one that holds ``first``, and so on. ``stride`` is a multiple
        of ``self.stride``, and is raised to it where it is less.
        """
        stride = max(stride, self.stride)
        last = self.total if last is None else min(last, self.total)
        start = min(first, max(0, self.total - 1)) // stride
        group = stride // self.stride
        rows = self._tables[:, start * group : min(self._used, -(-last // stride) * group)]
        if group > 1 and rows.shape[1]:
            edges = np.arange(0, rows.shape[1], group)
            rows = [merge.reduceat(table, edges) for merge, table in zip(_MERGE, rows, strict=True)]
        low, high, total, count = rows
        mean = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
        # A mean of equal numbers may differ from them in its last digit.
        return Slice(stride, start, low.T.copy(), np.clip(mean, low, high).T, high.T.copy())

    def find(self, series: int, low: float, high: float) -> tuple[int, int, int]:
        """Where a series that grows lies between two values.

        Returns:
            The number of the first step of the buckets that may hold such values, that after the
            last, and the offset of the first one's line.
        """
        begins = self._tables[0, : self._used, series]
        first = max(0, int(np.searchsorted(begins, low, side="right")) - 1)
        last = max(first + 1, int(np.searchsorted(begins, high, side="right")))
        steps = first * self.stride, min(last * self.stride, self.total)
        return *steps, int(self._offset[first])


def stride_for(steps: int, points: int, least: int = 1) -> int:
    """The smallest power of two, at least ``least``, that puts ``steps`` in ``points`` buckets.

    >>> stride_for(10, 10), stride_for(11, 10), stride_for(1_000_000, 2048)
    (1, 2, 512)
    """
    stride = least
    while -(-steps // stride) > points:
        stride *= 2
    return stride
