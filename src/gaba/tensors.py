"""The few operations on tensors that every part needs: the working dtype, and flat real views."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

Array = TypeVar("Array", "np.ndarray[Any, Any]", Tensor)
"""A NumPy array or a tensor; a function that takes one returns the same kind."""


def work_dtype(device: torch.device) -> torch.dtype:
    """The dtype of norms, multipliers and states: float64, or float32 where the device lacks it."""
    return torch.float32 if device.type == "mps" else torch.float64


DTYPE = work_dtype(torch.get_default_device())
"""The dtype of the states that ``init`` gives."""


def as_work(tensor: Tensor) -> Tensor:
    """``tensor`` without its graph, in the working dtype of its device."""
    return tensor.detach().to(work_dtype(tensor.device))


def on_device(values: Sequence[float] | Sequence[bool], device: torch.device) -> Tensor:
    """``values`` as a tensor on ``device``, copied there without waiting for it."""
    return torch.tensor(values).to(device, non_blocking=True)


def spread(
    values: Tensor, where: Sequence[int], n_tasks: int, missing: float = torch.nan
) -> Tensor:
    """Entries (k, ...) of the tasks at positions ``where`` → (K, ...), ``missing`` elsewhere.

    >>> spread(torch.tensor([1.0, 2.0]), (0, 2), 3)
    tensor([1., nan, 2.])
    """
    if len(where) == n_tasks:
        return values
    full = values.new_full((n_tasks, *values.shape[1:]), missing)
    return full.index_copy(0, on_device(where, values.device), values)


def spread_square(matrix: Tensor, where: Sequence[int], n_tasks: int) -> Tensor:
    """A matrix over the tasks at positions ``where`` → (K, K), with NaN for the others."""
    rows = spread(matrix, where, n_tasks)
    return spread(rows.T, where, n_tasks).T


def dense(gradient: Tensor) -> Tensor:
    """``gradient`` without its graph, dense and real: complex numbers become pairs."""
    plain = gradient.detach()
    plain = plain.to_dense() if plain.is_sparse else plain
    return torch.view_as_real(plain.resolve_conj()) if plain.is_complex() else plain


def entries(gradient: Tensor) -> Tensor:
    """The numbers of ``gradient`` that may differ from 0, real and without its graph."""
    plain = gradient.detach()
    return dense(plain.coalesce().values() if plain.is_sparse else plain)


def shaped(numbers: Tensor, like: Tensor) -> Tensor:
    """A row of numbers, as :func:`flat` gives it, in the shape and dtype of ``like``."""
    if like.is_complex():
        pairs = numbers.view(*like.shape, 2).clone()  # begins anywhere, and must begin at a pair
        return torch.view_as_complex(pairs).to(like.dtype)
    return numbers.view(like.shape).to(like.dtype)


def flat(gradient: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """:func:`dense` as one row of numbers, in ``dtype`` or in the working dtype."""
    whole = dense(gradient)
    return whole.to(work_dtype(whole.device) if dtype is None else dtype).flatten()


def length(parameter: Tensor) -> int:
    """How many real numbers ``parameter`` holds."""
    return parameter.numel() * (2 if parameter.is_complex() else 1)


def same_kind(result: Tensor, like: Any) -> Any:
    """``result`` as a NumPy array if ``like`` is no tensor: NumPy is served at the edge only."""
    return result if isinstance(like, Tensor) else result.cpu().numpy()


def from_any(values: Any) -> Tensor:
    """An array, a nested list or a tensor as a tensor in the working dtype."""
    if isinstance(values, Tensor):
        return as_work(values)
    return torch.from_numpy(np.array(values, dtype=np.float64))
