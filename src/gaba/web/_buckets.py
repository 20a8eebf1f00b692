"""Many steps in few buckets: least, mean and greatest of each series, in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


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
        self._size = min(capacity, 256)
        self._low = np.full((self._size, series), np.nan)
        self._high = np.full((self._size, series), np.nan)
        self._sum = np.zeros((self._size, series))
        self._count = np.zeros((self._size, series))
        self._offset = np.zeros(self._size, dtype=np.int64)

    @property
    def nbytes(self) -> int:
        """The memory of the tables."""
        tables = (self._low, self._high, self._sum, self._count, self._offset)
        return sum(table.nbytes for table in tables)

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
        values = np.where(known, values, np.nan)
        self._low[at] = np.fmin(self._low[at], np.fmin.reduceat(values, firsts))
        self._high[at] = np.fmax(self._high[at], np.fmax.reduceat(values, firsts))
        self._sum[at] += np.add.reduceat(np.where(known, values, 0.0), firsts)
        self._count[at] += np.add.reduceat(known.astype(np.float64), firsts)
        fresh = firsts[1:] if self.total % self.stride else firsts
        self._offset[bucket[fresh]] = offsets[fresh]
        self.total += n

    def _grow(self, needed: int) -> None:
        if needed <= self._size:
            return
        more = min(self._capacity, max(needed, 2 * self._size)) - self._size
        pad = ((0, more), (0, 0))
        self._low = np.pad(self._low, pad, constant_values=np.nan)
        self._high = np.pad(self._high, pad, constant_values=np.nan)
        self._sum, self._count = np.pad(self._sum, pad), np.pad(self._count, pad)
        self._offset = np.pad(self._offset, (0, more))
        self._size += more

    def _halve(self) -> None:
        self._grow(self._capacity)
        half = self._capacity // 2
        self._low[:half] = np.fmin(self._low[::2], self._low[1::2])
        self._high[:half] = np.fmax(self._high[::2], self._high[1::2])
        self._sum[:half] = self._sum[::2] + self._sum[1::2]
        self._count[:half] = self._count[::2] + self._count[1::2]
        self._offset[:half] = self._offset[::2]
        self._low[half:] = self._high[half:] = np.nan
        self._sum[half:] = self._count[half:] = 0
        self._offset[half:] = 0
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
        used = -(-self.total // self.stride)
        rows = slice(start * group, min(used, -(-last // stride) * group))
        low, high, total = self._low[rows], self._high[rows], self._sum[rows]
        count = self._count[rows]
        if group > 1 and len(low):
            edges = np.arange(0, len(low), group)
            low, high = np.fmin.reduceat(low, edges), np.fmax.reduceat(high, edges)
            total, count = np.add.reduceat(total, edges), np.add.reduceat(count, edges)
        mean = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
        # A mean of equal numbers may differ from them in its last digit.
        return Slice(stride, start, low.T.copy(), np.clip(mean, low, high).T, high.T.copy())

    def find(self, series: int, low: float, high: float) -> tuple[int, int, int]:
        """Where a series that grows lies between two values.

        Returns:
            The number of the first step of the buckets that may hold such values, that after the
            last, and the offset of the first one's line.
        """
        used = -(-self.total // self.stride)
        first = max(0, int(np.searchsorted(self._low[:used, series], low, side="right")) - 1)
        last = max(first + 1, int(np.searchsorted(self._low[:used, series], high, side="right")))
        return (
            first * self.stride,
            min(last * self.stride, self.total),
            int(self._offset[first]),
        )


def stride_for(steps: int, points: int, least: int = 1) -> int:
    """The smallest power of two, at least ``least``, that puts ``steps`` in ``points`` buckets.

    >>> stride_for(10, 10), stride_for(11, 10), stride_for(1_000_000, 2048)
    (1, 2, 512)
    """
    stride = least
    while -(-steps // stride) > points:
        stride *= 2
    return stride
