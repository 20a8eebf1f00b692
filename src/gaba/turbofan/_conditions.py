"""How many operating conditions there are, and where in the space of the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gaba.extras import needs

if TYPE_CHECKING:
    from typing import Literal

    from numpy.typing import NDArray

MOST = 10
"""The most conditions that are looked for."""

APART = 0.7
"""The least mean silhouette of conditions that are told apart.

Above 0.7 Kaufman and Rousseeuw (Finding Groups in Data, 1990) speak of a strong structure. C-MAPSS
has 0.99 with its six conditions, and at most 0.5 where it has one.
"""

ROWS = 500
"""So many rows, drawn once for all, are enough to count conditions."""


def find(
    settings: NDArray[np.float64], wanted: int | Literal["auto"], jitter: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The middle of each operating condition, (conditions, settings), ordered by the first setting.

    K-means, each setting divided by its range. For ``"auto"`` it runs with 2 to 10 conditions on a
    sample; the number with the largest mean silhouette is taken if that is above 0.7, else there is
    one condition.

    Args:
        settings: Of each row, (rows, settings).
        wanted: The number of conditions, or ``"auto"``.
        jitter: Settings whose ranges do not exceed this are of one condition, (settings,).

    Raises:
        ValueError: ``wanted`` is more than the settings can have.

    >>> settings = np.repeat([[0.0], [10.0], [35.0]], 5, axis=0) + 0.01 * np.arange(15)[:, None]
    >>> find(settings, "auto", np.zeros(1)).round(2).ravel().tolist()
    [0.02, 10.07, 35.12]
    """
    extent = np.ptp(settings, axis=0)
    spread = np.where(extent > 0, extent, 1.0)
    if wanted == "auto":
        wanted = 1 if np.all(extent <= jitter) else _count(settings / spread)
    if wanted == 1:
        return settings.mean(axis=0, keepdims=True)
    if wanted > (distinct := _distinct(settings)):
        raise ValueError(
            f"conditions must be at most {distinct}, the number of different settings in the "
            f"training rows, found {wanted}"
        )
    with needs("gaba.turbofan needs", "turbofan", "sklearn"):
        from sklearn.cluster import KMeans
    clusters = KMeans(n_clusters=wanted, n_init=10, random_state=0)
    centres = clusters.fit(settings / spread).cluster_centers_ * spread
    return centres[np.lexsort(centres.T[::-1])]


def nearest(settings: NDArray[np.float64], centres: NDArray[np.float64]) -> NDArray[np.int64]:
    """The condition of each row, (rows,): the nearest centre, settings divided by their ranges.

    >>> nearest(np.array([[1.0], [9.0]]), np.array([[0.0], [10.0]])).tolist()
    [0, 1]
    """
    apart = (settings[:, None] - centres) / ranges(centres)
    return np.argmin((apart**2).sum(axis=-1), axis=1)


def ranges(centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """By what :func:`nearest` divides the settings, (settings,).

    >>> ranges(np.array([[0.0, 7.0], [10.0, 7.0]])).tolist()
    [10.0, 1.0]
    """
    spread = np.ptp(centres, axis=0)
    return np.where(spread > 1e-6, spread, 1.0)


def _distinct(settings: NDArray[np.float64]) -> int:
    return len(np.unique(settings, axis=0)) if settings.shape[1] else 1


def _count(settings: NDArray[np.float64]) -> int:
    with needs("gaba.turbofan needs", "turbofan", "sklearn"):
        from sklearn.cluster import KMeans
        from sklearn.metrics import silhouette_score
    if len(settings) > ROWS:
        drawn = np.random.default_rng(0).choice(len(settings), ROWS, replace=False)
        settings = settings[np.sort(drawn)]
    most = min(MOST, _distinct(settings), len(settings) - 1)
    score = {1: APART}
    for number in range(2, most + 1):
        clusters = KMeans(n_clusters=number, n_init=3, random_state=0)
        score[number] = float(silhouette_score(settings, clusters.fit_predict(settings)))
    return max(score, key=score.__getitem__)
