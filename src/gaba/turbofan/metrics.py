"""How good the predictions are: RMSE and the NASA score of the RUL, and the health classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np
import torch

from gaba.extras import needs

with needs("gaba.turbofan needs", "turbofan", "torchmetrics"):
    from torchmetrics.functional import classification

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["HealthMetrics", "RulMetrics", "health_metrics", "nasa_score", "rmse", "rul_metrics"]

EARLY_SCALE = 13.0
LATE_SCALE = 10.0
N_CLASSES = 3


@final
@dataclass(frozen=True)
class RulMetrics:
    """``rmse`` in cycles, and the NASA ``score``, for which lower is better and 0 is perfect."""

    rmse: float
    score: float


@final
@dataclass(frozen=True)
class HealthMetrics:
    """``accuracy``, ``macro_f1``, and ``confusion[true][predicted]``, counted in windows."""

    accuracy: float
    macro_f1: float
    confusion: list[list[int]]


def rmse(predicted: ArrayLike, true: ArrayLike) -> float:
    """Root mean squared error √(mean (ŷ − y)²) of two vectors (N,), in cycles.

    Raises:
        ValueError: The two are not vectors of the same length, at least 1.

    >>> rmse([10, 20], [13, 24])
    3.5355339059327378
    """
    return float(np.sqrt(np.mean(_errors(predicted, true) ** 2)))


def nasa_score(predicted: ArrayLike, true: ArrayLike) -> float:
    """The NASA score Σ s(d) with d = predicted − true, in cycles: late costs more than early.

    s(d) = e^{−d/13} − 1 for d < 0 (early) and e^{d/10} − 1 otherwise (late). The sum grows with the
    number of engines, and one late engine can outweigh all others. An error above 7,000 cycles is
    infinite.

    Source: A. Saxena, K. Goebel, D. Simon, N. Eklund, "Damage Propagation Modeling for Aircraft
    Engine Run-to-Failure Simulation", PHM08, equation 9.

    Raises:
        ValueError: The two are not vectors of the same length, at least 1.

    >>> round(nasa_score([87, 110], [100, 100]), 6) == round(2 * (np.e - 1), 6)
    True
    """
    d = _errors(predicted, true)
    with np.errstate(over="ignore"):
        return float(np.expm1(np.where(d < 0, -d / EARLY_SCALE, d / LATE_SCALE)).sum())


def rul_metrics(predicted: ArrayLike, true: ArrayLike) -> RulMetrics:
    """:func:`rmse` and :func:`nasa_score` of the same predictions.

    >>> rul_metrics([100.0], [100.0])
    RulMetrics(rmse=0.0, score=0.0)
    """
    return RulMetrics(rmse(predicted, true), nasa_score(predicted, true))


def health_metrics(predicted: ArrayLike, true: ArrayLike) -> HealthMetrics:
    """Accuracy, macro-F1 and confusion matrix of class numbers 0, 1 and 2, each (N,).

    F1 of a class is 2 TP/(2 TP + FP + FN); macro-F1 is its mean over the classes that occur among
    the labels or the predictions.

    Raises:
        ValueError: The two are not vectors of the same length, at least 1.

    >>> health_metrics([0, 0, 1, 2], [0, 1, 1, 2])
    HealthMetrics(accuracy=0.75, macro_f1=0.777..., confusion=[[1, 0, 0], [1, 1, 0], [0, 0, 1]])
    """
    _errors(predicted, true)
    p, t = (torch.as_tensor(np.asarray(x, dtype=np.int64)) for x in (predicted, true))
    matrix = classification.multiclass_confusion_matrix(p, t, N_CLASSES)
    f1 = classification.multiclass_f1_score(p, t, N_CLASSES, average="macro")
    return HealthMetrics(
        accuracy=int(matrix.trace()) / len(t),
        macro_f1=float(f1),
        confusion=matrix.tolist(),
    )


def _errors(predicted: ArrayLike, true: ArrayLike) -> NDArray[np.float64]:
    p, t = np.asarray(predicted, dtype=np.float64), np.asarray(true, dtype=np.float64)
    if p.ndim != 1 or p.shape != t.shape or not p.size:
        raise ValueError(
            "predicted and true must be vectors of the same length, at least 1; "
            f"found shapes {p.shape} and {t.shape}"
        )
    return p - t
