"""Where the applications look for data."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

ENVIRONMENT = "GABA_DATA"
"""The environment variable that names the folder with the data."""


def find(
    name: str,
    holds: Callable[[Path], bool],
    data_dir: str | Path | None,
    absent: Callable[[str], FileNotFoundError],
) -> Path:
    """The first folder that ``holds`` the data: a place (see :func:`places`), or ``name`` in it.

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
    """Where data are looked for; a place that the caller or the environment names is the only one.

    In this order: ``data_dir``; ``GABA_DATA``; ``data`` and ``../shared/data``, in the current
    directory and in the project.
    """
    if data_dir is not None:
        return [Path(data_dir).expanduser()]
    if named := os.environ.get(ENVIRONMENT):
        return [Path(named).expanduser()]
    roots = [Path()]
    project = Path(__file__).resolve().parents[2]
    if (project / "pyproject.toml").is_file() and project != Path.cwd():
        roots.append(project)
    return [
        *(root / "data" for root in roots),
        *(root / ".." / "shared" / "data" for root in roots),
    ]
