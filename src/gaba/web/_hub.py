"""The runs that someone looks at, followed by one thread."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import final

from gaba.web._folder import Folder
from gaba.web.follow import Follower

MOST = 16
"""Runs followed at a time; more are refused."""

IDLE = 4
"""Runs that nobody looks at any more and that are still remembered, so that a reload is quick."""

PAUSE = 0.1
"""Seconds between two looks at files that have nothing new."""

DIAGNOSE = 2.0
"""Seconds between two diagnoses of a run that goes on."""


@final
class Hub:
    """Followers by the names of a folder's records, shared by all who look.

    Args:
        folder: where the records are; None if there are none to show.
    """

    def __init__(self, folder: Folder | None) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._followers: OrderedDict[str, Follower] = OrderedDict()
        self._looking: dict[str, int] = {}
        self._due: dict[str, float] = {}
        self._stop = threading.Event()
        self._wanted = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def stopped(self) -> bool:
        """Whether :meth:`stop` was called."""
        return self._stop.is_set()

    def names(self) -> tuple[str, ...]:
        """The records that can be looked at."""
        return self.folder.names() if self.folder else ()

    def start(self) -> None:
        """Begin to follow."""
        self._thread = threading.Thread(target=self._run, name="gaba-web", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End following, and wait for the thread."""
        self._stop.set()
        self._wanted.set()
        if self._thread:
            self._thread.join()

    @contextmanager
    def looking(self, names: tuple[str, ...]) -> Iterator[list[Follower]]:
        """The followers of these records, which are read as long as someone looks.

        Raises:
            FileNotFoundError: there is no record of such a name.
            OverflowError: more than ``MOST`` runs are looked at already.
        """
        followers = self._begin(names)
        try:
            yield followers
        finally:
            with self._lock:
                for name in names:
                    self._looking[name] -= 1

    def _begin(self, names: tuple[str, ...]) -> list[Follower]:
        known = self.names()
        for name in names:
            if name not in known:
                raise FileNotFoundError(f"no run {name!r}")
        with self._lock:
            busy = {name for name, count in self._looking.items() if count}
            if len(busy | set(names)) > MOST:
                raise OverflowError(f"{MOST} runs are followed already")
            for name in names:
                if name not in self._followers:
                    self._followers[name] = self._follower(name)
                self._followers.move_to_end(name)
                self._looking[name] = self._looking.get(name, 0) + 1
            self._forget_idle()
            self._wanted.set()
            return [self._followers[name] for name in names]

    def _follower(self, name: str) -> Follower:
        folder = self.folder
        assert folder is not None
        return Follower(Path(name), lambda: folder.open(name))

    def _forget_idle(self) -> None:
        idle = [name for name in self._followers if not self._looking.get(name)]
        for name in idle[: max(0, len(idle) - IDLE)]:
            del self._followers[name]
            self._looking.pop(name, None)
            self._due.pop(name, None)

    def _run(self) -> None:
        while not self._stop.is_set():
            with self._lock:
                busy = [(n, f) for n, f in self._followers.items() if self._looking.get(n)]
                if not busy:
                    self._wanted.clear()
            if not busy:
                self._wanted.wait()
                continue
            news = [self._advance(name, follower) for name, follower in busy]
            if not any(news):
                self._stop.wait(PAUSE)

    def _advance(self, name: str, follower: Follower) -> bool:
        more = follower.advance()
        if follower.total and not (more and follower.state == "reading"):
            now = time.monotonic()
            if now >= self._due.get(name, 0.0) and follower.diagnose_anew():
                self._due[name] = now + DIAGNOSE
        return more
