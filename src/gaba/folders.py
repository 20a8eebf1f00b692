"""Where things are: the source tree that gaba runs from, and the folders with data."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

ENVIRONMENT = "GABA_DATA"
"""The environment variable that names the folder with the data."""


def source_tree() -> Path | None:
    """The clone that this package lies in, or None if it was installed from a wheel."""
    package = Path(__file__).resolve().parent
    tree = package.parents[1]
    in_tree = package.parent.name == "src" and (tree / "pyproject.toml").is_file()
    return tree if in_tree else None


def find(
    name: str,
    holds: Callable[[Path], bool],
    data_dir: str | Path | None,
    absent: Callable[[str], FileNotFoundError],
) -> Path:
    """The first folder that ``holds`` the data: one of :func:`places`, or ``name`` in it.

    Raises:
        FileNotFoundError: There is none; ``absent`` makes it of the places, in words.
    """
    looked = places(data_dir)
    for place in looked:
        for folder in (place, place / name):
            if holds(folder):
                return folder
    raise absent(" or ".join(dict.fromkeys(str(place) for place in looked)))


def places(data_dir: str | Path | None) -> list[Path]:
    """The folders to look for data in; if you name one, it is the only one.

    In this order: ``data_dir``; ``GABA_DATA``; ``data`` and ``../shared/data``, in the current
    directory and in the source tree.
    """
    if named := data_dir or os.environ.get(ENVIRONMENT):
        return [Path(named).expanduser()]
    tree = source_tree()
    roots = [Path()] if tree in (None, Path.cwd()) else [Path(), tree]
    return [root / data for data in ("data", "../shared/data") for root in roots]
