"""A finished run, opened to predict engines: remaining life, its interval, and health."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np

from gaba.extras import needs
from gaba.turbofan import checkpoint, data, windows
from gaba.turbofan._config import TrainConfig
from gaba.turbofan.evaluate import predict, restored
from gaba.turbofan.fleet import INPUTS, Fleet
from gaba.turbofan.interval import Interval
from gaba.turbofan.metrics import rmse
from gaba.turbofan.model import TurbofanNet
from gaba.turbofan.normalise import Normaliser

with needs("gaba.turbofan needs", "turbofan", "pandas"):
    import pandas as pd

__all__ = ["Run", "open_run", "read_engines"]

NEEDED = ("unit", "cycle", *INPUTS)
"""The columns that a prediction needs; others are ignored."""


@final
@dataclass(frozen=True, eq=False)
class Run:
    """The chosen model of a finished run, with all that a prediction needs; see :func:`open_run`.

    Attributes:
        config: The settings of the run.
        model: The best on the validation engines.
        normaliser: Fitted on the training engines.
        interval: Calibrated on the validation engines.
    """

    config: TrainConfig
    model: TurbofanNet
    normaliser: Normaliser
    interval: Interval

    def predict(self, frame: pd.DataFrame, *, every_cycle: bool = False) -> pd.DataFrame:
        """Predict engines from their records so far, with the windows of the evaluation.

        Args:
            frame: A row a cycle: ``unit`` (any name of an engine), ``cycle``, the 3 settings and
                the 14 sensors of ``gaba.turbofan.fleet.INPUTS``. Give each engine from its first
                cycle on: the sensors are averaged over its past.
            every_cycle: Whether to predict at every cycle, from the 30th of an engine on. By
                default, and for a shorter record, there is one line, for its last cycle.

        Returns:
            ``unit``, ``cycle``, ``rul`` (cycles), ``rul_low`` and ``rul_high`` (the ends of the
            interval, see :class:`~gaba.turbofan.interval.Interval`), ``health`` (``"normal"``,
            ``"degrading"`` or ``"critical"``) and ``p_normal``, ``p_degrading``, ``p_critical``.

        Raises:
            ValueError: A column is missing, a value is not finite, an engine's cycles have a gap,
                or its settings are of no operating condition that the run has seen.
        """
        engines, names = _checked(frame)
        _check_conditions(engines, names, self.normaliser)
        seen = windows.cut(
            engines, self.normaliser, cap=self.config.rul_cap, smoothing=self.config.smoothing
        )
        seen = seen if every_cycle else windows.last_of_each(seen)
        found = predict(self.model, seen.inputs)
        low, high = self.interval.ends(found.rul)
        return pd.DataFrame(
            {
                "unit": names[seen.unit],
                "cycle": seen.cycle,
                "rul": found.rul,
                "rul_low": low,
                "rul_high": high,
                "health": np.array(windows.HEALTH)[found.health_class],
                **{f"p_{name}": found.health[:, i] for i, name in enumerate(windows.HEALTH)},
            }
        )


def open_run(
    run_dir: str | Path, *, data_dir: str | Path | None = None, fleet: Fleet | None = None
) -> Run:
    """Open a finished run to predict with it.

    A run keeps the interval of its model. For a run of an older version it is computed again from
    the run's data, which are read for that alone.

    Args:
        run_dir: The run's folder.
        data_dir: Where the data are now, if they were moved.
        fleet: The data themselves.

    Raises:
        FileNotFoundError: The folder holds no run.
        ValueError: The run is not finished, or the data are not those of the run.

    >>> import tempfile
    >>> from gaba.turbofan import TrainConfig, load, train
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     result = train(TrainConfig("simulated", run_dir=folder, steps=2, steps_per_epoch=2))
    ...     found = open_run(folder).predict(load("simulated").test)
    >>> len(found), found.columns.tolist()[:5]
    (50, ['unit', 'cycle', 'rul', 'rul_low', 'rul_high'])
    """
    config = TrainConfig.read(run_dir)
    state = checkpoint.load(Path(run_dir, checkpoint.CHECKPOINT))
    if not state["finished"]:
        raise ValueError(
            f"{run_dir} is not finished: it stopped after step {state['steps']} of at most "
            f"{config.steps}; finish it with `gaba train turbofan --resume {run_dir}`"
        )
    model, normaliser = restored(config, state)
    if (kept := state["best"].get("interval")) is not None:
        return Run(config, model, normaliser, Interval.from_dict(kept))
    fleet = data.load(config.subset, data_dir or config.data_dir) if fleet is None else fleet
    held = windows.prepare(
        fleet,
        seed=config.seed,
        cap=config.rul_cap,
        smoothing=config.smoothing,
        capped_share=config.capped_share,
        normaliser=normaliser,
    ).validation
    rul = predict(model, held.inputs).rul
    found, expected = rmse(rul, held.rul), state["best"]["epoch"]["rmse"]
    if not math.isclose(found, expected, rel_tol=1e-3):
        raise ValueError(
            f"the data are not those of {run_dir}: its validation engines must give an RMSE of "
            f"{expected:.4g} cycles, found {found:.4g}; name the data that it was trained on"
        )
    return Run(config, model, normaliser, Interval.fit(rul, held.rul, held.unit, cap=held_cap))


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


def _checked(frame: pd.DataFrame) -> tuple[pd.DataFrame, Any]:
    """The needed columns in order of engine and cycle, units numbered, and the units' names."""
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
            f"found {frame[name].iloc[row]!r}"
        )
    for row in np.flatnonzero(code < 0)[:1]:
        raise ValueError(f"row {row + 1}: the name of an engine is needed in column unit")
    table.insert(0, "unit", code)
    table = table.sort_values(["unit", "cycle"], kind="stable", ignore_index=True)
    unit, cycle = table["unit"].to_numpy(), table["cycle"].to_numpy()
    gap = (np.diff(unit) == 0) & (np.diff(cycle) != 1) | (cycle[1:] % 1 != 0)
    for row in np.flatnonzero(gap)[:1]:
        raise ValueError(
            f"the cycles of an engine are whole numbers without gaps: unit {names[unit[row]]} has "
            f"cycle {cycle[row + 1]:g} after {cycle[row]:g}"
        )
    return table, names


def _check_conditions(engines: pd.DataFrame, names: Any, normaliser: Normaliser) -> None:
    for row in np.flatnonzero(~normaliser.knows(engines))[:1]:
        at = engines.iloc[row]
        settings = ", ".join(f"{at[name]:g}" for name in NEEDED[2:5])
        raise ValueError(
            f"unit {names[int(at['unit'])]}, cycle {at['cycle']:g}: the settings {settings} are of "
            f"no operating condition of the run ({normaliser.described()})"
        )
