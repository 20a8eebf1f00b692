"""How a diagnosis writes figures and names."""

from __future__ import annotations

import math
from collections.abc import Sequence

LISTED_PARTS = 8  # and so for parts of the shared module
LISTED_TASKS = 4  # more tasks than these do not fit into a sentence; the figures have them all


def times(ratio: float) -> str:
    """A ratio with three digits that mean something: 1.08, 25.4, 500, 12,300, 3e+12, infinitely."""
    if not math.isfinite(ratio):
        return "infinitely many"
    if ratio >= 1e6:
        return f"{ratio:.0e}"
    if ratio >= 1000:
        return f"{round(ratio, 2 - math.floor(math.log10(ratio))):,.0f}"
    return f"{ratio:.{2 if ratio < 10 else 1 if ratio < 100 else 0}f}"


def factor(ratio: float) -> str:
    """A factor to write into a loss, with two digits.

    Example:
        >>> factor(208.3), factor(2.54), factor(4996.0)
        ('210', '2.5', '5,000')
    """
    return f"{float(f'{ratio:.2g}'):,.12g}" if ratio < 1e6 else f"{ratio:.1e}"


def percent(share: float) -> str:
    """A share as a percentage that shows 0 and 100 only when they are exact.

    Example:
        >>> percent(0.668), percent(0.25), percent(0.9996), percent(1.0), percent(0.0001)
        ('66.8 %', '25.0 %', 'over 99.9 %', '100 %', 'under 0.1 %')
    """
    if share in (0.0, 1.0):
        return f"{share:.0%}".replace("%", " %")
    if share < 0.001:
        return "under 0.1 %"
    if share > 0.999:
        return "over 99.9 %"
    return f"{100 * share:.1f} %"


def weights_text(weights: Sequence[float], tasks: Sequence[str]) -> str:
    """Weights as ``0.048/0.952 (rul/health)``; the smallest decides the digits, up to six."""
    if len(tasks) > LISTED_TASKS:
        return f"{len(tasks)} weights from {min(weights):.3g} to {max(weights):.3g}"
    positive = [weight for weight in weights if weight > 0]
    digits = min(6, max(3, 1 - math.floor(math.log10(min(positive))))) if positive else 3
    return f"{'/'.join(f'{weight:.{digits}f}' for weight in weights)} ({'/'.join(tasks)})"


def named(tasks: Sequence[str], last: str = "and") -> str:
    """Task names in quotes, joined for a sentence.

    Example:
        >>> named(["a"]), named(["a", "b", "c"])
        ("'a'", "'a', 'b' and 'c'")
    """
    quoted = [f"'{task}'" for task in tasks]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} {last} {quoted[-1]}"


def briefly(tasks: Sequence[str]) -> str:
    """Task names for a sentence of one line: those that do not fit are counted.

    Example:
        >>> briefly(["a", "b"]), briefly(["a", "b", "c", "d", "e"])
        ("'a' and 'b'", "'a', 'b' and 3 others")
    """
    if len(tasks) <= 3:
        return named(tasks)
    return f"'{tasks[0]}', '{tasks[1]}' and {len(tasks) - 2} others"
