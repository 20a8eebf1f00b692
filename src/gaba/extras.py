"""Optional libraries: where one is absent, one line gives the command that installs it."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gaba.folders import source_tree

KNOWN_AS = {"sklearn": "scikit-learn", "scikit_posthocs": "scikit-posthocs"}
"""What a library is called where that is not the name of its module."""


def install(*extras: str) -> str:
    """The command that adds ``extras`` to gaba as it is installed here.

    From a clone it is ``pip install -e ".[cli]"``, with the path of the clone if that is not the
    current folder; otherwise ``pip install "gaba[cli]"``.

    Example:
        >>> install("cli", "turbofan").endswith('[cli,turbofan]"')
        True
    """
    names, tree = ",".join(extras), source_tree()
    if tree is None:
        return f'pip install "gaba[{names}]"'
    return f'pip install -e "{"." if tree == Path.cwd() else tree}[{names}]"'


@contextmanager
def needs(what: str, extra: str, *modules: str) -> Iterator[None]:
    """Wrap an import of ``modules``: if one is absent, the error is one line that says what to do.

    An import that fails although all of them are there fails as it would without this.

    Args:
        what: Who needs them, up to the verb: ``"pictures need"``.
        extra: The extra that brings them.
        modules: The top-level modules of that extra.

    Raises:
        ImportError: One of them is not installed; its name is in ``name``.

    Example:
        >>> with needs("pictures need", "plots", "no_such_thing"):
        ...     import no_such_thing
        Traceback (most recent call last):
            ...
        ImportError: pictures need no_such_thing, which is not installed: pip install ...
    """
    try:
        yield
    except ImportError as error:
        for module in modules:
            if importlib.util.find_spec(module) is None:
                raise ImportError(
                    f"{what} {KNOWN_AS.get(module, module)}, which is not installed: "
                    f"{install(extra)}",
                    name=module,
                ) from error
        raise


def library(module: str, what: str, extra: str) -> Any:
    """``module``, imported; see :func:`needs`."""
    with needs(what, extra, module.partition(".")[0]):
        return importlib.import_module(module)
