"""The catalogue: every method by one name, as a :class:`Method`.

One name means one thing everywhere: ``Balancer(method=...)``, ``gaba methods``, ``--method`` and
the benchmark.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gaba.late import late
from gaba.methods.catalogue import METHODS, START
from gaba.methods.entry import GROUPS, Entry
from gaba.spelling import letters, nearest

if TYPE_CHECKING:
    from gaba.methods.method import Method
    from gaba.methods.own import settled

__all__ = [
    "GROUPS",
    "METHODS",
    "START",
    "Entry",
    "Method",
    "find",
    "get",
    "listed",
    "settled",
    "spelled",
]

_BY_LETTERS = {letters(name): name for name in METHODS}
_KNOWN_AS = {
    **dict.fromkeys(("ew", "equal", "equalweights", "sum", "plain", "none", "static"), "uniform"),
    **dict.fromkeys(("uw", "kendall", "homoscedastic", "uncertaintyweighting"), "uncertainty"),
    **dict.fromkeys(("constant", "manual", "weights"), "fixed"),
    **dict.fromkeys(("gls", "geometric"), "geometric-mean"),
    **dict.fromkeys(("imtl", "imtll"), "imtl-g"),
    **dict.fromkeys(("stch", "tchebycheff"), "smooth-tchebycheff"),
    **dict.fromkeys(("default", "auto", "tracked"), "gaba"),
    **dict.fromkeys(("inversenorm", "norm", "norms"), "inverse"),
    **dict.fromkeys(("watch", "monitor", "record", "diagnose"), "observe"),
    "si": "scale-invariant",
    "nash": "nash-mtl",
    "equalshares": "equal-share",
    "erc": "equal-share",
}
"""What methods are called elsewhere; suggested, never taken."""


__getattr__ = late(__name__, {"Method": "gaba.methods.method", "settled": "gaba.methods.own"})


def listed() -> dict[str, tuple[Entry, ...]]:
    """All methods, each once, under the headings of a list: those to start with come first.

    Example:
        >>> [entry.name for entry in listed()["start here"]]
        ['gaba', 'observe', 'paper', 'inverse', 'equal-share']
    """
    found = {"start here": tuple(METHODS[name] for name in START)}
    for group, title in GROUPS.items():
        entries = (entry for entry in METHODS.values() if entry.group == group)
        found[title] = tuple(entry for entry in entries if entry.name not in START)
    return found


def find(name: str) -> tuple[Entry, str | None]:
    """The entry that ``name`` means, and its argument, as ``1,20`` in ``fixed:1,20``.

    Case, dashes and underscores do not count: ``"PCGrad"`` finds ``pcgrad``.

    Raises:
        ValueError: there is no such method, or an argument is missing or one too many.

    Example:
        >>> entry, argument = find("single:rul")
        >>> entry.formula, argument
        ('m_TASK = 1, all others 0', 'rul')
    """
    word, colon, argument = name.partition(":")
    entry = METHODS.get(_BY_LETTERS.get(letters(word), ""))
    if entry is None:
        near = _KNOWN_AS.get(letters(word)) or nearest(word, METHODS)
        hint = f" Did you mean {near!r}?" if near else ""
        some = ", ".join(known for known in METHODS if known in START)
        raise ValueError(
            f"method must be one of {some}, ... (`gaba methods` lists all {len(METHODS)}); found "
            f"{name!r}.{hint}"
        )
    if bool(entry.argument) != bool(colon):
        form = f"{entry.name}:ARGUMENT with {entry.argument}" if entry.argument else entry.name
        raise ValueError(f"method {entry.name!r} is written as {form}; found {name!r}")
    return entry, argument if colon else None


def spelled(name: str) -> str:
    """``name`` as the catalogue spells it, with its argument.

    Raises:
        ValueError: as for :func:`find`.

    Example:
        >>> spelled("PCGrad"), spelled("Fixed:1,20")
        ('pcgrad', 'fixed:1,20')
    """
    entry, argument = find(name)
    return entry.name if argument is None else f"{entry.name}:{argument}"


def get(
    name: str | Method, tasks: Sequence[str] = (), shared: Any = None, **settings: Any
) -> Method:
    """The method called ``name``.

    Args:
        name: a key of :data:`METHODS`, with an argument where it needs one: ``"fixed:1,20"``. Of a
            :class:`Method` itself, slots can be changed.
        tasks: the names of the K losses. Methods that name a task need them.
        shared: what the tasks share. ``db-mtl`` and ``gradnorm`` look at it.
        **settings: of the method's rule, and slots of :class:`Method`.

    Raises:
        ValueError: there is no such method, or a setting breaks its rule.
        TypeError: a setting has no such name, or ``name`` is neither a name nor a method.
        ImportError: the method comes from TorchJD, which is not installed.

    Example:
        >>> get("dwa", window=50).rule
        DWA(temperature=2.0, window=50)
        >>> get("fixed:1,3", tasks=["a", "b"]).rule
        Fixed(weights=(1.0, 3.0))
    """
    if not isinstance(name, str):
        return _given(name).replace(**settings)
    entry, argument = find(name)
    if argument is None:
        return entry.build(tasks, shared, **settings)
    return entry.build(tasks, shared, argument=argument, **settings)


def _given(found: object) -> Method:
    """The method that was given in place of a name."""
    from gaba.methods.method import Method
    from gaba.rules import Rule

    if isinstance(found, Method):
        return found
    rule = isinstance(found, Rule) or (isinstance(found, type) and issubclass(found, Rule))
    remedy = "pass gaba.Method(rule)" if rule else "pass method='gaba', or leave it out"
    raise TypeError(f"method must be a name or a gaba.Method, found {_kind(found)}: {remedy}")


def _kind(found: object) -> str:
    name = found.__name__ if isinstance(found, type) else type(found).__name__
    return f"the class {name}" if isinstance(found, type) else name
