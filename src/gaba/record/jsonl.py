"""The JSONL file of a run: its one writer, and its one reader, line by line.

Example:
    >>> import gaba
    >>> begun = header(b'{"gaba": "0.2.0", "tasks": ["a", "b"], "meta": {"seed": 3}}', "run.jsonl")
    >>> begun == Header(tasks=("a", "b"), meta={"seed": 3}, version="0.2.0")
    True
    >>> lines = [b'{"about": {"metric": "euclidean"}}', b"oops"]
    >>> parse(lines[0], begun.tasks, "run.jsonl, line 2")
    {'metric': 'euclidean'}
    >>> found = parse_lines(lines, begun.tasks, "run.jsonl")
    >>> isinstance(found, Parsed), found.error[:40]
    (True, 'run.jsonl, line 3: not a step of the tas')
    >>> history = gaba.History(begun.tasks)
    >>> history.add([*found.rows, Row([0.0] * 6 + [1.0] * 10)], found.about)
    >>> history, history.about
    (History(1 step of a, b; imbalance 1 in the median step), {'metric': 'euclidean'})
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple, final, get_args

from gaba.files import named
from gaba.record.step import Combined, Engine, Step

__all__ = ["Header", "Parsed", "Row", "RunRecord", "header", "parse", "parse_lines", "whole_lines"]

SCALARS = ("step", "measured", "combined", "engine", "time", "finite")
VECTORS = ("losses", "norms", "multipliers", "saturated", "shares")
COMBINED: tuple[str, ...] = get_args(Combined)
ENGINES: tuple[str, ...] = get_args(Engine)
ENDING = ("end", "error")
"""What the last line says of the end of a run; it holds for no step."""


class Row(NamedTuple):
    """A step in plain numbers; NaN where a value is not known.

    ``numbers`` holds the values of ``SCALARS``, with ``combined`` as its place in ``COMBINED`` and
    ``engine`` as its place in ``ENGINES``, then K of each of ``VECTORS``. ``cosines`` holds K · K
    numbers where the Gramian was measured, ``others`` the value of what is no task, and ``groups``
    K norms for each part of the shared module.
    """

    numbers: list[float]
    cosines: list[float] | None = None
    others: dict[str, list[float]] | None = None
    groups: dict[str, list[float]] | None = None


@final
@dataclass(frozen=True)
class Header:
    """The first line of a record: the K task names, what was said of the run, and by which gaba."""

    tasks: tuple[str, ...]
    meta: dict[str, Any]
    version: str


@final
@dataclass(frozen=True)
class Parsed:
    """What some lines of a record hold.

    Attributes:
        rows: the steps.
        lines: from which of the lines each step came.
        about: what the lines say of many steps; empty if nothing.
        error: why the lines after the last step could not be read; empty if they could.
    """

    rows: list[Row]
    lines: list[int]
    about: dict[str, str]
    error: str = ""


@final
class RunRecord:
    """The JSONL file of a run, a line a step, written as the run goes on.

    The first line is ``{"gaba": version, "tasks": [...], "meta": {...}}``. A line
    ``{"about": {...}}`` holds :attr:`Step.about` of the steps that follow. Every other line is
    :meth:`Step.asdict` and ``"time"``, in seconds since 1970. Lines of older versions have no
    ``"engine"``: they were measured by norms, if at all.

    Args:
        path: the file. A new one is made, with its folder.
        tasks: the K names.
        meta: what to remember of the run, as JSON.
        resume_at: continue an existing file. Its steps from this number on are dropped, because
            they are about to be made again.

    Raises:
        FileExistsError: the file exists and ``resume_at`` is not given.
        ValueError: the existing file is of other tasks or malformed, or ``meta`` is not JSON.

    Example:
        >>> import tempfile, gaba
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with gaba.RunRecord(f"{folder}/run.jsonl", ["rul", "health"]) as record:
        ...         pass  # record.write(step) for each step
        ...     len(gaba.History.read(record.path))
        0
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        tasks: Sequence[str],
        meta: Mapping[str, Any] | None = None,
        resume_at: int | None = None,
    ) -> None:
        self.path: Path = Path(path)
        self.tasks: tuple[str, ...] = tuple(tasks)
        self._about: dict[str, str] = {}
        begin = {"gaba": metadata.version("gaba"), "tasks": list(tasks), "meta": dict(meta or {})}
        try:
            begun = _line(begin)
        except (TypeError, ValueError) as error:
            raise ValueError(f"meta must be JSON, found a value that is not: {error}") from None
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if resume_at is not None and self.path.exists() and (lines := whole_lines(self.path)):
            partial = self.path.with_name(self.path.name + ".partial")
            kept = b"".join(line + b"\n" for line in self._kept(lines, resume_at))
            with named(partial):
                partial.write_bytes(kept)
            partial.replace(self.path)
        elif self.path.exists() and resume_at is None:
            raise FileExistsError(
                f"{self.path} exists: resume the run, delete the file or choose another path"
            )
        else:
            with named(self.path):
                self.path.write_text(begun, encoding="utf-8")
        self._file: IO[str] = self.path.open("a", encoding="utf-8")

    def _kept(self, lines: Sequence[bytes], resume_at: int) -> list[bytes]:
        found = header(lines[0], self.path).tasks
        if found != self.tasks:
            raise ValueError(f"{self.path} is of the tasks {found}, expected {self.tasks}")
        kept = [lines[0]]
        for number, line in enumerate(lines[1:], start=2):
            parsed = parse(line, self.tasks, f"{self.path}, line {number}")
            if not isinstance(parsed, Row):
                if "end" not in parsed:  # the run goes on
                    self._about = parsed
                    kept.append(line)
            elif parsed.numbers[0] < resume_at:
                kept.append(line)
        return kept

    def write(self, step: Step) -> None:
        """Append ``step`` and hand the line to the system. Waits for the device.

        Raises:
            OSError: it cannot be written, on a full disk for instance; the message names the file.
        """
        lines = _line({**step.asdict(), "time": round(step.time, 4)})
        if step.about != self._about:
            self._about = dict(step.about)
            lines = _line({"about": self._about}) + lines
        with named(self.path):
            self._file.write(lines)
            self._file.flush()

    def close(self) -> None:
        """Close the file, with a line that the run is finished."""
        self._end({"end": "finished"})

    def _end(self, said: Mapping[str, str]) -> None:
        if not self._file.closed:
            with named(self.path):
                self._file.write(_line({"about": {**self._about, **said}}))
                self._file.close()

    def __enter__(self) -> RunRecord:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            why = " ".join(f"{kind.__name__}: {value}".split())
            self._end({"end": "failed", "error": why.removesuffix(":")[:500]})


