"""A history laid out for the checks: which entries count for what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from gaba.record.history import History

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@final
@dataclass(frozen=True)
class View:
    """The columns of a history, and the three masks that every check needs.

    ``present`` (N, K): the step had the task. A missing task has a NaN loss and weight 0.
    ``pulls`` (N, K): norms that were measured in a finite step and are above 0; NaN elsewhere.
    ``complete`` (N,): finite steps that had every task, so that their weights can be compared.
    """

    tasks: tuple[str, ...]
    steps: NDArray[np.int64]
    losses: Floats
    norms: Floats
    weights: Floats
    saturated: Bools
    gain: Floats
    finite: Bools
    measured: Bools
    present: Bools
    pulls: Floats
    complete: Bools

    @classmethod
    def of(cls, history: History) -> View:
        """The view of ``history``."""
        floats = {
            name: np.asarray(getattr(history, name), dtype=np.float64)
            for name in ("losses", "norms", "weights", "gain")
        }
        finite = np.asarray(history.finite, dtype=np.bool_)
        measured = np.asarray(history.measured, dtype=np.bool_)
        norms, weights = floats["norms"], floats["weights"]
        present = ~(np.isnan(floats["losses"]) & (weights == 0))
        usable = (finite & measured)[:, None] & present & (norms > 0)
        return cls(
            tasks=tuple(history.tasks),
            steps=np.asarray(history.steps, dtype=np.int64),
            present=present,
            pulls=np.where(usable & np.isfinite(norms), norms, np.nan),
            complete=np.all(present, axis=1) & finite,
            saturated=np.asarray(history.saturated, dtype=np.bool_),
            finite=finite,
            measured=measured,
            **floats,
        )

    @property
    def contested(self) -> Bools:
        """Steps (N,) in which at least two tasks pulled, so that a balance exists."""
        return np.isfinite(self.pulls).sum(axis=1) >= 2

    def step(self, row: int) -> int:
        """The number of the step in this row."""
        return int(self.steps[row])


def runs(mask: Bools) -> list[tuple[int, int]]:
    """The stretches in which ``mask`` (N,) is true, as (first row, length).

    >>> runs(np.array([True, False, True, True]))
    [(0, 1), (2, 2)]
    """
    padded = np.concatenate(([False], mask, [False]))
    edges = np.flatnonzero(padded[1:] != padded[:-1])
    return [(int(a), int(b - a)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def task_medians(values: Floats) -> Floats:
    """The median (K,) over steps of ``values`` (N, K), NaN where a task never has one."""
    return np.array(
        [
            np.median(column[known]) if (known := ~np.isnan(column)).any() else np.nan
            for column in values.T
        ]
    )
