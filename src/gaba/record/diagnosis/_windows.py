"""The steps of a history by accumulation window: what each optimizer step saw."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from gaba.record.history import History

Floats = NDArray[np.float64]


@final
@dataclass(frozen=True)
class Windows:
    """Which rows of a history make one optimizer step: ``rows`` (W, n), in order.

    Only whole windows count: a step that is cut short, or thinned out, does not show who was in it.
    """

    rows: NDArray[np.int64]

    @classmethod
    def of(cls, history: History) -> Windows:
        """The windows of ``history``; every row is one without accumulation or whole windows."""
        size = int(history.about.get("accumulate", "1"))
        every = cls(np.arange(len(history))[:, None])
        if size == 1 or not len(history):
            return every
        numbers = history.steps // size
        firsts = np.flatnonzero(np.diff(numbers, prepend=numbers[0] - 1))
        lengths = np.diff(np.append(firsts, len(numbers)))
        whole = firsts[lengths == size]
        return cls(whole[:, None] + np.arange(size)) if len(whole) else every

    @property
    def size(self) -> int:
        """n, how many micro-batches make one step."""
        return self.rows.shape[1]

    def last(self, values: NDArray[Any], known: NDArray[np.bool_]) -> NDArray[Any]:
        """(W, ...), the last of ``values`` (N, ...) of each window that is ``known``."""
        values, known = values[self.rows], known[self.rows]
        places = np.where(known.any(1), self.size - 1 - known[:, ::-1].argmax(1), self.size - 1)
        return np.take_along_axis(values, np.expand_dims(places, 1), 1)[:, 0]

    def fold(self, values: NDArray[Any], how: Callable[..., NDArray[Any]]) -> NDArray[Any]:
        """(W, ...), ``how`` (such as ``np.all``) over the rows of each window."""
        return how(values[self.rows], axis=1)

    def summed(self, norms: Floats, present: NDArray[np.bool_]) -> Floats:
        """(W, K), the norms of the gradients of whole windows; NaN where nothing is known.

        The mean norm where it is known, times the number of micro-batches with the task.
        """
        if self.size == 1:
            return norms[self.rows[:, 0]]
        found = norms[self.rows]
        known = ~np.isnan(found)
        count = known.sum(1)
        mean = np.where(known, found, 0).sum(1) / np.where(count, count, np.nan)
        return mean * present[self.rows].sum(1)

    def mean(self, values: Floats) -> Floats:
        """(W, K), the mean of what is known; what is not finite stays so."""
        found = values[self.rows]
        known = ~np.isnan(found)
        count = known.sum(1)
        with np.errstate(invalid="ignore"):
            return np.where(known, found, 0).sum(1) / np.where(count, count, np.nan)
