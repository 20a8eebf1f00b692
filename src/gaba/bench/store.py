"""The store of results: one SQLite file, a row a finished training."""

from __future__ import annotations

import datetime
import json
import os
import platform
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, final

import numpy as np
import torch

import gaba
from gaba.bench.trial import Trial
from gaba.extras import library

__all__ = ["Row", "Store", "versions"]

_COLUMNS = {
    "key": "TEXT PRIMARY KEY",
    "problem": "TEXT",
    "method": "TEXT",
    "optimizer": "TEXT",
    "learning_rate": "REAL",
    "weight_decay": "REAL",
    "seed": "INTEGER",
    "steps": "INTEGER",
    "stage": "TEXT",
    "config": "TEXT",
    "versions": "TEXT",
    "result": "TEXT",
    "finished_at": "TEXT",
}
_JSON = ("config", "versions", "result")
_PLACES = ("spec", "data_dir")
_WAIT = 60.0  # seconds for which a second process may hold the file

EDITION = 2
"""The edition of a new store, in ``PRAGMA user_version``. Stores of 0.1.0 have 0 there."""
NAMES_OF_0_1 = {"gaba": "paper"}
"""Methods of 0.1.0 that have another name now. Its default was ``inverse``."""


@final
@dataclass(frozen=True)
class Row:
    """A finished training in the store.

    Attributes:
        key: :attr:`gaba.bench.Trial.key`.
        problem, method, optimizer, learning_rate, weight_decay, seed, steps, stage: of the trial.
        config: all settings of the trial, ``multipliers`` among them.
        versions: what it ran with: gaba, torch, numpy, python and the processor.
        result: what :func:`gaba.bench.run_trial` returned; ``error`` is text if it raised.
        finished_at: when, in UTC.

    Example:
        >>> row = Row(
        ...     "a1", "conflict-toy", "gaba", "sgd", 0.1, 0.0, 0, 10, "final",
        ...     config={}, versions={}, result={"quality": 0.5, "error": None},
        ...     finished_at="2026-01-31T12:00:00+00:00",
        ... )
        >>> row.failed
        False
    """

    key: str
    problem: str
    method: str
    optimizer: str
    learning_rate: float
    weight_decay: float
    seed: int
    steps: int
    stage: str
    config: Mapping[str, Any]
    versions: Mapping[str, str]
    result: Mapping[str, Any]
    finished_at: str

    @property
    def failed(self) -> bool:
        """Whether it raised an error; one that diverged has not failed, that is a result."""
        return self.result.get("error") is not None


