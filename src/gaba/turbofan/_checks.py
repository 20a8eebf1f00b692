"""One check of a number's range, with one wording."""

from __future__ import annotations

import operator

_RULES = (
    ("above", operator.gt),
    ("at least", operator.ge),
    ("below", operator.lt),
    ("at most", operator.le),
)


def check(
    name: str,
    value: float,
    *,
    above: float | None = None,
    least: float | None = None,
    below: float | None = None,
    most: float | None = None,
) -> None:
    """Check that ``value`` keeps the bounds given.

    Raises:
        ValueError: It does not, or is NaN.

    >>> check("dropout", 1.0, least=0, below=1)
    Traceback (most recent call last):
        ...
    ValueError: dropout must be at least 0 and below 1, found 1.0
    """
    bounds = zip(_RULES, (above, least, below, most), strict=True)
    asked = [(word, holds, bound) for (word, holds), bound in bounds if bound is not None]
    if not all(holds(value, bound) for _, holds, bound in asked):
        rule = " and ".join(f"{word} {bound}" for word, _, bound in asked)
        raise ValueError(f"{name} must be {rule}, found {value}")
