"""Names of a package that are loaded when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from typing import Any


def late(
    package: str, where: Mapping[str, str], modules: Collection[str] = ()
) -> Callable[[str], Any]:
    """The ``__getattr__`` of a package whose names stand in other modules.

    Args:
        package: its ``__name__``.
        where: in which module each name stands. No module of the package may have that name.
        modules: names of its modules.

    Example:
        >>> late("gaba", {"sqrt": "math"})("sqrt")(9.0)
        3.0
        >>> late("importlib", {}, ["metadata"])("metadata").__name__
        'importlib.metadata'
    """

    def __getattr__(name: str) -> Any:  # noqa: N807 - what Python calls it
        if name in where:
            return getattr(import_module(where[name]), name)
        if name in modules:
            return import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return __getattr__