def whole_lines(path: str | os.PathLike[str]) -> list[bytes]:
    """The lines of ``path`` that end in a line feed. One that is still being written does not.

    Example:
        >>> whole_lines("run.jsonl")[0]  # doctest: +SKIP
        b'{"gaba": "0.2.0", "tasks": ["rul", "health"], "meta": {}}'
    """
    return Path(path).read_bytes().split(b"\n")[:-1]


def header(line: bytes, path: str | os.PathLike[str]) -> Header:
    """What the first line of the record ``path`` says; numbers that are not finite are None.

    Raises:
        ValueError: it is no such line. The message names the file.
    """
    try:
        found = _HEADERS(line.decode())
        tasks = tuple(str(task) for task in found["tasks"])
        meta = found.get("meta") or {}
        if not tasks or not isinstance(found["tasks"], list) or not isinstance(meta, dict):
            raise ValueError
        return Header(tasks, meta, str(found["gaba"]))
    except _UNREADABLE:
        raise ValueError(
            f"{path}, line 1: not the header of a gaba record "
            '({"gaba": version, "tasks": [...], "meta": {...}}): give the history.jsonl of a run'
        ) from None


def parse(line: bytes, tasks: Sequence[str], where: str) -> Row | dict[str, str]:
    """The step that a line of a record holds, or what the line says of the steps after it.

    A line of gaba 0.1.0 has weights and a gain in place of multipliers: m_k = gain · λ_k.

    Raises:
        ValueError: it is neither. The message begins with ``where``, the file and the line.
    """
    try:
        found = _STEPS(line.decode())
        if "about" in found:
            return {str(name): str(value) for name, value in found["about"].items()}
        return _row(found, tasks)
    except _UNREADABLE as error:
        said = " ".join(str(error).split()) or type(error).__name__
        said = f"no {said}" if isinstance(error, KeyError) else said
        raise ValueError(
            f"{where}: not a step of the tasks {tuple(tasks)} ({said}): "
            "delete the line, or record the run again"
        ) from None


