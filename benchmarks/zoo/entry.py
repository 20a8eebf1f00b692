"""What one public training code says of itself, and how a line of it is changed."""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, final

from torch import nn


@final
@dataclass(frozen=True)
class Entry:
    """A public training code.

    Args:
        title: what it is, for the table.
        package: from which distributions on PyPI the model or the trainer comes.
        metric: the name of its main figure, with its unit.
        better: which way the figure improves.
        tasks: the losses that a sensible user balances.
        fixed: the losses that a sensible user leaves as they are, and why.
        why_fixed: one sentence for the table; empty without ``fixed``.
    """

    title: str
    package: str
    metric: str
    better: Literal["higher", "lower"]
    tasks: tuple[str, ...]
    fixed: tuple[str, ...] = ()
    why_fixed: str = ""

    @property
    def terms(self) -> tuple[str, ...]:
        """Everything that the code adds up."""
        return (*self.tasks, *self.fixed)


@final
@dataclass(frozen=True)
class Outcome:
    """How a training ended: the main figure, and the model, whose parameters are compared."""

    figure: float
    model: nn.Module
    others: Mapping[str, float] = field(default_factory=dict)


def changed(function: Callable[..., Any], lines: Mapping[str, str], **names: Any) -> Any:
    r"""``function`` of a public package with single lines changed; nothing else is touched.

    Args:
        function: a function or an unbound method that is plain Python.
        lines: the new line by the old one, without the indent.
        names: what the new lines need besides the globals of the function's module.

    Raises:
        ValueError: an old line is not there exactly once: the package has another version.

    Example:
        >>> from textwrap import fill
        >>> short = changed(fill, {"w = TextWrapper(width=width, **kwargs)": "w = Narrow()"},
        ...     Narrow=lambda: __import__("textwrap").TextWrapper(5))
        >>> short("one two")
        'one\ntwo'
    """
    source = textwrap.dedent(inspect.getsource(function)).splitlines()
    for old, new in lines.items():
        at = [n for n, line in enumerate(source) if line.strip() == old]
        if len(at) != 1:
            raise ValueError(
                f"{function.__qualname__} must have the line {old!r} once, found it {len(at)} "
                "times: install the versions of requirements/zoo.txt"
            )
        indent = source[at[0]][: -len(source[at[0]].lstrip())]
        source[at[0]] = textwrap.indent(textwrap.dedent(new), indent)
    scope = {**vars(sys.modules[function.__module__]), **names}
    filename = f"<{function.__qualname__}, changed>"
    exec(compile("\n".join(source), filename, "exec", dont_inherit=True), scope)
    return scope[function.__name__]
