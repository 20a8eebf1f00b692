"""How the commands write to a terminal or a pipe."""

from __future__ import annotations

import math
import sys
import textwrap

from rich import box
from rich.console import Console
from rich.table import Table

WIDTH = 100
"""Of the output if it does not go to a terminal."""


def console() -> Console:
    """Stdout, plain and of a fixed width unless it is a terminal."""
    terminal = sys.stdout.isatty()
    return Console(width=None if terminal else WIDTH, highlight=False, soft_wrap=not terminal)


def table(first: str, *columns: str) -> Table:
    """An empty table; all columns but the first are for figures."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    made.add_column(first)
    for name in columns:
        made.add_column(name, justify="right")
    return made


def paragraph(label: str, text: str) -> str:
    """``label: text``, wrapped and indented."""
    return textwrap.fill(
        f"{label}: {text}",
        WIDTH,
        initial_indent="  ",
        subsequent_indent="    ",
        break_on_hyphens=False,
    )


def short(value: float | None) -> str:
    """A figure with three digits, a dash for none.

    >>> short(1234.5), short(0.04761), short(float("nan")), short(None)
    ('1234', '0.0476', '–', '–')
    """
    if value is None or math.isnan(value):
        return "–"
    return f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"
