"""Files that are open: what goes wrong with one of them is told with its name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def named(path: str | os.PathLike[str]) -> Iterator[None]:
    """While it lasts, what the system says of the file ``path`` comes with that name.

    A full disk is found when a file is written to, and then the system names none.

    Example:
        >>> import errno
        >>> with named("runs/a/history.jsonl"):
        ...     raise OSError(errno.ENOSPC, "No space left on device")
        Traceback (most recent call last):
            ...
        OSError: [Errno 28] No space left on device: 'runs/a/history.jsonl'
    """
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error
        raise