def parse_lines(
    lines: Iterable[bytes], tasks: Sequence[str], path: str | os.PathLike[str], first: int = 2
) -> Parsed:
    """The steps of ``lines``, up to the first line that is malformed; ``error`` names that one.

    Args:
        lines: whole lines, without their line feeds.
        tasks: the K names.
        path: the file, for the message.
        first: the number that the first of the lines has in the file.
    """
    rows: list[Row] = []
    kept: list[int] = []
    about: dict[str, str] = {}
    for i, line in enumerate(lines):
        try:
            found = parse(line, tasks, f"{path}, line {first + i}")
        except ValueError as error:
            return Parsed(rows, kept, about, str(error))
        if isinstance(found, Row):
            rows.append(found)
            kept.append(i)
        else:
            about = found
    return Parsed(rows, kept, about)


def _row(found: Mapping[str, Any], tasks: Sequence[str]) -> Row:
    measured, finite, combined = found["measured"], found["finite"], found["combined"]
    engine = found.get("engine", "norms" if measured else "")
    known = combined in COMBINED and engine in ENGINES
    if measured not in (True, False) or finite not in (True, False) or not known:
        raise ValueError("measured and finite must be true or false, combined and engine known")
    losses, norms, saturated = (
        _numbers(found[name][task] for task in tasks) for name in ("losses", "norms", "saturated")
    )
    if "multipliers" in found:
        multipliers = _numbers(found["multipliers"][task] for task in tasks)
    else:
        weights, gain = found["weights"], _number(found["gain"])
        pairs = zip(_numbers(weights[task] for task in tasks), losses, strict=True)
        multipliers = [
            math.nan if weight == 0 and math.isnan(loss) else gain * weight
            for weight, loss in pairs
        ]
    scalars = (
        _whole(found["step"]),
        float(measured),
        float(COMBINED.index(combined)),
        float(ENGINES.index(engine)),
        _number(found.get("time")),
        float(finite),
    )
    cosines, k = found.get("cosines"), len(tasks)
    if cosines is not None:
        if len(cosines) != k or any(len(line) != k for line in cosines):
            raise ValueError(f"cosines must be {k} lists of {k} numbers")
        cosines = _numbers(value for line in cosines for value in line)
    if (given := found.get("shares")) is not None:
        shares = _numbers(given[task] for task in tasks)
    elif cosines is not None:
        shares = _shares(multipliers, norms, cosines)
    else:
        shares = [math.nan] * k
    others = {str(name): [_number(value)] for name, value in found.get("others", {}).items()}
    groups = {
        str(name): _numbers(values[task] for task in tasks)
        for name, values in found.get("groups", {}).items()
    }
    numbers = [*scalars, *losses, *norms, *multipliers, *saturated, *shares]
    return Row(numbers, cosines, others, groups)


def _shares(multipliers: list[float], norms: list[float], cosines: list[float]) -> list[float]:
    """s_k = c_k Σ_l cos_kl c_l / Σ_jl c_j cos_jl c_l with c = m g; 0 for a missing task.

    A task whose gradient is 0 has no angles and adds nothing.
    """
    k = len(norms)
    pulls = [0.0 if math.isnan(m) else m * g for m, g in zip(multipliers, norms, strict=True)]
    pulling = [i for i in range(k) if pulls[i] != 0]
    parts = [pulls[i] * sum(cosines[i * k + j] * pulls[j] for j in pulling) for i in pulling]
    total = sum(parts)
    shares = [math.nan if total == 0 or math.isnan(total) else 0.0] * k
    for i, part in zip(pulling, parts, strict=True):
        shares[i] = part / total if total else math.nan
    return shares


def _whole(step: Any) -> float:
    if not abs(number := float(int(step))) < 2**63:
        raise ValueError(f"step must be an integer of 64 bits, found {number:g}")
    return number


def _number(value: Any) -> float:
    return math.nan if value is None else value + 0.0


def _numbers(values: Iterable[Any]) -> list[float]:
    return [math.nan if value is None else value + 0.0 for value in values]


def _line(value: Mapping[str, Any]) -> str:
    return json.dumps(value, allow_nan=False) + "\n"


def _nothing(name: str) -> None:
    """What ``NaN`` and ``Infinity`` stand for, which are no JSON."""


def _finite(digits: str) -> float | None:
    return number if math.isfinite(number := float(digits)) else None


_UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
_STEPS: Callable[[str], Any] = json.JSONDecoder(parse_constant=_nothing).decode
_HEADERS: Callable[[str], Any] = json.JSONDecoder(
    parse_constant=_nothing, parse_float=_finite
).decode
