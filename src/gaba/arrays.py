"""The few operations on which NumPy arrays and torch tensors differ.

Every rule is written once, for both. What the two libraries spell alike (``xp.where``, ``xp.log``,
``x.sum(-1, keepdims=True)``) is used as it is; the rest is here.
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

Array = TypeVar("Array", "np.ndarray[Any, Any]", torch.Tensor)
"""A NumPy array or a torch tensor; a function that takes one returns the same kind."""


def namespace(x: object) -> ModuleType:
    """``torch`` for a tensor, ``numpy`` for anything else."""
    return torch if isinstance(x, torch.Tensor) else np


def work_dtype(device: torch.device) -> torch.dtype:
    """The dtype of norms, weights and states: float64, or float32 where the device lacks it."""
    return torch.float32 if device.type == "mps" else torch.float64


def as_float(x: ArrayLike | torch.Tensor) -> Any:
    """``x`` as a float64 array, or as a tensor of the working dtype on its own device."""
    if isinstance(x, torch.Tensor):
        return x.to(work_dtype(x.device))
    return np.asarray(x, dtype=np.float64)


def on_device(values: Sequence[int] | Sequence[bool], device: torch.device) -> torch.Tensor:
    """``values`` as a tensor on ``device``, copied there without waiting for it."""
    return torch.tensor(values).to(device, non_blocking=True)
