"""What the statistics ask of their arguments, and how they find SciPy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gaba.extras import library

__all__ = ["Floats", "scipy_part", "table", "vector"]

Floats = NDArray[np.float64]


def scipy_part(name: str) -> Any:
    """``scipy.NAME``, or one line that says which extra brings it."""
    return library(f"scipy.{name}", "the statistics of the benchmark need", "bench")


def vector(name: str, values: ArrayLike, least: int = 1) -> Floats:
    """``values`` as (n,) finite float64 with n at least ``least``."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size < least:
        raise ValueError(
            f"{name} must be a vector of at least {least}, found shape {array.shape}: "
            "give one number a seed"
        )
    if not np.isfinite(array).all():
        raise ValueError(
            f"{name} must be finite, found {array[~np.isfinite(array)][0]}: leave out or replace "
            "runs that diverged"
        )
    return array


def table(name: str, values: ArrayLike) -> Floats:
    """``values`` as (N, k) float64 without NaN, k at least 2."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or array.shape[0] < 1 or array.shape[1] < 2:
        raise ValueError(
            f"{name} must be (blocks, methods) with at least 2 methods, found shape {array.shape}: "
            "give a row a problem"
        )
    if np.isnan(array).any():
        raise ValueError(
            f"{name} must have no NaN, found {int(np.isnan(array).sum())}: leave out the problems "
            "that a method lacks"
        )
    return array
