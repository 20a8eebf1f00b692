"""Units over their cycles: what was predicted of each, its interval, and the true remaining life.

Also the choice of a few among many units, and one sentence about all of them, for a picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np

from gaba.turbofan import _recipe, checkpoint
from gaba.turbofan._config import TrainConfig
from gaba.turbofan.evaluate import predict, restored
from gaba.turbofan.finished import open_run
from gaba.turbofan.fleet import CMAPSS, RUL_CAP, Columns, Fleet
from gaba.turbofan.interval import Interval

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

__all__ = [
    "SHOWN",
    "Life",
    "from_table",
    "late_verdict",
    "noun",
    "of_test",
    "short_verdict",
    "spread",
    "tolerance",
]

SHOWN = 6
"""So many units fit on one picture."""


@final
@dataclass(frozen=True, eq=False)
class Life:
    """One unit: what was predicted at its cycles. All arrays have the shape (N,), N ≥ 1.

    Attributes:
        unit: Its name.
        cycle: In increasing order.
        rul: The predicted remaining life, in cycles.
        low: The lower end of its interval.
        high: The upper end.
        true: The true remaining life, at most the cap, in cycles; None where it is not known.

    Raises:
        ValueError: The arrays are not vectors of one length, or are empty.

    >>> Life("ESN-1", [7, 8], [9, 8], [0, 0], [20])
    Traceback (most recent call last):
        ...
    ValueError: the arrays of unit ESN-1 must be vectors of the same length, at least 1, found ...
    """

    unit: str
    cycle: NDArray[Any]
    rul: NDArray[Any]
    low: NDArray[Any]
    high: NDArray[Any]
    true: NDArray[Any] | None = None

    def __post_init__(self) -> None:
        given = [self.cycle, self.rul, self.low, self.high]
        given += [] if self.true is None else [self.true]
        shapes = sorted({np.shape(each) for each in given})
        if len(shapes) > 1 or len(shapes[0]) != 1 or shapes[0] == (0,):
            raise ValueError(
                f"the arrays of unit {self.unit} must be vectors of the same length, at least 1, "
                f"found shapes {', '.join(map(str, shapes))}: pass one value a cycle in each"
            )


def from_table(found: pd.DataFrame, failed_at: float | None = None) -> tuple[Life, ...]:
    """The units of a table that :meth:`gaba.turbofan.Run.predict` made, every cycle of them.

    Args:
        found: With ``unit``, ``cycle``, ``rul``, ``rul_low`` and ``rul_high``.
        failed_at: The cap, in cycles, if each unit failed at its last cycle: then the true
            remaining life is known.

    >>> import pandas as pd
    >>> both = {"rul": [9.0, 8.0], "rul_low": [5.0, 4.0], "rul_high": [13.0, 12.0]}
    >>> life, = from_table(pd.DataFrame({"unit": ["A", "A"], "cycle": [30, 31], **both}), 125.0)
    >>> life.unit, life.true.tolist()
    ('A', [1.0, 0.0])
    """
    made = list[Life]()
    for unit, part in found.groupby("unit", sort=False):
        cycle, rul, low, high = (
            part[name].to_numpy(np.float64) for name in ("cycle", "rul", "rul_low", "rul_high")
        )
        true = None if failed_at is None else np.minimum(cycle[-1] - cycle, failed_at)
        made.append(Life(str(unit), cycle, rul, low, high, true))
    return tuple(made)


def of_test(
    run_dir: str | Path,
    *,
    data_dir: str | Path | None = None,
    fleet: Fleet | pd.DataFrame | None = None,
    count: int = SHOWN,
) -> tuple[Life, ...]:
    """Predict ``count`` test engines of a run at every cycle, chosen by :func:`spread`.

    They are spread over the true remaining life after their last record, the least of it first.

    Args:
        run_dir: The run's folder, finished or not.
        data_dir: Where the data are now, if they were moved.
        fleet: The data themselves.
        count: How many engines.

    Raises:
        FileNotFoundError: The folder holds no run.

    >>> import tempfile
    >>> from gaba.turbofan import train
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     result = train(TrainConfig("simulated", run_dir=folder, steps=2, steps_per_epoch=2))
    ...     shown = of_test(folder, count=3)
    >>> [float(life.true[-1]) for life in shown] == sorted(float(life.true[-1]) for life in shown)
    True
    """
    config = TrainConfig.read(run_dir)
    state = checkpoint.load(Path(run_dir, checkpoint.CHECKPOINT))
    fleet = _recipe.fleet_of(config, fleet, data_dir)
    model, normaliser = restored(config, state)
    kept = state["best"].get("interval")
    interval = Interval.from_dict(kept) if kept else open_run(run_dir, fleet=fleet).interval
    units = np.unique(fleet.test["unit"].to_numpy())
    made = list[Life]()
    for place in spread(fleet.rul, count):
        engine = fleet.test[fleet.test["unit"] == units[place]]
        seen = _recipe.cut(config, engine, normaliser, fleet.rul[place])
        rul = predict(model, seen.inputs).rul
        name = fleet.names.get(int(units[place]), str(units[place]))
        made.append(Life(name, seen.cycle, rul, *interval.ends(rul), seen.rul))
    return tuple(made)


def tolerance(cap: float) -> float:
    """From how many cycles too many on a prediction counts as late: 8 % of the cap, 10 of 125.

    With every 10 cycles that an engine is predicted late its NASA score grows by a factor of e.

    >>> tolerance(125.0), tolerance(800.0)
    (10.0, 64.0)
    """
    return cap * 10 / RUL_CAP


def noun(columns: Columns) -> str:
    """What a unit is called: an engine in C-MAPSS, a unit elsewhere.

    >>> noun(CMAPSS), noun(Columns(sensors=("T24",)))
    ('engine', 'unit')
    """
    return "engine" if columns == CMAPSS else "unit"


def spread(values: ArrayLike, count: int = SHOWN) -> NDArray[np.int64]:
    """The places of ``count`` of the ``values`` (N,), even steps apart in their order.

    The least value comes first, the greatest last; of fewer values all are taken.

    >>> spread([50, 10, 30, 20, 40], count=3).tolist()
    [1, 2, 0]
    """
    order = np.argsort(np.asarray(values), kind="stable")
    steps = np.linspace(0, len(order) - 1, min(count, len(order)))
    return order[steps.round().astype(np.int64)]


def late_verdict(predicted: ArrayLike, true: ArrayLike, allowed: float, unit: str) -> str:
    """How many units are predicted late, by their remaining life (N,) at the last cycle of each.

    >>> late_verdict([60, 41, 9], [50, 30, 9], 10.0, "engine")
    '1 of 3 engines predicted late: more than 10 cycles too many at the last cycle'
    """
    over = np.asarray(predicted, np.float64) - np.asarray(true, np.float64) > allowed
    found = _count(over, unit)
    return f"{found} predicted late: more than {_cycles(allowed)} too many at the last cycle"


def short_verdict(predicted: ArrayLike, limit: float, unit: str) -> str:
    """How many units are predicted to fail soon, by the prediction (N,) at their last cycles.

    >>> short_verdict([60, 41, 9, 30], 30.0, "engine")
    '2 of 4 engines predicted to fail within 30 cycles of the last cycle'
    """
    found = _count(np.asarray(predicted, np.float64) <= limit, unit)
    return f"{found} predicted to fail within {_cycles(limit)} of the last cycle"


def _count(chosen: NDArray[np.bool_], unit: str) -> str:
    return f"{int(chosen.sum()) or 'None'} of {len(chosen)} {unit}{'s' * (len(chosen) != 1)}"


def _cycles(number: float) -> str:
    return f"{number:.3g} cycle{'s' * (number != 1)}"
