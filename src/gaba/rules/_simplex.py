"""What the rules share: scaling without overflow, tasks without a gradient, and the simplex.

One convention holds for every rule: a task whose norm is exactly 0 gets the uniform weight 1/K,
because no weight can make it contribute, and the others share the rest by the rule. So dropping
the task and normalising again gives the weights of the rule without it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch

from gaba.arrays import as_float, namespace

if TYPE_CHECKING:
    from collections.abc import Sequence


def checked(measured: Any, rule: str, what: str) -> Any:
    """``measured`` (..., K) in the working dtype; refuses what has no axis of tasks.

    Negative values are refused in NumPy input alone: to look at a tensor would stall its device.
    """
    values = as_float(measured)
    if values.ndim == 0 or values.shape[-1] == 0:
        raise ValueError(
            f"{rule}: {what} must have shape (..., K) with K >= 1, found {tuple(values.shape)}; "
            f"put one value a task on the last axis"
        )
    if isinstance(values, np.ndarray) and what == "norms" and bool((values < 0).any()):
        raise ValueError(
            f"{rule}: norms must be zero or more, found {values.min():g}; pass the lengths of the "
            f"gradients"
        )
    return values


@final
@dataclass(frozen=True)
class RelativeNorms:
    """Norms (..., K) over the smallest positive one of each vector.

    ``ratio`` is 1 or more, so that 1e-23 and 1e20 in one vector can be inverted, and 1 where the
    norm is 0. ``live`` is the mask of the norms that are not 0.
    """

    ratio: Any
    live: Any

    @classmethod
    def of(cls, norms: Any) -> RelativeNorms:
        """``norms`` scaled, by one factor a vector."""
        xp = namespace(norms)
        live = norms != 0
        smallest = xp.amin(xp.where(live, norms, math.inf), -1, keepdims=True)
        smallest = xp.where(smallest == math.inf, 1.0, smallest)
        return cls(xp.where(live, norms / smallest, 1.0), live)

    @property
    def n_live(self) -> Any:
        """How many norms are not 0 (..., 1)."""
        xp = namespace(self.ratio)
        ones = xp.ones_like(self.ratio)
        return xp.sum(xp.where(self.live, ones, 0.0), -1, keepdims=True)

    def weights(self, raw: Any) -> Any:
        """Weights in the proportions ``raw`` over the live tasks, 1/K for each of the others.

        A NaN among the norms or the live proportions makes the whole vector NaN, and so do live
        proportions that are all 0 (every norm infinite).
        """
        xp = namespace(raw)
        n_tasks, n_live = raw.shape[-1], self.n_live
        raw = xp.where(self.live, raw, 0.0)
        total = xp.sum(raw, -1, keepdims=True)
        broken = xp.isnan(total + xp.sum(self.ratio, -1, keepdims=True))
        broken = broken | ((total == 0) & (n_live > 0))
        scale = n_live / n_tasks / xp.where(total == 0, 1.0, total)
        weights = xp.where(self.live, raw * scale, 1.0 / n_tasks)
        return xp.where(broken, math.nan, weights)


def row(values: Sequence[float], like: Any) -> Any:
    """``values`` (K,) as the kind, dtype and device of ``like`` (..., K).

    A tensor is filled on its own device: copying a list there would wait for it.
    """
    if not isinstance(like, torch.Tensor):
        return np.asarray(values, dtype=like.dtype)
    return torch.stack([like.new_full((), value) for value in values])


def proportions(ratios: Sequence[float] | None, rule: str, like: Any) -> Any:
    """``ratios`` scaled to mean 1, or ones for None, in the shape and kind of ``like`` (..., K)."""
    ones = namespace(like).ones_like(like)
    if ratios is None:
        return ones
    matching(ratios, f"{rule}: ratios", like.shape[-1])
    mean = sum(ratios) / len(ratios)
    return ones * row([ratio / mean for ratio in ratios], like)


def identity_mask(like: Any) -> Any:
    """The diagonal (K, K) as booleans, where ``like`` (..., K) lives."""
    if isinstance(like, torch.Tensor):
        return torch.eye(like.shape[-1], dtype=torch.bool, device=like.device)
    return np.eye(like.shape[-1], dtype=np.bool_)


def positive_settings(
    values: Sequence[float], name: str, *, zero: bool = False
) -> tuple[float, ...]:
    """``values`` as a tuple of floats, refused unless finite and positive (or 0, where allowed)."""
    numbers = tuple(float(value) for value in values)
    if not numbers:
        raise ValueError(f"{name} must hold one value a task, found none; give at least one")
    for number in numbers:
        if not math.isfinite(number) or number < 0 or (number == 0 and not zero):
            bound = "zero or more" if zero else "positive"
            raise ValueError(
                f"{name} must be finite and {bound}, found {number:g}; "
                f"give one such value a task, their sum does not matter"
            )
    return numbers


def matching(values: Sequence[float], name: str, n_tasks: int) -> None:
    """Refuse settings whose number is not the number of tasks."""
    if len(values) != n_tasks:
        raise ValueError(
            f"{name} must hold one value a task, found {len(values)} for {n_tasks} tasks; "
            f"give {n_tasks}"
        )
