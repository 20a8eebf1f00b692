"""Tables of engines or other units: reading a CSV file, and checking that a table can be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gaba.extras import needs
from gaba.spelling import nearest
from gaba.turbofan.fleet import Columns

with needs("gaba.turbofan needs", "turbofan", "pandas"):
    import pandas as pd

LINE = "line"
"""The name of the index of a table whose rows know their lines in a file."""


def read_csv(path: str | Path) -> pd.DataFrame:
    r"""Read a CSV file with a header; the index holds the line of each row.

    Blank lines are left out. Names in the header lose the blanks around them.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file cannot be read as CSV.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "fleet.csv").write_text("unit, T24\n1,640.5\n\n2,641\n")
    ...     read_csv(Path(folder, "fleet.csv"))
          unit    T24
    line
    2        1  640.5
    4        2  641.0
    """
    try:
        frame = pd.read_csv(path, skipinitialspace=True, low_memory=False)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as a CSV file: {error}") from error
    frame.columns = pd.Index([str(name).strip() for name in frame.columns])
    with open(path, encoding="utf-8", errors="replace") as file:
        lines = [number for number, line in enumerate(file, start=1) if line.strip()]
    if len(lines) == len(frame) + 1:  # no cell goes over several lines
        frame.index = pd.Index(lines[1:], name=LINE)
    return frame


def checked(frame: pd.DataFrame, columns: Columns) -> tuple[pd.DataFrame, Any]:
    """The needed columns in order of unit and cycle, units numbered from 0, and their names.

    The columns of the result are ``unit``, ``cycle``, and the inputs under their own names.

    Raises:
        ValueError: A column is missing, a value is not finite, or the cycles of a unit are not
            whole numbers, repeat, or have a gap where ``columns`` allows none.

    >>> table = pd.DataFrame({"engine": ["b", "b", "a"], "flight": [2, 1, 5], "T24": [3, 2, 1]})
    >>> found, names = checked(table, Columns(sensors=("T24",), unit="engine", cycle="flight"))
    >>> found.values.tolist(), list(names)
    ([[0.0, 1.0, 2.0], [0.0, 2.0, 3.0], [1.0, 5.0, 1.0]], ['b', 'a'])
    """
    check_names(frame, columns)
    if frame.empty:
        raise ValueError("an engine needs at least one row, found none")
    code, names = pd.factorize(frame[columns.unit])  # -1 where there is none
    kept = frame[list(columns.needed[1:])]
    table = kept.apply(pd.to_numeric, errors="coerce").astype(np.float64)
    for row, column in np.argwhere(~np.isfinite(table.to_numpy()))[:1]:
        name = table.columns[column]
        raise ValueError(
            f"row {row + 1}: a finite number is needed in column {name}{_line(frame, row)}, "
            f"found {frame[name].tolist()[row]!r}"
        )
    for row in np.flatnonzero(code < 0)[:1]:
        raise ValueError(
            f"row {row + 1}: the name of an engine is needed in column {columns.unit}"
            f"{_line(frame, row)}"
        )
    table = table.rename(columns={columns.cycle: "cycle"}).reset_index(drop=True)
    table.insert(0, "unit", code)
    table = table.sort_values(["unit", "cycle"], kind="stable")
    _check_cycles(table, names, frame, columns)
    return table.reset_index(drop=True), names


def _line(frame: pd.DataFrame, row: int) -> str:
    return f" (line {frame.index[row]})" if frame.index.name == LINE else ""


def check_names(frame: pd.DataFrame, columns: Columns) -> None:
    """Check that a table has the needed columns, each once.

    Raises:
        ValueError: One is missing; the message names the nearest that is there.

    >>> check_names(pd.DataFrame(columns=["unit", "cycle", "t24"]), Columns(sensors=("T24",)))
    Traceback (most recent call last):
        ...
    ValueError: missing columns T24 (needed: unit, cycle, T24; found: unit, cycle, t24): did you ...
    """
    found = [str(name) for name in frame.columns]
    for name in columns.needed:
        if (count := found.count(name)) > 1:
            raise ValueError(f"column {name} must be there once, found {count}")
    if missing := [name for name in columns.needed if name not in found]:
        others = [name for name in found if name not in columns.needed]
        near = {name: nearest(name, others) for name in missing}
        meant = [f"{other!r} for {name}" for name, other in near.items() if other is not None]
        raise ValueError(
            f"missing columns {', '.join(missing)} (needed: {', '.join(columns.needed)}; "
            f"found: {', '.join(found) or 'none'})"
            + (f": did you mean {', '.join(meant)}?" if meant else "")
        )


def _check_cycles(table: pd.DataFrame, names: Any, frame: pd.DataFrame, columns: Columns) -> None:
    unit, cycle = table["unit"].to_numpy(), table["cycle"].to_numpy()
    begins = np.diff(unit, prepend=-1) > 0
    before = np.roll(cycle, 1)
    fits = np.where(begins, np.floor(cycle), before + 1)
    rule = "without gaps"
    if not columns.consecutive:
        fits, rule = np.maximum(fits, np.floor(cycle)), "each once"
    for at in np.flatnonzero(cycle != fits)[:1]:
        near = table.index.tolist()[max(at - 1, 0) : at + 1]
        *earlier, here = (f"row {row + 1}{_line(frame, row)}" for row in near)
        who = names[unit[at]]
        said = f"unit {who} has cycle {cycle[at]:g}, in {here}"
        if columns.consecutive:
            said = f"unit {who} needs cycle {fits[at]:g}, found {cycle[at]:g}"
        if not begins[at] and cycle[at] == before[at]:
            twice = f"cycle {cycle[at]:g} stands twice, in {earlier[0]} and {here}: "
            said = twice + (said if columns.consecutive else f"drop one of unit {who}")
        raise ValueError(f"the cycles of an engine are whole numbers {rule}: {said}")
