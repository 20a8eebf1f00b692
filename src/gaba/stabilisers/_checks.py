"""What every stabiliser asks of its settings and of the values that come in."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gaba.arrays import as_float, work_dtype

DTYPE = work_dtype(torch.get_default_device())
"""The dtype of the states that ``init`` gives."""


def check_n_tasks(n_tasks: int) -> int:
    """``n_tasks`` itself, if there is at least one task."""
    return check_count("n_tasks", n_tasks, 1, "give the number of tasks")


def check_count(name: str, value: int, least: int, remedy: str) -> int:
    """``value`` itself, if it is an int of at least ``least``."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be an int of at least {least}, found {value!r}: {remedy}")
    return value


def check_decay(decay: float) -> float:
    """``decay`` itself, if it lies in [0, 1)."""
    if not 0 <= decay < 1:
        raise ValueError(
            f"decay must lie in [0, 1), found {decay!r}: .99 averages over about 100 steps, "
            "0 does not average"
        )
    return decay


def check_not_nan(name: str, value: float) -> float:
    """``value`` itself, if it is a number."""
    if math.isnan(value):
        raise ValueError(f"{name} must be a number, found nan: leave it out for no bound")
    return value


def incoming(
    value: Tensor, present: Tensor | None, n_tasks: int | None = None
) -> tuple[Tensor, Tensor]:
    """The value (K,) without its graph, in the working dtype, and the mask (K,) of its tasks."""
    if value.ndim != 1 or (n_tasks is not None and value.shape[0] != n_tasks):
        wanted = "(K,)" if n_tasks is None else f"({n_tasks},)"
        raise ValueError(
            f"value must have the shape {wanted} of the state, found {tuple(value.shape)}: "
            "give one number a task, missing tasks included"
        )
    if present is None:
        present = torch.ones(value.shape, dtype=torch.bool, device=value.device)
    elif present.dtype != torch.bool or present.shape != value.shape:
        raise ValueError(
            f"present must be a boolean mask of shape {tuple(value.shape)}, found {present.dtype} "
            f"of shape {tuple(present.shape)}: true for each task that this step has"
        )
    return as_float(value.detach()), present
