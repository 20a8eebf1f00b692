"""A fleet from a table of your own: units that ran to failure, some of them kept for the test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gaba.turbofan.fleet import Columns, Fleet
from gaba.turbofan.tables import checked

if TYPE_CHECKING:
    import pandas as pd

TEST_SHARE = 0.2
"""The share of units that is kept for the test, at least one unit."""

EARLIEST = 0.2
"""A test unit is stopped at a random cycle, at the earliest after this share of its rows."""

LEAST = 3
"""Units: one to train on, one to choose the model with, one to test."""


def own_fleet(frame: pd.DataFrame, columns: Columns, name: str = "own data") -> Fleet:
    """Units that ran to failure, as a fleet to train and test on.

    A fifth of the units is kept for the test. As in C-MAPSS a test unit stops before its failure:
    at a random one of its rows, in the last four fifths of its life. The choice is the same for
    every seed of a training. The last row of a unit is its failure, with an RUL of 0.

    Args:
        frame: A row a unit and cycle, in any order. Columns that ``columns`` does not name are left
            out.
        columns: Which columns hold what.
        name: What every output calls the data.

    Raises:
        ValueError: A column is missing, a value is not finite, a cycle stands twice, or there are
            fewer than 3 units.

    >>> flights = [(f"ESN-{unit}", cycle, 640.0 + cycle) for unit in range(5) for cycle in range(9)]
    >>> import pandas as pd
    >>> table = pd.DataFrame(flights, columns=["engine", "flight", "T24"])
    >>> fleet = own_fleet(table, Columns(sensors=("T24",), unit="engine", cycle="flight"))
    >>> fleet.train["unit"].nunique(), fleet.test["unit"].nunique(), fleet.names[1]
    (4, 1, 'ESN-0')
    """
    table, names = checked(frame, columns)
    if len(names) < LEAST:
        raise ValueError(
            f"{name} must have at least {LEAST} units that ran to failure, to train, to choose the "
            f"model and to test, found {len(names)}"
        )
    numbers = _numbers(names)
    table = table.assign(
        unit=numbers[table["unit"].to_numpy()], cycle=table["cycle"].astype(np.int64)
    ).sort_values(["unit", "cycle"], kind="stable", ignore_index=True)
    unit, cycle = table["unit"].to_numpy(), table["cycle"].to_numpy()
    ordered, first, length = np.unique(unit, return_index=True, return_counts=True)
    last = first + length - 1
    rng = np.random.default_rng(0)
    count = max(1, round(TEST_SHARE * len(ordered)))
    tested = np.sort(rng.choice(len(ordered), count, replace=False))
    stops = first + np.floor(rng.uniform(EARLIEST, 1.0, len(ordered)) * length).astype(np.int64)
    stops = np.minimum(stops, last)
    kept = np.arange(len(table)) <= np.repeat(stops, length)
    is_test = np.isin(unit, ordered[tested])
    named = numbers.tolist() != list(names)
    return Fleet(
        subset=name,
        train=table[~is_test].reset_index(drop=True),
        test=table[is_test & kept].reset_index(drop=True),
        rul=cycle[last[tested]] - cycle[stops[tested]],
        simulated=False,
        columns=columns,
        names={int(n): str(who) for n, who in zip(numbers, names, strict=True)} if named else {},
    )


def _numbers(names: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The name of each unit if all are whole numbers, else 1, 2, 3, ... in order of their names."""
    values = np.asarray(names)
    if np.issubdtype(values.dtype, np.number) and (values == np.floor(values)).all():
        return values.astype(np.int64)
    order = np.argsort([str(name) for name in names], kind="stable")
    return np.argsort(order) + 1
