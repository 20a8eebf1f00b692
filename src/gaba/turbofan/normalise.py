"""Inputs of different units and operating conditions, made comparable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, final

import numpy as np

from gaba.extras import needs
from gaba.turbofan.fleet import INPUTS, SETTINGS

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

MAX_CONDITIONS = 6
"""C-MAPSS has 1 or 6 operating conditions."""

REACH = (1.0, 0.05, 1.0)
"""How far a setting may lie from its condition: altitude (1000 ft), Mach, throttle (deg).

Two conditions lie 5 apart or more in the first or the last; the jitter of C-MAPSS is 0.01.
"""


@final
@dataclass(frozen=True, eq=False)
class Normaliser:
    """Makes the inputs comparable: z = (x − mean) · scale.

    A sensor is normalised within the operating condition of its row, the one whose ``centres`` lie
    nearest to its settings: conditions change a sensor hundreds of times more than wear does. A
    setting is normalised over all rows. ``scale`` is 1/standard deviation, and 0 for what does not
    vary.

    Attributes:
        centres: Settings at the middle of each condition, (conditions, 3).
        setting_mean: Mean of each setting, (3,).
        setting_scale: 1/standard deviation of each setting, or 0, (3,).
        mean: Mean of each sensor by condition, (conditions, 14).
        scale: 1/standard deviation of each sensor by condition, or 0, (conditions, 14).
    """

    centres: NDArray[np.float64]
    setting_mean: NDArray[np.float64]
    setting_scale: NDArray[np.float64]
    mean: NDArray[np.float64]
    scale: NDArray[np.float64]

    @classmethod
    def fit(cls, frame: pd.DataFrame) -> Normaliser:
        """Fits the conditions, the means and the standard deviations to the rows of ``frame``."""
        settings, sensors = _columns(frame)
        centres = _find_centres(settings)
        condition = _nearest(settings, centres)
        each = [_mean_and_scale(sensors[condition == c]) for c in range(len(centres))]
        setting_mean, setting_scale = _mean_and_scale(settings)
        if len(centres) == 1:  # only the jitter varies
            setting_scale = np.zeros_like(setting_scale)
        mean, scale = (np.stack(parts) for parts in zip(*each, strict=True))
        return cls(centres, setting_mean, setting_scale, mean, scale)

    def condition(self, frame: pd.DataFrame) -> NDArray[np.int64]:
        """The operating condition of each row, (rows,)."""
        return _nearest(_columns(frame)[0], self.centres)

    def knows(self, frame: pd.DataFrame) -> NDArray[np.bool_]:
        """Whether each row is of an operating condition that was seen, within REACH, (rows,)."""
        settings = _columns(frame)[0]
        apart = np.abs(settings - self.centres[_nearest(settings, self.centres)])
        return np.all(apart <= REACH, axis=1)

    def transform(self, frame: pd.DataFrame) -> NDArray[np.float32]:
        """The normalised inputs of each row, float32, (rows, 17)."""
        settings, sensors = _columns(frame)
        condition = _nearest(settings, self.centres)
        z = (sensors - self.mean[condition]) * self.scale[condition]
        z_settings = (settings - self.setting_mean) * self.setting_scale
        return np.concatenate((z_settings, z), axis=1).astype(np.float32)

    def to_arrays(self) -> dict[str, NDArray[np.float64]]:
        """Plain arrays by name, from which :meth:`from_arrays` makes the same normaliser."""
        return {f.name: np.array(getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, ArrayLike]) -> Normaliser:
        """The normaliser whose :meth:`to_arrays` gave ``arrays``.

        Raises:
            ValueError: A name is missing or unknown.
        """
        names = [f.name for f in fields(cls)]
        if set(arrays) != set(names):
            raise ValueError(f"arrays: must hold {', '.join(names)}, found {', '.join(arrays)}")
        return cls(**{name: np.asarray(arrays[name], dtype=np.float64) for name in names})


def _columns(frame: pd.DataFrame) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    values = frame[list(INPUTS)].to_numpy(dtype=np.float64)
    return values[:, : len(SETTINGS)], values[:, len(SETTINGS) :]


def _mean_and_scale(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    varies = np.ptp(values, axis=0) > 0
    deviation = np.where(varies, values.std(axis=0), 1.0)
    return values.mean(axis=0), np.where(varies, 1.0 / deviation, 0.0)


def _find_centres(settings: NDArray[np.float64]) -> NDArray[np.float64]:
    """The middle of each operating condition, (conditions, 3), ordered by altitude.

    Two conditions differ in altitude (1000 ft) or throttle angle (deg), rounded to whole numbers:
    by at least 5 in C-MAPSS, where the jitter is at most 0.01. K-means looks for that many centres.
    """
    distinct = len(np.unique(np.round(settings[:, [0, 2]]) + 0.0, axis=0))
    if distinct == 1:
        return settings.mean(axis=0, keepdims=True)
    with needs("gaba.turbofan needs", "turbofan", "sklearn"):
        from sklearn.cluster import KMeans
    spread = np.where(np.ptp(settings, axis=0) > 0, np.ptp(settings, axis=0), 1.0)
    clusters = KMeans(n_clusters=min(distinct, MAX_CONDITIONS), n_init=10, random_state=0)
    centres = clusters.fit(settings / spread).cluster_centers_ * spread
    return centres[np.lexsort(centres.T[::-1])]


def _nearest(settings: NDArray[np.float64], centres: NDArray[np.float64]) -> NDArray[np.int64]:
    spread = np.ptp(centres, axis=0)
    apart = (settings[:, None] - centres) / np.where(spread > 1e-6, spread, 1.0)
    return np.argmin((apart**2).sum(axis=-1), axis=1)
