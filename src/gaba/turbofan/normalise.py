"""Inputs of different units and operating conditions, made comparable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, final

import numpy as np

from gaba.turbofan import _conditions
from gaba.turbofan.fleet import CMAPSS, Columns

if TYPE_CHECKING:
    from typing import Literal

    import pandas as pd
    from numpy.typing import ArrayLike, NDArray


@final
@dataclass(frozen=True, eq=False)
class Normaliser:
    """Makes the inputs comparable: z = (x − mean) · scale.

    A sensor is normalised within the operating condition of its row, the one whose ``centres`` lie
    nearest to its settings: conditions change a sensor hundreds of times more than wear does. A
    setting is normalised over all rows. ``scale`` is 1/standard deviation, and 0 for what does not
    vary. C-MAPSS has 3 settings and 14 sensors.

    Attributes:
        centres: Settings at the middle of each condition, (conditions, settings).
        setting_mean: Mean of each setting, (settings,).
        setting_scale: 1/standard deviation of each setting, or 0, (settings,).
        mean: Mean of each sensor by condition, (conditions, sensors).
        scale: 1/standard deviation of each sensor by condition, or 0, (conditions, sensors).
        reach: How far each setting may lie from its condition, (settings,): what ``columns`` says,
            else twice as far as any training row does, and at least 1 % of its largest value.
        columns: What they are the columns of.
    """

    centres: NDArray[np.float64]
    setting_mean: NDArray[np.float64]
    setting_scale: NDArray[np.float64]
    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    reach: NDArray[np.float64]
    columns: Columns = CMAPSS

    @classmethod
    def fit(
        cls,
        frame: pd.DataFrame,
        columns: Columns = CMAPSS,
        conditions: int | Literal["auto"] = "auto",
    ) -> Normaliser:
        """Fits the conditions, the means and the standard deviations to the rows of ``frame``.

        Args:
            frame: Rows of training engines.
            columns: Which of its columns are settings and sensors.
            conditions: The number of operating conditions. ``"auto"`` tries 2 to 10 with k-means
                and takes the number with the largest silhouette; one if none is above 0.7.

        Raises:
            ValueError: The settings have fewer than ``conditions`` different values.
        """
        settings, sensors = _split(frame, columns)
        known = np.zeros(len(columns.settings)) if columns.reach is None else columns.reach
        jitter = np.asarray(known, dtype=np.float64)
        centres = _conditions.find(settings, conditions, jitter)
        condition = _conditions.nearest(settings, centres)
        each = [_mean_and_scale(sensors[condition == c]) for c in range(len(centres))]
        setting_mean, setting_scale = _mean_and_scale(settings)
        setting_scale = np.where(np.ptp(settings, axis=0) <= jitter, 0.0, setting_scale)
        mean, scale = (np.stack(parts) for parts in zip(*each, strict=True))
        reach = jitter
        if columns.reach is None:
            apart = np.abs(settings - centres[condition]).max(axis=0)
            reach = np.maximum(2 * apart, 0.01 * np.abs(settings).max(axis=0))
        return cls(centres, setting_mean, setting_scale, mean, scale, reach, columns)

    def condition(self, frame: pd.DataFrame) -> NDArray[np.int64]:
        """The operating condition of each row, (rows,)."""
        return _conditions.nearest(_split(frame, self.columns)[0], self.centres)

    def knows(self, frame: pd.DataFrame) -> NDArray[np.bool_]:
        """Whether each row is of an operating condition that was seen, within reach, (rows,)."""
        settings = _split(frame, self.columns)[0]
        apart = np.abs(settings - self.centres[_conditions.nearest(settings, self.centres)])
        return np.all(apart <= self.reach, axis=1)

    def transform(self, frame: pd.DataFrame) -> NDArray[np.float32]:
        """The normalised inputs of each row, settings first, float32, (rows, inputs)."""
        settings, sensors = _split(frame, self.columns)
        condition = _conditions.nearest(settings, self.centres)
        z = (sensors - self.mean[condition]) * self.scale[condition]
        z_settings = (settings - self.setting_mean) * self.setting_scale
        return np.concatenate((z_settings, z), axis=1).astype(np.float32)

    def to_arrays(self) -> dict[str, NDArray[np.float64]]:
        """Plain arrays by name, from which :meth:`from_arrays` makes the same normaliser."""
        return {name: np.array(getattr(self, name)) for name in _arrays()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, ArrayLike], columns: Columns = CMAPSS) -> Normaliser:
        """The normaliser of ``columns`` whose :meth:`to_arrays` gave ``arrays``.

        Arrays of an older version have no ``reach``; that of ``columns`` is taken.

        Raises:
            ValueError: A name is missing or unknown, or the arrays are not of ``columns``.
        """
        names = _arrays()
        known = {} if columns.reach is None else {"reach": columns.reach}
        whole = {**known, **arrays}
        if set(whole) != set(names):
            raise ValueError(f"arrays: must hold {', '.join(names)}, found {', '.join(arrays)}")
        made = {name: np.asarray(whole[name], dtype=np.float64) for name in names}
        found = made["centres"].shape[1:] + made["mean"].shape[1:]
        if found != (len(columns.settings), len(columns.sensors)):
            raise ValueError(
                f"arrays: must be of {len(columns.settings)} settings and {len(columns.sensors)} "
                f"sensors, found {' and '.join(map(str, found))}"
            )
        return cls(**made, columns=columns)


def _arrays() -> list[str]:
    return [f.name for f in fields(Normaliser) if f.name != "columns"]


def _split(
    frame: pd.DataFrame, columns: Columns
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    values = frame[list(columns.inputs)].to_numpy(dtype=np.float64)
    return values[:, : len(columns.settings)], values[:, len(columns.settings) :]


def _mean_and_scale(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    varies = np.ptp(values, axis=0) > 0
    deviation = np.where(varies, values.std(axis=0), 1.0)
    return values.mean(axis=0), np.where(varies, 1.0 / deviation, 0.0)
