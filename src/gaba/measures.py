"""What weights do to norms and Gramians: contributions, imbalance and shares."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from gaba.arrays import as_float, namespace

if TYPE_CHECKING:
    from gaba.arrays import Array


def contributions(weights: Array, norms: Array) -> Array:
    """How hard each task really pulls, c_k = λ_k g_k.

    λ_k is the weight of task k and g_k its norm; both (..., K) and of one kind, the answer too, in
    float64 and in the norms' unit. NaN propagates, and a norm that is NaN at weight 0 (a missing
    task) has a contribution of NaN.

    Raises:
        ValueError: The two do not have the same number of tasks.

    Example:
        >>> import numpy as np
        >>> contributions(np.array([0.5, 0.5]), np.array([5.0, 0.01])).tolist()
        [2.5, 0.005]
    """
    left, right = as_float(weights), as_float(norms)
    _same_tasks("contributions", left, "norms", right)
    return left * right


def imbalance(weights: Array, norms: Array) -> Array:
    """How unequal the contributions are, max_k c_k / min_k c_k with c_k = λ_k g_k.

    λ_k is the weight of task k and g_k its norm, both (..., K); the answer (...,) has no unit and
    is 1 where all pull equally hard. It is infinite where a task does not pull and another does,
    and 1 where none does. A task with weight 0 and a norm of NaN is missing and left out; any other
    NaN propagates, and of no task at all the answer is NaN.

    Raises:
        ValueError: The two do not have the same number of tasks.

    Example:
        >>> import numpy as np
        >>> float(imbalance(np.array([0.5, 0.5]), np.array([5.0, 0.01])))
        500.0
    """
    pull: Any = contributions(weights, norms)
    xp = namespace(pull)
    missing = (as_float(weights) == 0) & xp.isnan(as_float(norms))
    largest = xp.amax(xp.where(missing, -math.inf, pull), -1)
    smallest = xp.amin(xp.where(missing, math.inf, pull), -1)
    ratio = largest / xp.where(smallest == 0, 1.0, xp.where(smallest == math.inf, 1.0, smallest))
    ratio = xp.where(smallest == 0, xp.where(largest == 0, 1.0, math.inf), ratio)
    return xp.where(missing.all(-1) | xp.isnan(largest), math.nan, ratio)


def shares(weights: Array, gramian: Array) -> Array:
    """The part of the combined update that each task accounts for, s_k = λ_k (Gλ)_k / λᵀGλ.

    λ_k (..., K) is the weight of task k and G (..., K, K) the Gramian of the gradients; the answer
    (..., K) is of the same kind, in float64, has no unit and sums to 1. A share is negative where a
    task opposes the update. NaN where the combined update is 0, and NaN propagates.

    Raises:
        ValueError: The Gramian is not (..., K, K) for the K of the weights.

    Example:
        The last two of these tasks pull as hard as the first, but against each other.

        >>> import numpy as np
        >>> gramian = np.array([[1, 0, 0], [0, 1, -0.9], [0, -0.9, 1]])
        >>> shares(np.array([1, 1, 1]) / 3, gramian).round(3).tolist()
        [0.833, 0.083, 0.083]
    """
    left, right = as_float(weights), as_float(gramian)
    _same_tasks("shares", left, "gramian", right)
    if right.ndim < 2 or right.shape[-2] != right.shape[-1]:
        raise ValueError(
            f"shares: gramian must have shape (..., K, K), found {tuple(right.shape)}; pass all "
            f"inner products of the gradients"
        )
    xp = namespace(left)
    parts = left * (right @ left[..., None])[..., 0]
    total = xp.sum(parts, -1, keepdims=True)
    return parts / xp.where(total == 0, math.nan, total)


def _same_tasks(measure: str, weights: Any, name: str, other: Any) -> None:
    if weights.ndim == 0 or other.ndim == 0 or weights.shape[-1] != other.shape[-1]:
        raise ValueError(
            f"{measure}: weights and {name} must have the same tasks on the last axis, found "
            f"{tuple(weights.shape)} and {tuple(other.shape)}; pass one value a task"
        )
