"""Whether the gradients of the tasks agree: the cosines of all steps in one matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from gaba.record.history import History

__all__ = ["Cosines", "known_cosines", "median_cosines"]

_CHUNK = 1024


@final
@dataclass(frozen=True)
class Cosines:
    """The cosines between the gradients of K tasks.

    Attributes:
        median: (K, K), over the steps; NaN for a pair that was never measured together.
        steps: in how many finite steps any pair was measured.

    Example:
        >>> Cosines(np.array([[1.0, -0.5], [-0.5, 1.0]]), steps=12).median[0, 1].item()
        -0.5
    """

    median: NDArray[np.float64]
    steps: int


def median_cosines(history: History) -> Cosines | None:
    """The median cosine of each pair over the finite steps; None if no step has any.

    Example:
        >>> import torch, gaba
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> balancer = gaba.Balancer(["a", "b"], shared=[w], method="equal-share")
        >>> step = balancer.backward({"a": w.sum(), "b": 3 * w[0]})
        >>> found = median_cosines(balancer.history)
        >>> found.steps, found.median.round(3).tolist()
        (1, [[1.0, 0.707], [0.707, 1.0]])
    """
    k, found = len(history.tasks), known_cosines(history)
    if not len(found):
        return None
    median = np.full((k, k), np.nan)
    seen = np.isfinite(found).any(axis=0)
    median[seen] = np.nanmedian(found[:, seen], axis=0)
    return Cosines(median, len(found))


def known_cosines(history: History) -> NDArray[np.float64]:
    """The cosines (M, K, K) of the finite steps where some are known, read in pieces.

    Example:
        >>> import gaba
        >>> known_cosines(gaba.History(["a", "b"])).shape
        (0, 2, 2)
    """
    k, found = len(history.tasks), []
    for start in range(0, len(history), _CHUNK):
        part = history[start : start + _CHUNK]
        cosines = part.cosines
        known = part.finite & np.isfinite(cosines[:, ~np.eye(k, dtype=bool)]).any(axis=1)
        found.append(cosines[known])
    return np.concatenate(found) if found else np.empty((0, k, k))
