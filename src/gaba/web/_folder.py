"""The records in a folder, and opening them so that nothing outside of it is ever read."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, final

DEEPEST = 4
"""Folders below the given one that are looked into."""

MOST = 1000
"""Records listed at most."""

LOOKED_AT = 50_000
"""Entries of folders looked at in one search."""

FRESH = 2.0
"""Seconds for which a search is remembered."""

_FLAGS = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_FLAGS |= getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


@final
class Folder:
    """A folder of runs, or one record.

    A record is known by its path below the folder. A name that was not found by looking is never
    opened, and links are not followed, neither in looking nor in opening.

    Args:
        path: a folder, or the JSONL file of a record.

    Raises:
        FileNotFoundError: there is no such file or folder.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        given = Path(path)
        if not given.exists():
            raise FileNotFoundError(f"no run and no folder of runs: {given}")
        real = given.resolve()
        self.root = real if real.is_dir() else real.parent
        self._only = None if real.is_dir() else real.name
        self._found: tuple[str, ...] = ()
        self._looked = -FRESH

    def names(self) -> tuple[str, ...]:
        """The paths of the records below the folder, as found within the last ``FRESH`` seconds."""
        if self._only is not None:
            return (self._only,)
        if time.monotonic() - self._looked >= FRESH:
            self._found = tuple(sorted(_records(self.root)))
            self._looked = time.monotonic()
        return self._found

    def open(self, name: str) -> BinaryIO:
        """Open the record ``name``, one of :meth:`names`, for reading.

        Raises:
            FileNotFoundError: it is none of them, or is no longer a plain file inside the folder.
        """
        return self._open(name, name.split("/"))

    def open_beside(self, name: str, other: str) -> BinaryIO:
        """Open the file ``other`` in the folder of the record ``name``, for reading.

        Raises:
            FileNotFoundError: there is no such record, or no such plain file beside it.
        """
        return self._open(name, [*name.split("/")[:-1], other])

    def _open(self, name: str, parts: list[str]) -> BinaryIO:
        if name not in self.names():
            raise FileNotFoundError(f"no record {name!r} in {self.root}")
        try:
            handle = _open_below(self.root, parts)
        except OSError as error:
            raise FileNotFoundError(f"{name}: {error.strerror or error}") from error
        file = os.fdopen(handle, "rb")
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            file.close()
            raise FileNotFoundError(f"{name}: not a plain file")
        return file


def _open_below(root: Path, parts: list[str]) -> int:
    """Step by step from ``root``, so that no link on the way leads elsewhere."""
    if os.open not in os.supports_dir_fd:
        path = root.joinpath(*parts)
        if not Path(os.path.realpath(path)).is_relative_to(root):
            raise FileNotFoundError("leads out of the folder")
        return os.open(path, _FLAGS)
    here = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for part in parts:
        try:
            step = os.open(part, _FLAGS, dir_fd=here)
        finally:
            os.close(here)
        here = step
    return here


def _records(root: Path) -> Iterator[str]:
    waiting = [("", 0)]
    looked = found = 0
    while waiting:
        prefix, depth = waiting.pop()
        try:
            entries = sorted(os.scandir(root / prefix), key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in entries:
            looked += 1
            if looked > LOOKED_AT or found >= MOST:
                return
            if entry.name.startswith(".") or not _printable(entry.name):
                continue
            try:
                folder = entry.is_dir(follow_symlinks=False)
                file = entry.is_file(follow_symlinks=False)
            except OSError:
                continue
            if folder and depth < DEEPEST:
                waiting.append((f"{prefix}{entry.name}/", depth + 1))
            elif file and entry.name.endswith(".jsonl") and _begins_as_record(root, prefix, entry):
                found += 1
                yield prefix + entry.name


def _printable(name: str) -> bool:
    return name.isprintable() and "\\" not in name


def _begins_as_record(root: Path, prefix: str, entry: os.DirEntry[str]) -> bool:
    """A run's own file is listed from its first byte on; another one if it looks like a record."""
    if entry.name == "history.jsonl":
        return True
    try:
        handle = _open_below(root, [*prefix.split("/")[:-1], entry.name])
        with os.fdopen(handle, "rb") as file:
            return file.read(64).lstrip().startswith(b'{"gaba"')
    except OSError:
        return False
