"""The catalogue: every method by one name, as a :class:`Method`.

One name means one thing everywhere: ``Balancer(method=...)``, ``gaba methods``, ``--method`` and
the benchmark.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from gaba.methods.entry import Entry
from gaba.methods.method import Method
from gaba.methods.own import CONTROLS, OWN, settled
from gaba.methods.peers import PEERS
from gaba.methods.published import PUBLISHED
from gaba.methods.relatives import RELATIVES

__all__ = ["METHODS", "Entry", "Method", "find", "get", "settled"]

METHODS: Mapping[str, Entry] = MappingProxyType(
    {entry.name: entry for entry in (*OWN, *CONTROLS, *PUBLISHED, *RELATIVES, *PEERS)}
)
"""All methods by name."""


def find(name: str) -> tuple[Entry, str | None]:
    """The entry that ``name`` means, and its argument, as ``1,20`` in ``fixed:1,20``.

    Raises:
        ValueError: there is no such method, or an argument is missing or one too many.

    Example:
        >>> entry, argument = find("single:rul")
        >>> entry.formula, argument
        ('m_TASK = 1, all others 0', 'rul')
    """
    word, colon, argument = name.partition(":")
    if word not in METHODS:
        near = difflib.get_close_matches(word, METHODS, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"method must be one of {', '.join(METHODS)}; found {name!r}.{hint}")
    entry = METHODS[word]
    if bool(entry.argument) != bool(colon):
        form = f"{word}:ARGUMENT with {entry.argument}" if entry.argument else word
        raise ValueError(f"method {word!r} is written as {form}; found {name!r}")
    return entry, argument if colon else None


def get(name: str, tasks: Sequence[str] = (), shared: Any = None, **settings: Any) -> Method:
    """The method called ``name``.

    Args:
        name: a key of :data:`METHODS`, with an argument where it needs one: ``"fixed:1,20"``.
        tasks: the names of the K losses. Methods that name a task need them.
        shared: what the tasks share. ``db-mtl`` and ``gradnorm`` look at it.
        **settings: of the method's rule, and slots of :class:`Method`.

    Raises:
        ValueError: there is no such method, or a setting breaks its rule.
        TypeError: a setting has no such name.
        ImportError: the method comes from TorchJD, which is not installed.

    Example:
        >>> get("dwa", window=50).rule
        DWA(temperature=2.0, window=50)
        >>> get("fixed:1,3", tasks=["a", "b"]).rule
        Fixed(weights=(1.0, 3.0))
    """
    entry, argument = find(name)
    if argument is None:
        return entry.build(tasks, shared, **settings)
    return entry.build(tasks, shared, argument=argument, **settings)
