"""An interval around each predicted RUL, calibrated on engines that the model did not train on."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np

from gaba.turbofan._checks import check

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["COVERAGE", "Interval"]

COVERAGE = 0.9
"""The share of engines whose RUL should lie in their interval."""

PARTS = 5
"""Equal parts of the range of RUL, each with a half width of its own."""


@final
@dataclass(frozen=True)
class Interval:
    """Predicted RUL ± a half width, by split conformal prediction on the validation engines.

    The half width is a quantile of |predicted − true| among validation windows whose prediction
    lies in the same fifth of [0, cap]: errors grow with the remaining life, so one width for all
    would be too wide near failure and too narrow in mid-life. The windows of an engine resemble
    each other, so each of K engines counts as one: its windows share the weight 1/(K + 1), and
    what is left, 1/(K + 1), stands for the engine to come (Lee, Barber, Willett, Distribution-free
    inference with hierarchical data, 2023). A new engine of the same kind, at a random one of its
    windows, is then covered with a probability of at least ``coverage``. With fewer than 9 engines
    in a part no finite width keeps 90 %, and the interval is the whole range.

    The validation engines also chose the epoch (early stopping). Their errors are a little smaller
    for that, and the coverage of other engines may be a little lower than promised.

    Attributes:
        coverage: The nominal coverage.
        cap: The largest RUL label. The interval is of the capped RUL: an upper end at the cap means
            the cap or more.
        half_widths: In cycles, one for each part; infinite where there are too few engines.
        engines: Validation engines in each part.
    """

    coverage: float
    cap: float
    half_widths: tuple[float, ...]
    engines: tuple[int, ...]

    @classmethod
    def fit(
        cls,
        predicted: ArrayLike,
        true: ArrayLike,
        unit: ArrayLike,
        *,
        cap: float,
        coverage: float = COVERAGE,
    ) -> Interval:
        """Calibrate on windows of engines that the model did not train on.

        Args:
            predicted: RUL in cycles, (N,).
            true: RUL, capped, in cycles, (N,).
            unit: The engine of each window, (N,).
            cap: The largest RUL label.
            coverage: Between 0 and 1.

        >>> engine = np.arange(9)
        >>> Interval.fit(np.full(9, 10.0), 10.0 + engine, engine, cap=125.0).half_widths
        (8.0, inf, inf, inf, inf)
        """
        check("coverage", coverage, above=0, below=1)
        predicted, unit = np.asarray(predicted, np.float64), np.asarray(unit)
        error = np.abs(predicted - np.asarray(true, np.float64))
        part = _part(predicted, cap, PARTS)
        rows = [part == number for number in range(PARTS)]
        return cls(
            coverage,
            cap,
            tuple(_half_width(error[among], unit[among], coverage) for among in rows),
            tuple(len(np.unique(unit[among])) for among in rows),
        )

    def ends(self, predicted: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The lower and the upper end at each predicted RUL (N,): in [0, cap], around it.

        >>> low, high = Interval(0.9, 125.0, (8.0, float("inf")), (9, 2)).ends([3.0, 50.0, 70.0])
        >>> low.tolist(), high.tolist()
        ([0.0, 42.0, 0.0], [11.0, 58.0, 125.0])
        """
        p = np.asarray(predicted, np.float64)
        half = np.asarray(self.half_widths)[_part(p, self.cap, len(self.half_widths))]
        least, most = np.minimum(p, 0.0), np.maximum(p, self.cap)
        return np.clip(p - half, least, most), np.clip(p + half, least, most)

    def to_dict(self) -> dict[str, Any]:
        """Plain values by name, for a checkpoint.

        >>> Interval.from_dict(Interval(0.9, 125.0, (8.0,), (9,)).to_dict()).half_widths
        (8.0,)
        """
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Interval:
        """The interval whose :meth:`to_dict` gave ``values``."""
        return cls(**values)


def _part(predicted: NDArray[np.float64], cap: float, parts: int) -> NDArray[np.int64]:
    return np.clip(np.floor(predicted / cap * parts), 0, parts - 1).astype(np.int64)


def _half_width(error: NDArray[np.float64], unit: NDArray[Any], coverage: float) -> float:
    """The least width at which the weight of the errors within it reaches ``coverage``."""
    _, engine, count = np.unique(unit, return_inverse=True, return_counts=True)
    order = np.argsort(error, kind="stable")
    weight = np.cumsum(1.0 / count[engine[order]]) / (len(count) + 1)
    enough = np.flatnonzero(weight >= coverage - 1e-9)
    return float(error[order[enough[0]]]) if enough.size else float("inf")
