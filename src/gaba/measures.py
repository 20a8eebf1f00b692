"""What multipliers or weights do to norms and Gramians: contributions, imbalance and shares.

A task whose weight is 0 or NaN and whose norm is NaN is missing, and is left out. Any other NaN
propagates. Arrays give arrays and tensors give tensors, in float64.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gaba.tensors import from_any, same_kind

if TYPE_CHECKING:
    from gaba.tensors import Array


def contributions(weights: Array, norms: Array) -> Array:
    """How hard each task really pulls, c_k = λ_k g_k.

    Args:
        weights: (..., K), λ.
        norms: (..., K), g, in any one unit, which is that of the answer.

    Returns:
        (..., K); NaN for a missing task.

    Raises:
        ValueError: The two do not have the same number of tasks.

    Example:
        >>> import numpy as np
        >>> contributions(np.array([0.5, 0.5]), np.array([5.0, 0.01])).tolist()
        [2.5, 0.005]
    """
    left, right = from_any(weights), from_any(norms)
    _same_tasks("contributions", left, "norms", right)
    return same_kind(left * right, weights)


def imbalance(weights: Array, norms: Array) -> Array:
    """How unequal the contributions are, max_k c_k / min_k c_k with c_k = λ_k g_k.

    Args:
        weights: (..., K), λ.
        norms: (..., K), g.

    Returns:
        (...,), 1 where all pull equally hard. It is infinite where a task does not pull and another
        does, 1 where none does, and NaN where all are missing.

    Raises:
        ValueError: The two do not have the same number of tasks.

    Example:
        >>> import numpy as np
        >>> float(imbalance(np.array([0.5, 0.5]), np.array([5.0, 0.01])))
        500.0
    """
    left, right = from_any(weights), from_any(norms)
    _same_tasks("imbalance", left, "norms", right)
    missing = _missing(left, right)
    pull = left * right
    largest = torch.where(missing, -math.inf, pull).amax(-1)
    smallest = torch.where(missing, math.inf, pull).amin(-1)
    ratio = largest / torch.where((smallest == 0) | (smallest == math.inf), 1.0, smallest)
    ratio = torch.where(smallest == 0, torch.where(largest == 0, 1.0, math.inf), ratio)
    ratio = torch.where(missing.all(-1) | largest.isnan(), math.nan, ratio)
    return same_kind(ratio, weights)


def shares(weights: Array, gramian: Array) -> Array:
    """The part of the combined update that each task accounts for, s_k = λ_k (Gλ)_k / λᵀGλ.

    Args:
        weights: (..., K), λ.
        gramian: (..., K, K), G, all inner products of the gradients.

    Returns:
        (..., K), of sum 1. A share is negative where a task opposes the update, 0 for a missing
        task, and NaN where the combined update is 0.

    Raises:
        ValueError: The Gramian is not (..., K, K) for the K of the weights.

    Example:
        The last two of these tasks pull as hard as the first, but against each other.

        >>> import numpy as np
        >>> gramian = np.array([[1, 0, 0], [0, 1, -0.9], [0, -0.9, 1]])
        >>> shares(np.array([1, 1, 1]) / 3, gramian).round(3).tolist()
        [0.833, 0.083, 0.083]
    """
    left, right = from_any(weights), from_any(gramian)
    _same_tasks("shares", left, "gramian", right)
    if right.ndim < 2 or right.shape[-2] != right.shape[-1]:
        raise ValueError(
            f"shares: gramian must have shape (..., K, K), found {tuple(right.shape)}; pass all "
            f"inner products of the gradients"
        )
    missing = _missing(left, right.diagonal(dim1=-2, dim2=-1))
    left = torch.where(missing, 0.0, left)
    right = torch.where(missing[..., :, None] | missing[..., None, :], 0.0, right)
    parts = left * (right @ left[..., None])[..., 0]
    total = parts.sum(-1, keepdim=True)
    return same_kind(parts / torch.where(total == 0, math.nan, total), weights)


def _missing(weights: Tensor, norms: Tensor) -> Tensor:
    return ((weights == 0) | weights.isnan()) & norms.isnan()


def _same_tasks(measure: str, weights: Any, name: str, other: Any) -> None:
    if weights.ndim == 0 or other.ndim == 0 or weights.shape[-1] != other.shape[-1]:
        raise ValueError(
            f"{measure}: weights and {name} must have the same tasks on the last axis, found "
            f"{tuple(weights.shape)} and {tuple(other.shape)}; pass one value a task"
        )
