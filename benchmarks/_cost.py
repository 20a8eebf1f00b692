"""The cost model of what ranks send each other: bytes and seconds, by formula."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH = 4096
WAYS = ("exact", "sketch of gradients", "not measured")


@dataclass(frozen=True)
class Link:
    """A network: seconds to start a message, and bytes a second on each rank's link."""

    latency: float
    bandwidth: float

    def seconds(self, sent: float, messages: float) -> float:
        """For one rank that sends ``sent`` bytes in ``messages``."""
        return messages * self.latency + sent / self.bandwidth


def numbers(way: str, parameters: float, tasks: int) -> list[float]:
    """Bytes of each sum over the ranks that a measured step adds to those of the wrapper."""
    roll = 8 * (2 * tasks + 3)
    squares = 8 * 2 * tasks  # K squared norms, K flags
    return {
        "exact": [roll, *[4 * parameters] * tasks, squares],
        "sketch of gradients": [roll, 8 * WIDTH * tasks, squares],
        "not measured": [roll],
    }[way]


def sent(sums: Sequence[float], ranks: int) -> float:
    """Bytes that each rank sends: 2 (R − 1)/R of every sum, as a ring does it."""
    return sum(2 * (ranks - 1) / ranks * size for size in sums)


def messages(sums: Sequence[float], ranks: int) -> float:
    """Messages that follow one another: 2 (R − 1) for each sum."""
    return 2.0 * (ranks - 1) * len(sums)


def human(size: float, unit: str = "B") -> str:
    """``size`` with a prefix."""
    for prefix in ("", "k", "M", "G", "T"):
        if abs(size) < 1000 or prefix == "T":
            return f"{size:.3g} {prefix}{unit}"
        size /= 1000
    return ""


def duration(seconds: float) -> str:
    """``seconds`` in a unit of a handy size."""
    for factor, unit in ((1, "s"), (1e3, "ms"), (1e6, "µs")):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e6:.2g} µs"
