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
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, final

from gaba.extras import library
from gaba.bench.trial import Trial

__all__ = ["Row", "Store", "versions"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    key TEXT PRIMARY KEY,
    problem TEXT NOT NULL,
    method TEXT NOT NULL,
    optimizer TEXT NOT NULL,
    learning_rate REAL NOT NULL,
    weight_decay REAL NOT NULL,
    seed INTEGER NOT NULL,
    steps INTEGER NOT NULL,
    stage TEXT NOT NULL,
    config TEXT NOT NULL,
    versions TEXT NOT NULL,
    result TEXT NOT NULL,
    finished_at TEXT NOT NULL
)
"""
_COLUMNS = (
    *("key", "problem", "method", "optimizer", "learning_rate", "weight_decay", "seed", "steps"),
    *("stage", "config", "versions", "result", "finished_at"),
)
_JSON = ("config", "versions", "result")
_PLACES = ("spec", "data_dir")
_WAIT = 60.0  # seconds for which a second process may hold the file


@final
@dataclass(frozen=True)
class Row:
    """A finished training in the store.

    Attributes:
        key: :attr:`gaba.bench.Trial.key`.
        problem, method, optimizer, learning_rate, weight_decay, seed, steps, stage: of the trial.
        config: all settings of the trial, ``weights`` and ``gain`` among them.
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
    The text columns ``config``, ``versions`` and ``result`` hold JSON, with ``NaN`` and
    ``Infinity`` where a figure is not finite. Columns, and the labels in them:

    ===============  ==============================================================================
    ``method``       a name of :data:`gaba.methods.METHODS`, ``fixed-tuned``, ``fixed-sweep``,
                     ``frozen:NAME`` or ``single:TASK``
    ``stage``        ``tune``: at the tuning seeds, chooses the learning rate and weight decay;
                     ``grid``: the same of ``fixed-sweep``, which chooses the weights too;
                     ``final``: the chosen setting at the seeds that are reported
    ===============  ==============================================================================

    Only the process that opened it can use it: workers return their results to it.

    Args:
        path: The file; made, with its folder, if it is absent.
        read_only: Write nothing, and raise if there is no file.

    Raises:
        FileNotFoundError: ``read_only``, and there is none.
        ValueError: The file is no such store.

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
            if not read_only:
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = NORMAL")
                with self._db:
                    self._db.execute(_SCHEMA)
            found = tuple(row[1] for row in self._db.execute("PRAGMA table_info(runs)"))
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise ValueError(f"{self.path} is no store of results: {error}") from error
        if found != _COLUMNS:
            self._db.close()
            raise ValueError(
                f"{self.path} is no store of results: its table has the columns "
                f"{', '.join(found) or 'none'}: give another file"
            )

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
        found = self._select("WHERE key = ?", (key,))
        return next(found, None)

    def rows(self, **filters: object) -> list[Row]:
        """The rows with these values in these columns, in the order of their columns.

        Raises:
            ValueError: There is no such column.
        """
        if unknown := set(filters) - set(_COLUMNS):
            raise ValueError(f"columns: must be among {', '.join(_COLUMNS)}; got {min(unknown)!r}")
        where = " AND ".join(f"{name} = ?" for name in filters)
        order = "ORDER BY problem, optimizer, method, stage, learning_rate, weight_decay, seed, key"
        return list(
            self._select(f"WHERE {where} {order}" if where else order, tuple(filters.values()))
        )

    def _select(self, clause: str, values: tuple[object, ...]) -> Iterator[Row]:
        names = ", ".join(_COLUMNS)
        for found in self._db.execute(f"SELECT {names} FROM runs {clause}", values):
            row = dict(zip(_COLUMNS, found, strict=True))
            yield Row(**(row | {name: json.loads(row[name]) for name in _JSON}))

    def keys(self) -> set[str]:
        """Of every row, failed ones too."""
        return {key for (key,) in self._db.execute("SELECT key FROM runs")}

    def merge(self, other: str | os.PathLike[str]) -> int:
        """Take over the rows of another store that are not here; how many they were.

        Where both have a row, the one that did not fail is kept; this store's if both are alike.
        """
        taken = 0
        with Store(other, read_only=True) as source, self._db:
            for row in source._db.execute(f"SELECT {', '.join(_COLUMNS)} FROM runs"):
                theirs = json.loads(row[_COLUMNS.index("result")])
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


def _flat(row: Row) -> dict[str, Any]:
    flat: dict[str, Any] = {
        name: getattr(row, name) for name in _COLUMNS if name not in ("config", "result")
    }
    flat["versions"] = json.dumps(row.versions)
    flat["weights"], flat["gain"] = row.config.get("weights"), row.config.get("gain")
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
    found = {name: metadata.version(name) for name in ("gaba", "torch", "numpy")}
    return {**found, "python": platform.python_version(), "processor": _processor()}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
