"""The whole lines of a file that is still being written, a piece at a time."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, final

PIECE = 1 << 20
"""Bytes read at a time: a few thousand steps, some ten milliseconds of work."""

LONGEST = 1 << 24
"""No line of a record is longer; a file with one that is, is no record."""

ANCHOR = 256


@final
@dataclass(frozen=True)
class Piece:
    """Whole lines of a file.

    Attributes:
        lines: without their line feeds.
        offset: where the first of them begins, in bytes.
        first: the number of the first of them, from 1.
        restarted: the file is not the one that the lines before came from.
        size: of the file, in bytes.
        end: up to where it has been read, in bytes.
    """

    lines: list[bytes]
    offset: int
    first: int
    restarted: bool
    size: int
    end: int


@final
class Tail:
    """Follows a file: a line counts once its line feed is there.

    The file is opened again for each piece. If it was replaced, cut or rewritten, reading starts
    over: its size tells, or its bytes at the beginning or before the place read to.

    Args:
        opener: opens the file for reading.
    """

    def __init__(self, opener: Callable[[], BinaryIO]) -> None:
        self._open = opener
        self.written = math.nan
        """When the file was written last, in seconds since 1970; NaN as long as it was not seen."""
        self._forget()

    def _forget(self) -> None:
        self._end = 0
        self._lines = 0
        self._known = -1, -1, -1
        self._head = self._anchor = b""

    def read(self, limit: int = PIECE) -> Piece | None:
        """The next whole lines, about ``limit`` bytes of them; None if there is nothing new.

        Raises:
            OSError: the file cannot be opened.
            ValueError: a line is longer than ``LONGEST``.
        """
        with self._open() as file:
            found = os.fstat(file.fileno())
            self.written = found.st_mtime
            known = found.st_ino, found.st_size, found.st_mtime_ns
            if known == self._known and self._end == found.st_size:
                return None
            restarted = self._end > 0 and not self._goes_on(file, found.st_size)
            if restarted:
                self._forget()
            file.seek(self._end)
            data = file.read(limit)
            while data and b"\n" not in data and self._end + len(data) < found.st_size:
                if len(data) > LONGEST:
                    raise ValueError(f"line {self._lines + 1}: longer than {LONGEST >> 20} MB")
                data += file.read(limit)
            if not self._head:
                file.seek(0)
                self._head = file.read(ANCHOR)
        whole = data.rfind(b"\n") + 1
        if not whole and not restarted:
            return None
        lines = data[:whole].split(b"\n")[:-1]
        piece = Piece(
            lines, self._end, self._lines + 1, restarted, found.st_size, self._end + whole
        )
        self._end += whole
        self._lines += len(lines)
        self._anchor = (self._anchor + data[:whole])[-ANCHOR:]
        self._head = self._head if whole else b""
        self._known = known
        return piece

    def _goes_on(self, file: BinaryIO, size: int) -> bool:
        if size < self._end:
            return False
        file.seek(0)
        if file.read(len(self._head)) != self._head:
            return False
        file.seek(self._end - len(self._anchor))
        return file.read(len(self._anchor)) == self._anchor
