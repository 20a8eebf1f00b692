"""Bounds on every value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from gaba.stabilisers._base import Stabiliser
from gaba.stabilisers._checks import check_not_nan, incoming
from gaba.stabilisers._floor import Bounded


@final
@dataclass(frozen=True)
class Clip(Stabiliser[Bounded]):
    """Keep every value between two bounds, each by itself.

    y_k = min(max(x_k, low), high), where x (K,) are weights or norms and the bounds have their
    unit. Unlike ``Floor``, it leaves the sum of weights as it falls. A value raised to ``low`` is
    saturated. For a missing task its own value comes out.

    Attributes:
        low: The least value, or ``None`` for no such bound.
        high: The greatest value, or ``None``; with neither, values pass unchanged.

    Raises:
        ValueError: If a bound is NaN, or ``low`` is above ``high``.

    >>> import torch
    >>> from gaba.stabilisers import Clip
    >>> clip = Clip(low=0.1, high=10.0)
    >>> norms, state = clip.update(torch.tensor([0.01, 1.0, 500.0]), clip.init(3))
    >>> norms
    tensor([ 0.1000,  1.0000, 10.0000], dtype=torch.float64)
    >>> state.saturated
    tensor([ True, False, False])
    """

    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        for name, bound in (("low", self.low), ("high", self.high)):
            if bound is not None:
                check_not_nan(name, bound)
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(
                f"low must not be above high = {self.high!r}, found {self.low!r}: swap them"
            )

    def init(self, n_tasks: int) -> Bounded:
        """No value is saturated."""
        return Bounded.free(n_tasks)

    def update(
        self, value: Tensor, state: Bounded, present: Tensor | None = None
    ) -> tuple[Tensor, Bounded]:
        """The values ``value`` (K,) within the bounds."""
        value, present = incoming(value, present, state.saturated.shape[0])
        bounded = value
        if self.low is not None:
            bounded = bounded.clamp(min=self.low)
        if self.high is not None:
            bounded = bounded.clamp(max=self.high)
        low = -torch.inf if self.low is None else self.low
        return torch.where(present, bounded, value), Bounded(present & (value < low))
