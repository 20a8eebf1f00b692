"""Lines of a record as tables of numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
VECTORS = ("losses", "norms", "weights", "saturated")
SCALARS = ("step", "measured", "finite", "gain", "time")


@final
@dataclass(frozen=True)
class Rows:
    """Some steps as a table: n rows of the ``SCALARS``, then K of each of ``VECTORS``.

    Attributes:
        table: (n, 5 + 4K); NaN where a line has null, and where it has no time.
        cosines: (n, K, K), NaN where not measured; None if none of them was.
        lines: which of the lines given the rows came from.
        about: what the lines said of the steps after them.
        error: why the lines after these could not be read, if so.
    """

    table: Floats
    cosines: Floats | None
    lines: list[int]
    about: Mapping[str, str]
    error: str = ""


@final
@dataclass(frozen=True)
class Header:
    """The first line of a record."""

    tasks: tuple[str, ...]
    meta: dict[str, Any]
    version: str


def header(line: bytes, where: str) -> Header:
    """What the first line of a record says.

    Raises:
        ValueError: it is no such line; the message begins with ``where``.
    """
    try:
        found = json.loads(line)
        tasks = tuple(str(task) for task in found["tasks"])
        meta = found.get("meta") or {}
        if not tasks or isinstance(found["tasks"], str) or not isinstance(meta, dict):
            raise ValueError
        return Header(tasks, meta, str(found["gaba"]))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError(
            f"{where}, line 1: not the header of a gaba record "
            '({"gaba": version, "tasks": [...], "meta": {...}}): give the history.jsonl of a run'
        ) from None


def rows(lines: Sequence[bytes], tasks: Sequence[str], where: str, first: int) -> Rows:
    """The steps of ``lines``, of which the first has the number ``first`` in its file.

    They end before the first line that is neither a step nor an ``about``; ``error`` names it,
    after ``where``.
    """
    try:
        return _rows(lines, tasks)
    except _UNREADABLE:
        bad, said = _first_unreadable(lines, tasks)
    error = (
        f"{where}, line {first + bad}: not a step of the tasks {tuple(tasks)} ({said}): "
        "delete the line, or record the run anew"
    )
    return replace(_rows(lines[:bad], tasks), error=error)


def _first_unreadable(lines: Sequence[bytes], tasks: Sequence[str]) -> tuple[int, str]:
    found = ((i, _complaint(line, tasks)) for i, line in enumerate(lines))
    return next((i, said) for i, said in found if said)


def _complaint(line: bytes, tasks: Sequence[str]) -> str:
    try:
        _rows([line], tasks)
    except _UNREADABLE as error:
        said = " ".join(str(error).split()) or type(error).__name__
        return f"no {said}" if isinstance(error, KeyError) else said
    return ""


_UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, RecursionError)


def _rows(lines: Sequence[bytes], tasks: Sequence[str]) -> Rows:
    found: list[list[Any]] = []
    kept: list[int] = []
    cosines: dict[int, Any] = {}
    about: dict[str, str] = {}
    for i, text in enumerate(lines):
        line = json.loads(text)
        if "about" in line:
            about = {str(name): str(value) for name, value in line["about"].items()}
            continue
        if "cosines" in line:
            cosines[len(found)] = line["cosines"]
        row = [line["step"], line["measured"], line["finite"], line["gain"], line.get("time")]
        for name in VECTORS:
            values = line[name]
            row += [values[task] for task in tasks]
        found.append(row)
        kept.append(i)
    k = len(tasks)
    table = np.array(found, dtype=np.float64).reshape(len(found), len(SCALARS) + len(VECTORS) * k)
    if np.isnan(table[:, :3]).any():
        raise ValueError("step, measured or finite is null")
    return Rows(table, _cosines(cosines, len(found), k), kept, about)


def _cosines(found: Mapping[int, Any], n: int, k: int) -> Floats | None:
    if not found:
        return None
    whole = np.full((n, k, k), np.nan)
    for i, values in found.items():
        matrix = np.array(values, dtype=np.float64)
        if matrix.shape != (k, k):
            raise ValueError(f"cosines of shape {matrix.shape}")
        whole[i] = matrix
    return whole
