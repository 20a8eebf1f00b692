"""What the weightings with a memory share: masks of missing tasks, checks, and their dtype."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gaba.arrays import as_float, work_dtype

DTYPE = work_dtype(torch.get_default_device())
"""The dtype of the states that ``init`` gives."""


def zeros(n_tasks: int) -> Tensor:
    """(K,) zeros of a state."""
    return torch.zeros(n_tasks, dtype=DTYPE)


def counts(n_tasks: int) -> Tensor:
    """(K,) counters of a state, all 0."""
    return torch.zeros(n_tasks, dtype=torch.int64)


def masked(values: Tensor, present: Tensor | None, missing: float) -> tuple[Tensor, Tensor]:
    """The values (K,) without graph, ``missing`` where a task is, and the mask (K,) of the tasks.

    Args:
        values: (K,).
        present: (K,), bool; ``None`` for all.
        missing: what stands for a missing task.
    """
    values = as_float(values.detach())
    if present is None:
        return values, torch.ones(values.shape, dtype=torch.bool, device=values.device)
    return torch.where(present, values, missing), present


def softmax(values: Tensor, among: Tensor) -> Tensor:
    """e^{v_k} / Σ_j e^{v_j} over the tasks in the mask ``among``, 0 for the others."""
    inside = torch.where(among, values, -math.inf)
    return torch.where(among, torch.softmax(inside, -1), 0.0)


def positive(values: Tensor) -> Tensor:
    """``values``, NaN where they are not above 0: the Balancer learns nothing from such a step."""
    return torch.where(values > 0, values, math.nan)


def check_positive(rule: str, name: str, value: float) -> None:
    """Refuse a setting that is not finite and above 0."""
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{rule}: {name} must be finite and above 0, found {value!r}")


def check_not_negative(rule: str, name: str, value: float) -> None:
    """Refuse a setting that is not finite and zero or more."""
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{rule}: {name} must be finite and zero or more, found {value!r}")


def check_count(rule: str, name: str, value: int, least: int = 1) -> None:
    """Refuse a setting that is no int of at least ``least``."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{rule}: {name} must be an int of at least {least}, found {value!r}")
