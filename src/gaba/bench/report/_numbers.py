"""Numbers in words."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gaba.bench.statistics import Interval


def figure(value: float, digits: int = 4) -> str:
    """``value`` in few digits; a dash where there is none."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "infinite" if value > 0 else "−infinite"
    return f"{value:.{digits}g}".replace("-", "−")


def percent(value: float, digits: int = 1) -> str:
    """A part of 1 in per cent, with its sign."""
    if not math.isfinite(value):
        return figure(value)
    text = f"{100 * value:+.{digits}f}"
    return f"{text.replace('-', '−') if float(text) else text[1:]} %"


def interval(at: Interval) -> str:
    """``mean [low, high]``, to two digits of its width; the mean alone where there is no width."""
    width = at.high - at.low
    if not (math.isfinite(width) and width > 0):
        return figure(at.estimate)
    digits = 1 - math.floor(math.log10(width))
    if not 0 <= digits <= 6:
        return f"{figure(at.estimate)} [{figure(at.low)}, {figure(at.high)}]"
    mean, low, high = (f"{v:.{digits}f}" for v in (at.estimate, at.low, at.high))
    return f"{mean} [{low}, {high}]".replace("-", "−")


def percents(at: Interval) -> str:
    """``mean [low, high] %``; the mean alone where one value tells nothing of its spread."""
    if math.isnan(at.low):
        return percent(at.estimate)
    mean, low, high = (percent(v).removesuffix(" %") for v in (at.estimate, at.low, at.high))
    return f"{mean} [{low}, {high}] %"


def chance(p: float) -> str:
    """A p value."""
    if math.isnan(p):
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3g}"


def count(n: int, noun: str) -> str:
    """``1 seed``, ``2 seeds``."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def listed(names: Sequence[str], most: int | None = None) -> str:
    """``a, b and c``; of more than ``most`` the first ones and how many more."""
    if most is not None and len(names) > most + 1:
        names = [*names[:most], f"{len(names) - most} more"]
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
