"""Checks of a rule's settings; each message names the rule, what was found, and the remedy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any


def check_number(rule: object, name: str, hint: str, *, zero: bool = False) -> None:
    """Refuse a setting that is not finite and positive (or 0, where ``zero`` allows it)."""
    _check(rule, name, getattr(rule, name), hint, zero)


def check_count(rule: object, name: str, hint: str, *, least: int = 1) -> None:
    """Refuse a setting that is no int of at least ``least``."""
    value: Any = getattr(rule, name)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(
            f"{type(rule).__name__}: {name} must be an int of at least {least}, found {value!r}; "
            f"{hint}"
        )


def check_position(rule: object, name: str, n_tasks: int) -> None:
    """Refuse a setting that is not the position of one of K = ``n_tasks`` tasks."""
    value: int = getattr(rule, name)
    if not 0 <= value < n_tasks:
        raise ValueError(
            f"{type(rule).__name__}: {name} must be the position of one of the {n_tasks} tasks, "
            f"found {value}; positions count from 0"
        )


def check_each(rule: object, name: str, n_tasks: int) -> None:
    """Refuse a setting that does not hold one value for each of K = ``n_tasks`` tasks."""
    values: Sequence[float] = getattr(rule, name)
    if len(values) != n_tasks:
        raise ValueError(
            f"{type(rule).__name__}: {name} must hold one value a task, found {len(values)} for "
            f"{n_tasks} tasks; give {n_tasks}"
        )


def keep_ratios(rule: object, name: str, *, zero: bool = False) -> None:
    """Keep a setting of one number a task as a tuple, if all are finite and positive (or 0)."""
    numbers = tuple(float(value) for value in getattr(rule, name))
    if not numbers:
        raise ValueError(
            f"{type(rule).__name__}: {name} must hold one value a task, found none; give at least "
            "one"
        )
    for number in numbers:
        _check(rule, name, number, "give one such value a task", zero)
    object.__setattr__(rule, name, numbers)


def _check(rule: object, name: str, value: float, hint: str, zero: bool) -> None:
    if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        bound = "zero or more" if zero else "positive"
        raise ValueError(
            f"{type(rule).__name__}: {name} must be finite and {bound}, found {value!r}; {hint}"
        )
