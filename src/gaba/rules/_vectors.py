"""What rules do to vectors of tasks: settings as rows, known values, and a softmax over some."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gaba.tensors import DTYPE, as_work


def zeros(n_tasks: int) -> Tensor:
    """(K,) zeros of a state."""
    return torch.zeros(n_tasks, dtype=DTYPE)


def ones(n_tasks: int) -> Tensor:
    """(K,) ones of a state."""
    return torch.ones(n_tasks, dtype=DTYPE)


def counts(n_tasks: int) -> Tensor:
    """(K,) counters of a state, all 0."""
    return torch.zeros(n_tasks, dtype=torch.int64)


def nobody(n_tasks: int) -> Tensor:
    """(K,) flags of a state, none set."""
    return torch.zeros(n_tasks, dtype=torch.bool)


def row(values: Sequence[float], like: Tensor) -> Tensor:
    """``values`` (K,) in the dtype and on the device of ``like``.

    The tensor is filled on its own device: copying a list there would wait for it.
    """
    return torch.stack([like.new_full((), value) for value in values])


def proportions(ratios: Sequence[float] | None, like: Tensor) -> Tensor:
    """``ratios`` scaled to mean 1, or ones for None, in the shape of ``like`` (..., K)."""
    even = torch.ones_like(like)
    if ratios is None:
        return even
    mean = sum(ratios) / len(ratios)
    return even * row([ratio / mean for ratio in ratios], like)


def known(values: Tensor, otherwise: float) -> tuple[Tensor, Tensor]:
    """``values`` (..., K) with ``otherwise`` in place of NaN, and the mask of the known ones."""
    values = as_work(values)
    here = ~values.isnan()
    return torch.where(here, values, otherwise), here


def softmax(values: Tensor, among: Tensor) -> Tensor:
    """e^{v_k} / Σ_j e^{v_j} over the tasks in the mask ``among``, 0 for the others."""
    inside = torch.where(among, values, -math.inf)
    return torch.where(among, torch.softmax(inside, -1), 0.0)


def positive(values: Tensor) -> Tensor:
    """``values``, NaN where they are not above 0: the step is then dropped."""
    return torch.where(values > 0, values, math.nan)