@final
class Store:
    """Every finished training of a benchmark, in one SQLite file.

    A row is written at once and whole, and survives whatever happens to the process afterwards.
    ``config``, ``versions`` and ``result`` hold JSON, with ``NaN`` and ``Infinity`` where a figure
    is not finite. ``method`` is a name of :data:`gaba.methods.METHODS`, ``fixed-tuned``,
    ``fixed-sweep`` or ``frozen:NAME``. ``stage`` is ``tune`` (chooses rate and decay), ``grid``
    (the same of ``fixed-sweep``, which chooses the weights too) or ``final`` (is reported).

    A store of 0.1.0 (:attr:`edition` 0) can be read: its methods have their names of today in the
    rows. It cannot be written to, because its losses were scaled otherwise.

    Only the process that opened it can use it: workers return their results to it.

    Args:
        path: the file; made, with its folder, if it is absent.
        read_only: write nothing, and raise if there is no file.

    Raises:
        FileNotFoundError: ``read_only``, and there is none.
        ValueError: the file is not such a store, or is one of 0.1.0 and not ``read_only``.

    Example:
        >>> import tempfile
        >>> trial = Trial("conflict-toy", "uniform", "adam", 1e-3, 0.0, seed=0, steps=10)
        >>> with tempfile.TemporaryDirectory() as folder, Store(f"{folder}/runs.sqlite") as store:
        ...     store.put(trial, {"quality": 0.5, "error": None})
        ...     trial.key in store, len(store), store.rows(method="uniform")[0].result["quality"]
        (True, 1, 0.5)
    """

    def __init__(self, path: str | os.PathLike[str], *, read_only: bool = False) -> None:
        self.path: Path = Path(path)
        self._read_only = read_only
        if read_only and not self.path.is_file():
            raise FileNotFoundError(
                f"no store of results at {self.path}: make it with gaba bench run CONFIG"
            )
        if not read_only:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        mode = "ro" if read_only else "rwc"
        self._db = sqlite3.connect(
            f"{self.path.resolve().as_uri()}?mode={mode}", uri=True, timeout=_WAIT
        )
        try:
            self.edition = self._open()
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise ValueError(f"{self.path} is not a store of results: {error}") from error
        except ValueError:
            self._db.close()
            raise

    def _open(self) -> int:
        """The edition of the file, whose table is made if there is none."""
        found = self._columns()
        if not found and not self._read_only:
            columns = ", ".join(f"{name} {kind}" for name, kind in _COLUMNS.items())
            with self._db:
                self._db.execute(f"PRAGMA user_version = {EDITION}")
                self._db.execute(f"CREATE TABLE IF NOT EXISTS runs ({columns})")
            found = self._columns()
        if found != tuple(_COLUMNS):
            raise ValueError(
                f"{self.path} is not a store of results: its table has the columns "
                f"{', '.join(found) or 'none'}: give another file"
            )
        edition = int(self._db.execute("PRAGMA user_version").fetchone()[0])
        if not self._read_only:
            if edition != EDITION:
                raise ValueError(
                    f"{self.path} was written by gaba 0.1.0, whose losses were scaled otherwise: "
                    "it can be read and reported, and new runs go to another file"
                )
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
        return edition

    def _columns(self) -> tuple[str, ...]:
        return tuple(row[1] for row in self._db.execute("PRAGMA table_info(runs)"))

    def put(self, trial: Trial, result: Mapping[str, Any]) -> None:
        """Write what came of ``trial``, in the place of what there was."""
        config = {k: v for k, v in asdict(trial).items() if k not in _PLACES}
        row = {name: config.get(name) for name in _COLUMNS}
        row |= {
            "key": trial.key,
            "config": json.dumps(config),
            "versions": json.dumps(versions()),
            "result": json.dumps(result),
            "finished_at": datetime.datetime.now(datetime.UTC).isoformat("T", "seconds"),
        }
        with self._db:
            self._insert(row[name] for name in _COLUMNS)

    def _insert(self, values: Iterable[Any]) -> None:
        marks = ", ".join("?" * len(_COLUMNS))
        self._db.execute(f"INSERT OR REPLACE INTO runs VALUES ({marks})", tuple(values))

    def get(self, key: str) -> Row | None:
        """The row of :attr:`Trial.key`, or None."""
        return next(self._select("WHERE key = ?", (key,)), None)

    def rows(self, **filters: object) -> list[Row]:
        """The rows with these values in these columns, in the order of their columns.

        Raises:
            ValueError: there is no such column.
        """
        if unknown := set(filters) - set(_COLUMNS):
            raise ValueError(
                f"columns: must be among {', '.join(_COLUMNS)}, found {min(unknown)!r}"
            )
        order = "ORDER BY problem, optimizer, method, stage, learning_rate, weight_decay, seed, key"
        rows = self._select(order)
        return [r for r in rows if all(getattr(r, name) == v for name, v in filters.items())]

    def _select(self, clause: str, values: tuple[object, ...] = ()) -> Iterator[Row]:
        names = ", ".join(_COLUMNS)
        for found in self._db.execute(f"SELECT {names} FROM runs {clause}", values):
            row = dict(zip(_COLUMNS, found, strict=True))
            row |= {name: json.loads(row[name]) for name in _JSON}
            yield Row(**(row if self.edition == EDITION else _of_today(row)))

    def merge(self, other: str | os.PathLike[str]) -> int:
        """Take over the rows of another store that are not here; how many they were.

        Where both have a row, the one that did not fail is kept; this store's if both are alike.

        Raises:
            ValueError: the other store was written by 0.1.0.
        """
        taken = 0
        with Store(other, read_only=True) as source, self._db:
            if source.edition != self.edition:
                raise ValueError(f"{other} was written by gaba 0.1.0: merge stores of one version")
            for row in source._db.execute(f"SELECT {', '.join(_COLUMNS)} FROM runs"):
                theirs = json.loads(row[list(_COLUMNS).index("result")])
                mine = self.get(row[0])
                if mine is None or (mine.failed and theirs.get("error") is None):
                    self._insert(row)
                    taken += 1
        return taken

    def to_pandas(self) -> Any:
        """Every row as a ``pandas.DataFrame``: its columns, and the figures of its result.

        Named figures become ``validation/METRIC``, ``test/METRIC``, ``weights_mean/TASK`` and so
        on; the curve is left out.

        Raises:
            ImportError: pandas is not installed: ``pip install "gaba[parquet]"``.
        """
        pandas = library("pandas", "to_pandas needs", "parquet")
        return pandas.DataFrame([_flat(row) for row in self.rows()])

    def __len__(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM runs").fetchone()[0])

    def __contains__(self, key: str) -> bool:
        return self._db.execute("SELECT 1 FROM runs WHERE key = ?", (key,)).fetchone() is not None

    def close(self) -> None:
        """Close the file; the last one to do so leaves nothing beside it."""
        if not self._read_only:
            with suppress(sqlite3.OperationalError):  # someone else still has it open
                self._db.execute("PRAGMA journal_mode = DELETE")
        self._db.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Store belongs to the process that opened it: return results to it")


def _of_today(row: dict[str, Any]) -> dict[str, Any]:
    """A row of 0.1.0 in the names of today; 0.1.0 split multipliers into weights and a gain."""
    frozen, colon, name = row["method"].rpartition(":")
    if frozen in ("", "frozen"):
        row["method"] = f"{frozen}{colon}{NAMES_OF_0_1.get(name, name)}"
    if weights := row["config"].get("weights"):
        gain = row["config"].get("gain", 1.0)
        row["config"]["multipliers"] = [gain * weight for weight in weights]
    return row


def _flat(row: Row) -> dict[str, Any]:
    flat: dict[str, Any] = {
        name: getattr(row, name) for name in _COLUMNS if name not in ("config", "result")
    }
    flat["versions"] = json.dumps(row.versions)
    flat["multipliers"] = row.config.get("multipliers")
    for name, value in row.result.items():
        if isinstance(value, dict):
            flat |= {f"{name}/{key}": figure for key, figure in value.items()}
        elif name != "curve":
            flat[name] = value
    return flat


@cache
def versions() -> dict[str, str]:
    """What a result depends on besides its settings: versions and the processor, nothing of whom.

    >>> sorted(versions())
    ['gaba', 'numpy', 'processor', 'python', 'torch']
    """
    libraries = {"gaba": gaba.__version__, "torch": torch.__version__, "numpy": np.__version__}
    return {**libraries, "python": platform.python_version(), "processor": _processor()}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
