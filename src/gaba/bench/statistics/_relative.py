"""Relative measures of several tasks: Δm against single-task models, and Pareto fronts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["pareto_front", "relative_change"]


def relative_change(
    values: ArrayLike,
    baseline: ArrayLike,
    higher_is_better: Sequence[bool] | NDArray[np.bool_],
    tasks: Sequence[str] | None = None,
) -> float:
    """Δm: the mean relative change of the metrics against single-task models; positive is better.

    Δm = 1/T Σ_t 1/n_t Σ_{i in t} (−1)^{l_i} (M_i − B_i)/B_i, where M_i is the metric of the
    multi-task model, B_i that of the single-task model of its task, l_i = 1 if lower is better,
    and every task t counts the same, however many metrics n_t judge it (Maninis et al. 2019,
    "Attentive single-tasking of multiple tasks", eq. 4, with this sign; Vandenhende et al. 2021,
    eq. 5, for several metrics a task).

    Args:
        values: (m,) metrics M.
        baseline: (m,) metrics B, not 0.
        higher_is_better: (m,) whether more is better.
        tasks: (m,) the task that each metric judges; ``None``: each its own.

    Returns:
        Δm, dimensionless: 0.1 is 10 % better than single-task models. NaN if a value is NaN or a
        baseline is 0.

    Raises:
        ValueError: the lengths differ.

    Example:
        >>> relative_change([9.0, 0.8], [10.0, 0.8], [False, True])
        0.05
    """
    m = np.asarray(values, dtype=np.float64)
    b = np.asarray(baseline, dtype=np.float64)
    up = np.asarray(higher_is_better, dtype=bool)
    names = list(range(len(m))) if tasks is None else list(tasks)
    if not len(m) == len(b) == len(up) == len(names):
        raise ValueError(
            f"values, baseline, higher_is_better and tasks must be of one length, found {len(m)}, "
            f"{len(b)}, {len(up)} and {len(names)}: give one a metric"
        )
    if not len(m) or (b == 0).any():
        return float("nan")
    change = np.where(up, 1, -1) * (m - b) / b
    parts = [change[[name == task for name in names]].mean() for task in dict.fromkeys(names)]
    return float(np.mean(parts))


def pareto_front(points: ArrayLike) -> NDArray[np.int64]:
    """The points that no other is as good as in everything and better in something.

    Args:
        points: (n, d), lower is better in each of the d columns; rows with NaN are never in it.

    Returns:
        Positions of the points of the front, by the first column, then the next. Of equal points
        all are in it.

    Raises:
        ValueError: ``points`` is not two-dimensional.

    Example:
        >>> pareto_front([[3.0, 1.0], [1.0, 3.0], [3.0, 3.0], [2.0, 2.0]]).tolist()
        [1, 3, 0]
    """
    x = np.asarray(points, dtype=np.float64)
    if x.ndim != 2:
        raise ValueError(f"points must be (n, d), found shape {x.shape}: give a row a run")
    known = np.flatnonzero(~np.isnan(x).any(axis=1))
    kept = [
        i
        for i in known
        if not ((x[known] <= x[i]).all(axis=1) & (x[known] < x[i]).any(axis=1)).any()
    ]
    order = sorted(kept, key=lambda i: tuple(x[i]))
    return np.array(order, dtype=np.int64)
