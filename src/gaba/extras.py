"""Optional libraries: where one is absent, one line says which extra brings it."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

KNOWN_AS = {"sklearn": "scikit-learn"}
"""What a library is called where that is not the name of its module."""


@contextmanager
def needs(what: str, extra: str, *modules: str) -> Iterator[None]:
    """For an import of ``modules`` within: the absence of one is one line that names the extra.

    An import that fails although all of them are there fails as it would without this.

    Args:
        what: who needs them, in the plural or the singular, up to the verb: ``"pictures need"``.
        extra: of ``pip install "gaba[EXTRA]"``.
        modules: the top-level modules that this extra brings.

    Raises:
        ImportError: one of them is not installed; its name is in ``name``.

    Example:
        >>> with needs("pictures need", "plots", "no_such_thing"):
        ...     import no_such_thing
        Traceback (most recent call last):
            ...
        ImportError: pictures need no_such_thing, which is not installed: pip install "gaba[plots]"
    """
    try:
        yield
    except ImportError as error:
        for module in modules:
            if importlib.util.find_spec(module) is None:
                raise ImportError(
                    f"{what} {KNOWN_AS.get(module, module)}, which is not installed: "
                    f'pip install "gaba[{extra}]"',
                    name=module,
                ) from error
        raise


def library(module: str, what: str, extra: str) -> Any:
    """``module``, imported; see :func:`needs`."""
    with needs(what, extra, module.partition(".")[0]):
        return importlib.import_module(module)
