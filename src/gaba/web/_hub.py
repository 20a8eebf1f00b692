"""The runs that someone looks at, followed by one thread."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

from gaba.web._folder import Folder
from gaba.web.follow import Follower

MOST = 16
"""Runs followed at a time; more are refused."""

MOST_LOOKERS = 256
"""Pages that may look at runs at the same time."""

IDLE = 4
"""Runs that nobody looks at any more and that are still remembered, so that a reload is quick."""

PAUSE = 0.1
"""Seconds between two looks at files that have nothing new."""

DIAGNOSE = 2.0
"""Seconds between two diagnoses of a run that goes on."""


@final
@dataclass(eq=False)
class Watched:
    """A run, and who looks at it.

    Attributes:
        lookers: how many pages do.
        due: when it may be diagnosed again, on the monotonic clock.
        told: what was told of it last, and to whom; several pages ask for the same.
    """

    name: str
    follower: Follower
    lookers: int = 0
    due: float = 0.0
    told: tuple[Any, ...] = ()


@final
class Hub:
    """Followers by the names of a folder's records, shared by all who look.

    Args:
        folder: where the records are; None if there are none to show.
        clock: gives the seconds since 1970; by them a silent run is stalled.
    """

    def __init__(self, folder: Folder | None, clock: Callable[[], float] = time.time) -> None:
        self.folder = folder
        self.clock = clock
        self._lock = threading.Lock()
        self._watched: OrderedDict[str, Watched] = OrderedDict()
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
        self._thread = threading.Thread(target=self._follow, name="gaba-web", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End following, and wait for the thread."""
        self._stop.set()
        self._wanted.set()
        if self._thread:
            self._thread.join()

    @contextmanager
    def looking(self, names: tuple[str, ...]) -> Iterator[list[Watched]]:
        """These records, which are followed as long as someone looks.

        Raises:
            FileNotFoundError: there is no record of such a name.
            OverflowError: too many look already, or at too many runs.
        """
        known = self.names()
        for name in names:
            if name not in known:
                raise FileNotFoundError(f"no run {name!r} here")
        with self._lock:
            found = self._begin(names)
        try:
            yield found
        finally:
            with self._lock:
                for one in found:
                    one.lookers -= 1

    def _begin(self, names: tuple[str, ...]) -> list[Watched]:
        busy = {one.name for one in self._watched.values() if one.lookers}
        if len(busy | set(names)) > MOST:
            raise OverflowError(f"{MOST} runs are followed already")
        if sum(one.lookers for one in self._watched.values()) >= MOST_LOOKERS:
            raise OverflowError(f"{MOST_LOOKERS} pages are open already")
        for name in names:
            if name not in self._watched:
                self._watched[name] = self._watch(name)
            self._watched.move_to_end(name)
            self._watched[name].lookers += 1
        idle = [one.name for one in self._watched.values() if not one.lookers]
        for name in idle[: max(0, len(idle) - IDLE)]:
            del self._watched[name]
        self._wanted.set()
        return [self._watched[name] for name in names]

    def _watch(self, name: str) -> Watched:
        folder = self.folder
        assert folder is not None
        return Watched(
            name,
            Follower(
                name, lambda: folder.open(name), lambda other: folder.open_beside(name, other)
            ),
        )

    def _follow(self) -> None:
        while not self._stop.is_set():
            with self._lock:
                busy = [one for one in self._watched.values() if one.lookers]
                if not busy:
                    self._wanted.clear()
            if not busy:
                self._wanted.wait()
                continue
            news = [self._advance(one) for one in busy]
            if not any(news):
                self._stop.wait(PAUSE)

    def _advance(self, one: Watched) -> bool:
        """Read on in a run; whatever goes wrong with it is told of it, and stops no other run."""
        follower, now = one.follower, time.monotonic()
        try:
            more = follower.advance()
            if not (more and follower.state == "reading") and now >= one.due:
                one.due = now + DIAGNOSE if follower.diagnose() else one.due
        except Exception as error:
            follower.fail(f"{one.name}: cannot be followed ({type(error).__name__}: {error})")
            return False
        return more
