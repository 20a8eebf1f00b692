"""The files of a fleet: finding, reading, checking and writing them."""

from __future__ import annotations

import difflib
import lzma
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, final

import numpy as np

from gaba import folders
from gaba.extras import needs
from gaba.turbofan import tables
from gaba.turbofan.fleet import CMAPSS, COLUMNS, DECIMALS, SIMULATED, SUBSETS, Columns, Fleet
from gaba.turbofan.own import own_fleet
from gaba.turbofan.simulate import simulate

with needs("gaba.turbofan needs", "turbofan", "pandas"):
    import pandas as pd

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SIMULATED", "find_data_dir", "load", "read", "write"]

_KINDS = ("train", "test", "RUL")
_REMEDY = "download them with `gaba data cmapss`, or use `--subset simulated`"


@final
class DataNotFoundError(FileNotFoundError):
    """No folder has the C-MAPSS files."""


@final
class DataFormatError(ValueError):
    """A C-MAPSS file is malformed; the message names the file and the line."""


def find_data_dir(data_dir: str | Path | None = None) -> Path:
    """The folder that holds the C-MAPSS files.

    ``data_dir`` or the environment variable ``GABA_DATA`` names the only place to look; without
    either, ``data`` and ``../shared/data`` are tried, in the current directory and in the clone.
    Each may hold the files themselves or a folder ``cmapss`` with them.

    Raises:
        DataNotFoundError: No place has any of the files.

    >>> find_data_dir("no/such/folder")
    Traceback (most recent call last):
        ...
    gaba.turbofan.data.DataNotFoundError: no C-MAPSS files in no/such/folder: download them ...
    """
    return folders.find(
        "cmapss",
        lambda folder: any(_find(folder, f"train_{subset}.txt") for subset in SUBSETS),
        data_dir,
        lambda looked: DataNotFoundError(f"no C-MAPSS files in {looked}: {_REMEDY}"),
    )


def load(subset: str, data_dir: str | Path | None = None, columns: Columns = CMAPSS) -> Fleet:
    """Read and check one subset, from ``NAME.txt`` or ``NAME.txt.xz``, or a CSV file of your own.

    Args:
        subset: One of :data:`SUBSETS`, or ``"simulated"``, which reads no file, or the CSV file of
            units that ran to failure, ending in ``.csv``; see :func:`~gaba.turbofan.own_fleet`.
        data_dir: See :func:`find_data_dir`. For a CSV file, the folder that it is in.
        columns: Which columns hold what.

    Raises:
        ValueError: ``subset`` is unknown, or the CSV file does not hold units that ran to failure.
        FileNotFoundError: There is no such CSV file.
        DataNotFoundError: A file of the subset is missing.
        DataFormatError: A row is not 26 finite numbers, the cycles of a unit are not 1, 2, 3, ...,
            or the RUL file does not have one line a test unit.

    >>> fleet = load("simulated")
    >>> fleet.simulated, fleet.train.shape[1], len(fleet.rul) == fleet.test["unit"].nunique()
    (True, 26, True)
    """
    if str(subset).endswith(".csv"):
        path = Path(data_dir or "", subset)
        try:
            return own_fleet(tables.read_csv(path), columns, path.name)
        except ValueError as error:
            said = str(error)
            raise ValueError(said if path.name in said else f"{path}: {said}") from error
    if subset == SIMULATED:
        return _with(simulate(), columns)
    if Path(subset, "config.json").is_file():
        raise ValueError(f"subset: {subset} is a run: open it with turbofan.open_run({subset!r})")
    if subset not in SUBSETS:
        known = (*SUBSETS, SIMULATED)
        near = difflib.get_close_matches(str(subset).upper(), SUBSETS, 1, 0.4) or [SIMULATED]
        raise ValueError(
            f"subset: must be one of {', '.join(known)}, found {subset!r} (did you mean "
            f"{near[0]!r}?); a table of your own is a .csv file"
        )
    folder = find_data_dir(data_dir)
    train, test, rul = (_existing(folder, f"{kind}_{subset}.txt") for kind in _KINDS)
    test_frame = read(test)
    fleet = Fleet(
        subset=subset,
        train=read(train),
        test=test_frame,
        rul=_read_rul(rul, int(test_frame["unit"].nunique())),
        simulated=False,
    )
    return _with(fleet, columns)


def read(path: str | Path) -> pd.DataFrame:
    """Read and check a training or a test file, ``NAME.txt`` or ``NAME.txt.xz``.

    Raises:
        DataFormatError: A row is not 26 finite numbers, or the cycles of a unit are not 1, 2, 3,
            ... .

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     read(write(load("simulated"), folder)[1]).equals(load("simulated").test)
    True
    """
    path = Path(path)
    values = _read_numbers(path, columns=len(COLUMNS))
    _check_units(path, values[:, 0], values[:, 1])
    frame = pd.DataFrame(values, columns=pd.Index(COLUMNS))
    return frame.astype({"unit": np.int64, "cycle": np.int64})


