"""Records of engines that are to be predicted: reading and checking them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gaba.extras import needs
from gaba.turbofan import data
from gaba.turbofan.fleet import INPUTS, SETTINGS

with needs("gaba.turbofan needs", "turbofan", "pandas"):
    import pandas as pd

if TYPE_CHECKING:
    from gaba.turbofan.normalise import Normaliser

__all__ = ["read_engines"]

NEEDED = ("unit", "cycle", *INPUTS)
"""The columns that a prediction needs; others are ignored."""


def read_engines(path: str | Path) -> pd.DataFrame:
    """Read a CSV file with a header, or a file in the text layout of C-MAPSS.

    Raises:
        ValueError: The name ends in neither ``.csv`` nor ``.txt`` nor ``.txt.xz``, or the file
            cannot be read as what its name says.

    >>> read_engines("engines.xlsx")
    Traceback (most recent call last):
        ...
    ValueError: engines.xlsx must be a .csv file with a header, or a .txt file as of C-MAPSS
    """
    path = Path(path)
    if path.name.endswith((".txt", ".txt.xz")):
        return data.read(path)
    if path.suffix != ".csv":
        raise ValueError(f"{path} must be a .csv file with a header, or a .txt file as of C-MAPSS")
    try:
        return pd.read_csv(path)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as a CSV file: {error}") from error


def checked(frame: pd.DataFrame) -> tuple[pd.DataFrame, Any]:
    """The needed columns in order of engine and cycle, units numbered, and the units' names.

    Raises:
        ValueError: A column is missing, a value is not finite, or an engine's cycles have a gap.
    """
    if missing := [name for name in NEEDED if name not in frame.columns]:
        raise ValueError(f"missing columns {', '.join(missing)} (needed: {', '.join(NEEDED)})")
    if frame.empty:
        raise ValueError("an engine needs at least one row, found none")
    code, names = pd.factorize(frame["unit"])  # -1 where there is none
    table = frame[list(NEEDED[1:])].apply(pd.to_numeric, errors="coerce").astype(np.float64)
    unfit = ~np.isfinite(table.to_numpy())
    for row, column in np.argwhere(unfit)[:1]:
        name = table.columns[column]
        raise ValueError(
            f"row {row + 1}: a finite number is needed in column {name}, "
            f"found {frame[name].tolist()[row]!r}"
        )
    for row in np.flatnonzero(code < 0)[:1]:
        raise ValueError(f"row {row + 1}: the name of an engine is needed in column unit")
    table.insert(0, "unit", code)
    table = table.sort_values(["unit", "cycle"], kind="stable", ignore_index=True)
    unit, cycle = table["unit"].to_numpy(), table["cycle"].to_numpy()
    begins = np.diff(unit, prepend=-1) > 0
    expected = np.where(begins, np.floor(cycle), np.roll(cycle, 1) + 1)
    for row in np.flatnonzero(cycle != expected)[:1]:
        raise ValueError(
            f"the cycles of an engine are whole numbers without gaps: unit {names[unit[row]]} "
            f"needs cycle {expected[row]:g}, found {cycle[row]:g}"
        )
    return table, names


def check_conditions(engines: pd.DataFrame, names: Any, normaliser: Normaliser) -> None:
    """Refuse rows whose settings are of no operating condition that ``normaliser`` was fitted to.

    Raises:
        ValueError: There is one.
    """
    for row in np.flatnonzero(~normaliser.knows(engines))[:1]:
        at = engines.iloc[row]
        known = "; ".join(_settings(centre) for centre in normaliser.centres)
        raise ValueError(
            f"unit {names[int(at['unit'])]}, cycle {at['cycle']:g}: unknown operating condition, "
            f"{', '.join(SETTINGS)} must be near one that the run has seen ({known}), "
            f"found {_settings(at[list(SETTINGS)])}"
        )


def _settings(values: Any) -> str:
    return ", ".join(f"{abs(round(float(value), 2)):g}" for value in values)
