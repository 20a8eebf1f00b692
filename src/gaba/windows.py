"""The micro-batches of one optimizer step: who is in how many of them, and who was measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, final

RATE = 0.05
"""The smallest rate of the mean over windows: over the last 20 or so."""


@final
@dataclass(frozen=True)
class Windows:
    """What is known of accumulation windows; plain numbers, on the host.

    The gradient that an optimizer sees is the sum over its window. A task with labels in 1 of 4
    micro-batches pulls there a quarter as hard as its gradient says.

    Attributes:
        parts: of each task, the mean part of the micro-batches that have it, over the windows.
        whole: how many windows are over.
        away: of each task, for how many windows it has been in none; it counts from the last one.
        counts: of each task, in how many micro-batches of this window it has been.
        size: how many micro-batches of this window there have been.
        measured: the positions of the tasks that were measured in this window.
        due: whether this window is one to be measured.

    Example:
        >>> windows = Windows.of(2)
        >>> for first, present in ((True, [0]), (False, [0, 1]), (True, [0, 1])):
        ...     windows = windows.begun() if first else windows
        ...     windows = windows.after(present)
        >>> windows.parts
        (1.0, 0.5)
    """

    parts: tuple[float, ...]
    whole: int = 0
    away: tuple[int, ...] = ()
    counts: tuple[int, ...] = ()
    size: int = 0
    measured: tuple[int, ...] = ()
    due: bool = False

    @staticmethod
    def of(n_tasks: int) -> Windows:
        """Before the first micro-batch."""
        return Windows((1.0,) * n_tasks, away=(0,) * n_tasks, counts=(0,) * n_tasks)

    @property
    def there(self) -> list[bool]:
        """Which tasks are in this window or were in the last one."""
        return [n > 0 or a == 0 for n, a in zip(self.counts, self.away, strict=True)]

    @property
    def even(self) -> bool:
        """Whether every task is in every micro-batch, as far as is known."""
        return min(self.parts) == max(self.parts)

    def begun(self, every: int = 1) -> Windows:
        """At the first micro-batch of a window, of which every so many are measured."""
        nobody, number = (0,) * len(self.parts), self.whole + (self.size > 0)
        fresh = replace(self, counts=nobody, size=0, measured=(), due=number % every == 0)
        if not self.size:
            return fresh
        rate = max(RATE, 1 / (1 + self.whole))
        pairs = zip(self.parts, self.counts, strict=True)
        parts = tuple(
            p + rate * (n / self.size - p) if n else p for p, n in pairs
        )  # a task that is in no micro-batch is away, as in a step without it
        away = tuple(0 if n else a + 1 for n, a in zip(self.counts, self.away, strict=True))
        return replace(fresh, parts=parts, away=away, whole=self.whole + 1)

    def after(self, present: Iterable[int]) -> Windows:
        """After a micro-batch with these tasks."""
        here = set(present)
        counts = tuple(n + (k in here) for k, n in enumerate(self.counts))
        return replace(self, counts=counts, size=self.size + 1)

    def to_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return asdict(self)

    @staticmethod
    def from_dict(saved: Mapping[str, Any], n_tasks: int) -> Windows:
        """The inverse of :meth:`to_dict`; of an older checkpoint, nothing known."""
        plain: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list | tuple) else value
            for name, value in saved.items()
        }
        return Windows(**plain) if plain else Windows.of(n_tasks)
