"""A fleet: its engines, and which columns hold what is recorded of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, final

from gaba.turbofan._checks import check

if TYPE_CHECKING:
    from collections.abc import Mapping

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

RUL_CAP = 125.0
"""The largest RUL label of C-MAPSS, in cycles."""

DECIMALS = (0, 0, 4, 4, 1, *(2,) * 14, 4, 2, 0, 0, 2, 2, 4)
"""The decimals of each column in the files, all four subsets alike."""


@final
@dataclass(frozen=True)
class Columns:
    """Which columns of a table hold what, and what is known of them.

    Attributes:
        sensors: Readings that respond to wear.
        settings: How the unit was operated. They decide the operating condition, within which
            sensors are normalised. Without settings there is one condition.
        unit: The column with the name of the engine, or of any other unit.
        cycle: The column with its time, in whole cycles.
        reach: How far each setting may lie from the middle of its condition; a setting that varies
            no more than that over all training rows is jitter, and no input. None: see
            :class:`~gaba.turbofan.normalise.Normaliser`.
        health: The last RUL, in cycles, at which a unit is critical, and degrading. None: 24 % and
            64 % of the cap, which is 30 and 80 cycles of 125.
        consecutive: Whether the cycles of a unit must run on without a gap.

    Raises:
        ValueError: No sensor, a column named twice, or a ``reach`` or ``health`` that does not fit.

    >>> Columns(sensors=("T24", "P30"), settings=("altitude",), unit="engine").inputs
    ('altitude', 'T24', 'P30')
    >>> Columns(sensors=()).inputs
    Traceback (most recent call last):
        ...
    ValueError: sensors must name at least one column, found none
    """

    sensors: tuple[str, ...]
    settings: tuple[str, ...] = ()
    unit: str = "unit"
    cycle: str = "cycle"
    reach: tuple[float, ...] | None = None
    health: tuple[float, float] | None = None
    consecutive: bool = False

    def __post_init__(self) -> None:
        for name in ("sensors", "settings", "reach", "health"):  # JSON has lists
            if (value := getattr(self, name)) is not None:
                if isinstance(value, str):
                    raise ValueError(f"{name} must be a sequence of columns, found {value!r}")
                object.__setattr__(self, name, tuple(value))
        if not self.sensors:
            raise ValueError("sensors must name at least one column, found none")
        for name, count in Counter(self.needed).items():
            if count > 1:
                raise ValueError(f"columns must be named once each, found {name!r} {count} times")
        for name in self.inputs:
            if name in ("unit", "cycle"):
                raise ValueError(f"a sensor or setting cannot be called {name!r}: rename it")
        if self.reach is not None and len(self.reach) != len(self.settings):
            raise ValueError(
                f"reach must have a number for each of the {len(self.settings)} settings, "
                f"found {len(self.reach)}"
            )
        if self.health is not None:
            if len(self.health) != 2:
                raise ValueError(f"health must be two RULs, found {len(self.health)}")
            check("health[0]", self.health[0], above=0, below=self.health[1])

    @property
    def inputs(self) -> tuple[str, ...]:
        """The columns that a model sees: the settings, then the sensors."""
        return (*self.settings, *self.sensors)

    @property
    def needed(self) -> tuple[str, ...]:
        """The columns that a table must have; others are ignored."""
        return (self.unit, self.cycle, *self.inputs)

    def thresholds(self, cap: float) -> tuple[float, float]:
        """The last RUL at which a unit is critical, and degrading, in cycles.

        >>> Columns(sensors=("T24",)).thresholds(125.0), Columns(sensors=("T24",)).thresholds(50.0)
        ((30.0, 80.0), (12.0, 32.0))
        """
        return self.health or (cap * 30 / RUL_CAP, cap * 80 / RUL_CAP)


CMAPSS = Columns(
    sensors=INPUT_SENSORS,
    settings=SETTINGS,
    reach=(1.0, 0.05, 1.0),
    health=(30.0, 80.0),
    consecutive=True,
)
"""C-MAPSS, real or simulated.

Two conditions lie 5 apart or more in altitude (1000 ft) or throttle (deg); the jitter is 0.01.
"""


@final
@dataclass(frozen=True, eq=False)
class Fleet:
    """The engines of one data set.

    Attributes:
        subset: Its name: ``"FD001"`` to ``"FD004"``, ``"simulated"``, or a file such as
            ``"fleet.csv"``.
        train: Engines that run to failure, one row a cycle: ``unit``, ``cycle``, and the inputs of
            ``columns``. C-MAPSS has all of :data:`COLUMNS`.
        test: Engines that stop some time before failure, the same columns.
        rul: Remaining useful life of each test engine after its last row, in cycles, (engines,).
        simulated: Whether the data are simulated; every output says so.
        columns: What the columns hold.
        names: The name of each engine by its number in ``unit``, where it is not that number.
    """

    subset: str
    train: pd.DataFrame
    test: pd.DataFrame
    rul: NDArray[np.int64]
    simulated: bool
    columns: Columns = CMAPSS
    names: Mapping[int, str] = field(default_factory=dict)