def write(fleet: Fleet, folder: str | Path) -> list[Path]:
    """Write ``fleet`` as the three text files that :func:`load` reads, byte for byte as NASA does.

    A value with more decimals than :data:`DECIMALS` keeps them all.

    Returns:
        The paths of the training, the test and the RUL file.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     [path.name for path in write(load("simulated"), folder)]
    ['train_simulated.txt', 'test_simulated.txt', 'RUL_simulated.txt']
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    contents = (
        _format_frame(fleet.train),
        _format_frame(fleet.test),
        "".join(f"{int(value)} \n" for value in fleet.rul),
    )
    paths = [folder / f"{kind}_{fleet.subset}.txt" for kind in _KINDS]
    for path, content in zip(paths, contents, strict=True):
        path.write_text(content, encoding="ascii", newline="\n")
    return paths


def _with(fleet: Fleet, columns: Columns) -> Fleet:
    """``fleet`` with other inputs."""
    tables.check_names(fleet.train, columns)
    return replace(fleet, columns=columns)


def _find(folder: Path, name: str) -> Path | None:
    candidates = (folder / name, folder / f"{name}.xz")
    return next((path for path in candidates if path.is_file()), None)


def _existing(folder: Path, name: str) -> Path:
    path = _find(folder, name)
    if path is None:
        raise DataNotFoundError(f"no {name} or {name}.xz in {folder}: {_REMEDY}")
    return path


def _read_rul(path: Path, engines: int) -> NDArray[np.int64]:
    rul = _read_numbers(path, columns=1)[:, 0]
    for line in np.flatnonzero((rul < 0) | (rul != np.floor(rul)))[:1] + 1:
        raise DataFormatError(
            f"{path}, line {line}: an RUL is a whole number of cycles, found {rul[line - 1]:g}"
        )
    if len(rul) != engines:
        line = min(len(rul), engines) + 1
        raise DataFormatError(
            f"{path}, line {line}: one RUL a test unit is needed, "
            f"found {len(rul)} lines for {engines} units"
        )
    return rul.astype(np.int64)


def _read_lines(path: Path) -> list[str]:
    raw = path.read_bytes()
    try:
        raw = lzma.decompress(raw) if path.suffix == ".xz" else raw
        text = raw.decode("ascii")
    except lzma.LZMAError as error:
        raise DataFormatError(f"{path}, line 1: not readable as xz ({error})") from None
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataFormatError(f"{path}, line {line}: not plain text") from None
    lines = text.rstrip().split("\n")
    if lines == [""]:
        raise DataFormatError(f"{path}, line 1: the file is empty")
    return lines


def _read_numbers(path: Path, columns: int) -> NDArray[np.float64]:
    """The file as an array (rows, columns)."""
    lines = _read_lines(path)
    for number, line in enumerate(lines, start=1):
        if (found := len(line.split())) != columns:
            raise DataFormatError(f"{path}, line {number}: {columns} columns needed, found {found}")
    try:
        values = np.loadtxt(lines, dtype=np.float64, comments=None, ndmin=2)
    except ValueError:
        values = np.full(1, np.nan)
    if not np.isfinite(values).all():
        raise _not_finite(path, lines)
    return values


def _not_finite(path: Path, lines: list[str]) -> DataFormatError:
    """The error that names the first word that is no finite number."""
    words = pd.DataFrame([line.split() for line in lines])
    numbers = words.apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    row, column = next(iter(np.argwhere(~np.isfinite(numbers))), (0, 0))
    return DataFormatError(
        f"{path}, line {row + 1}: a finite number is needed in column {column + 1}, "
        f"found {words.iat[row, column]!r}"
    )


def _check_units(path: Path, unit: NDArray[np.float64], cycle: NDArray[np.float64]) -> None:
    """Units come in increasing order, and the cycles of each run 1, 2, 3, ... ."""
    previous_unit = np.concatenate(([0.0], unit[:-1]))
    first = unit != previous_unit
    expected = np.where(first, 1.0, np.concatenate(([0.0], cycle[:-1])) + 1.0)
    wrong_unit = (unit < previous_unit) | (unit < 1) | (unit != np.floor(unit))
    wrong = np.flatnonzero(wrong_unit | (cycle != expected))
    if wrong.size == 0:
        return
    row = int(wrong[0])
    if wrong_unit[row]:
        reason = (
            f"units are whole numbers in increasing order, found unit {unit[row]:g} "
            f"after unit {previous_unit[row]:g}"
        )
    else:
        reason = (
            f"the cycles of a unit run 1, 2, 3, ... without gaps: unit {unit[row]:g} needs "
            f"cycle {expected[row]:g} here, found {cycle[row]:g}"
        )
    raise DataFormatError(f"{path}, line {row + 1}: {reason}")


def _format_frame(frame: pd.DataFrame) -> str:
    columns = [
        [_format_value(value, decimals) for value in frame[name].tolist()]
        for name, decimals in zip(COLUMNS, DECIMALS, strict=True)
    ]
    return "".join(" ".join(row) + "  \n" for row in zip(*columns, strict=True))


def _format_value(value: float, decimals: int) -> str:
    text = f"{value:.{decimals}f}"
    return text if float(text) == value else repr(value)
