"""A finished run, opened to predict engines: remaining life, its interval, and health."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import numpy as np

from gaba.extras import needs
from gaba.turbofan import _recipe, checkpoint, windows
from gaba.turbofan._config import TrainConfig
from gaba.turbofan.engines import check_conditions
from gaba.turbofan.evaluate import predict, restored
from gaba.turbofan.export import Format, export
from gaba.turbofan.fleet import Fleet
from gaba.turbofan.interval import Interval
from gaba.turbofan.metrics import rmse
from gaba.turbofan.model import TurbofanNet
from gaba.turbofan.normalise import Normaliser
from gaba.turbofan.tables import checked

with needs("gaba.turbofan needs", "turbofan", "pandas"):
    import pandas as pd

__all__ = ["Run", "open_run"]


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
            frame: A row a cycle, with the columns of the run, ``config.columns.needed``. For
                C-MAPSS: ``unit`` (any name of an engine), ``cycle``, 3 settings and 14 sensors.
                Give each engine from its first cycle on: the sensors are averaged over its past.
            every_cycle: Whether to predict at every cycle, from the 30th of an engine on (or as
                long a window as the run has). By default, and for a shorter record, there is one
                line, for its last cycle.

        Returns:
            ``unit``, ``cycle``, ``rul`` (cycles), ``rul_low`` and ``rul_high`` (the ends of the
            interval, see :class:`~gaba.turbofan.interval.Interval`), ``health`` (``"normal"``,
            ``"degrading"`` or ``"critical"``) and ``p_normal``, ``p_degrading``, ``p_critical``.

        Raises:
            ValueError: A column is missing, a value is not finite, an engine's cycles repeat (or,
                with C-MAPSS, have a gap), or its settings are of no operating condition that the
                run has seen.
        """
        engines, names = checked(frame, self.config.columns)
        check_conditions(engines, names, self.normaliser)
        seen = _recipe.cut(self.config, engines, self.normaliser)
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

    def export(self, path: str | Path, format: Format | None = None) -> Path:
        """Write the model as one file, with the normaliser and the averages of sensors inside.

        The input ``records`` holds raw values, ``config.columns.inputs`` in that order, float64
        (batch, cycles, features). Give each unit from its first cycle on, as for :meth:`predict`;
        the numbers are those of :meth:`predict`. The outputs are ``rul``, float32 (batch,), in
        cycles, and ``health``, float32 (batch, 3). Nothing is checked inside the graph: an unknown
        operating condition counts as the nearest known one.

        Args:
            path: Ends in ``.onnx`` or ``.pt2``.
            format: ``"onnx"`` or ``"torch"``; by default as ``path`` ends.

        Returns:
            The path.

        Raises:
            ValueError: ``path`` ends otherwise.
            ImportError: The extra ``onnx`` is not installed.
        """
        return export(self.config, self.model, self.normaliser, path, format)


def open_run(
    run_dir: str | Path,
    *,
    data_dir: str | Path | None = None,
    fleet: Fleet | pd.DataFrame | None = None,
) -> Run:
    """Open a finished run to predict with it.

    A run keeps the interval of its model. For a run of an older version it is computed again from
    the run's data, which are read for that alone. Where the run's device is not at hand, the CPU
    predicts.

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
    try:
        config.usable_device()
    except ValueError:
        config = replace(config, device="cpu")
    state = checkpoint.load(Path(run_dir, checkpoint.CHECKPOINT))
    if not state["finished"]:
        raise ValueError(
            f"{run_dir} is not finished: it stopped after step {state['steps']} of at most "
            f"{config.steps}; finish it with `gaba train turbofan --resume {run_dir}`"
        )
    model, normaliser = restored(config, state)
    if (kept := state["best"].get("interval")) is not None:
        return Run(config, model, normaliser, Interval.from_dict(kept))
    fleet = _recipe.fleet_of(config, fleet, data_dir)
    held = _recipe.prepared(config, fleet, normaliser).validation
    rul = predict(model, held.inputs).rul
    found, expected = rmse(rul, held.rul), state["best"]["epoch"]["rmse"]
    if not math.isclose(found, expected, rel_tol=1e-3):
        raise ValueError(
            f"the data are not those of {run_dir}: its validation engines must give an RMSE of "
            f"{expected:.4g} cycles, found {found:.4g}; name the data that it was trained on"
        )
    return Run(
        config, model, normaliser, Interval.fit(rul, held.rul, held.unit, cap=config.rul_cap)
    )
