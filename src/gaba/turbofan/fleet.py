"""A fleet: the engines of one subset, and the names of what is recorded of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

SUBSETS = ("FD001", "FD002", "FD003", "FD004")
"""The four subsets of the real data."""

SIMULATED = "simulated"
"""The name of the subset that is simulated, not read."""

SETTINGS = ("setting1", "setting2", "setting3")
"""The operational settings: altitude (1000 ft), Mach number, throttle resolver angle (deg)."""

SENSORS = tuple(f"s{number}" for number in range(1, 22))
"""The 21 sensors, under the numbers that the files give them."""

COLUMNS = ("unit", "cycle", *SETTINGS, *SENSORS)
"""The 26 columns of a training or a test file."""

INPUT_SENSORS = tuple(f"s{n}" for n in (2, 3, 4, 7, 8, 9, 11, 12, 13, 14, 15, 17, 20, 21))
"""The 14 sensors that respond to wear."""

INPUTS = (*SETTINGS, *INPUT_SENSORS)
"""The 17 columns that a model sees."""

DECIMALS = (0, 0, 4, 4, 1, *(2,) * 14, 4, 2, 0, 0, 2, 2, 4)
"""The decimals of each column in the files, all four subsets alike."""


@final
@dataclass(frozen=True, eq=False)
class Fleet:
    """The engines of one subset.

    Attributes:
        subset: ``"FD001"`` to ``"FD004"``, or ``"simulated"``.
        train: Engines that run to failure, one row a cycle, the columns of :data:`COLUMNS`.
        test: Engines that stop some time before failure, the same columns.
        rul: Remaining useful life of each test engine after its last row, in cycles, (engines,).
        simulated: Whether the data are simulated; every output says so.
    """

    subset: str
    train: pd.DataFrame
    test: pd.DataFrame
    rul: NDArray[np.int64]
    simulated: bool
