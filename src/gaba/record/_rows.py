"""Rows of numbers in bounded memory: the newest whole, the older ones thinned out."""

from __future__ import annotations

import sys
from typing import final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@final
class Rows:
    """Rows that are numbered from 0 as they come.

    With ``keep``, the newest ``keep`` rows are all there, and at most about as many of the older
    ones: those whose number is divisible by a power of two, which doubles as there are more. Which
    ones depends on the number of rows alone. Adding a row takes constant time on average.

    Args:
        width: how many numbers a row has.
        keep: 4 or more; None for all rows.

    Example:
        >>> rows = Rows(1, keep=4)
        >>> rows.add(np.arange(13.0)[:, None])
        >>> rows.numbers.tolist()
        [0, 4, 8, 9, 10, 11, 12]
    """

    def __init__(self, width: int, keep: int | None) -> None:
        self.keep = keep
        self.count = 0
        """How many rows have come."""
        self._most = sys.maxsize if keep is None else 2 * keep
        self._used = 0
        self._space: Floats = np.empty((0, width))
        self._number: NDArray[np.int64] = np.empty(0, dtype=np.int64)

    def __len__(self) -> int:
        return self._used

    @property
    def values(self) -> Floats:
        """(N, width), the rows that are there. Not to be written to."""
        found = self._space[: self._used]
        found.flags.writeable = False
        return found

    @property
    def numbers(self) -> NDArray[np.int64]:
        """(N,), the number of each row that is there, in ascending order."""
        return self._number[: self._used]

    def add(self, rows: Floats) -> None:
        """Add ``rows`` (n, width)."""
        while len(rows):
            room = self._most - self._used
            self._append(rows[:room])
            rows = rows[room:]
            if self._used == self._most:
                self._thin()

    def drop_last(self) -> None:
        """Forget the newest row. What was handed out of it before stays as it is."""
        if self._used:
            self._used -= 1
            self.count -= 1
            self._space = self._space[: self._used]  # so the next row is not written over it
            self._number = self._number[: self._used]

    def part(self, first: int, last: int, step: int = 1) -> Rows:
        """The rows from place ``first`` to before place ``last``; nothing is copied."""
        found = Rows(self._space.shape[1], self.keep)
        found._space = self.values[first:last:step]
        found._number = self.numbers[first:last:step]
        found._used = len(found._number)
        found.count = int(found._number[-1]) + 1 if found._used else self.count
        return found

    def _append(self, rows: Floats) -> None:
        end = self._used + len(rows)
        if end > len(self._space):
            size = max(end, min(2 * len(self._space), self._most))
            space = np.empty((size, self._space.shape[1]))
            number = np.empty(size, dtype=np.int64)
            space[: self._used], number[: self._used] = self.values, self.numbers
            self._space, self._number = space, number
        self._space[self._used : end] = rows
        self._number[self._used : end] = np.arange(self.count, self.count + len(rows))
        self._used, self.count = end, self.count + len(rows)

    def _thin(self) -> None:
        assert self.keep is not None
        old, stride = self.count - self.keep, 1
        while 2 * old > stride * self.keep:
            stride *= 2
        wanted = (self.numbers >= old) | (self.numbers % stride == 0)
        self._space, self._number = self.values[wanted], self.numbers[wanted]
        self._used = len(self._number)
