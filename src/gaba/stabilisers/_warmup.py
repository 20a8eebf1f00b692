"""Uniform weights for the first steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from gaba.stabilisers._base import Stabiliser
from gaba.stabilisers._checks import check_count, check_n_tasks, incoming


@final
@dataclass(frozen=True, eq=False)
class Count:
    """How many updates there have been: an int64 of shape ()."""

    count: Tensor

    @staticmethod
    def zero() -> Count:
        """No update yet."""
        return Count(torch.zeros((), dtype=torch.int64))


@final
@dataclass(frozen=True)
class Warmup(Stabiliser[Count]):
    """Give every task the weight 1/K for the first updates, and pass values unchanged after.

    λ_k = 1/K in the updates 1 to ``steps``, λ_k = x_k from then on, where x (K,) are the weights
    that come in, without unit. K counts the missing tasks too.

    Attributes:
        steps: How many updates to warm up for; 100 in the paper, 0 for none.

    Raises:
        ValueError: If ``steps`` is negative or no int.

    >>> import torch
    >>> from gaba.stabilisers import Warmup
    >>> warmup = Warmup(1)
    >>> weights, state = warmup.update(torch.tensor([0.1, 0.9]), warmup.init(2))
    >>> weights
    tensor([0.5000, 0.5000], dtype=torch.float64)
    >>> warmup.update(torch.tensor([0.25, 0.75]), state)[0]
    tensor([0.2500, 0.7500], dtype=torch.float64)
    """

    steps: int = 100

    def __post_init__(self) -> None:
        check_count("steps", self.steps, 0, "give the number of updates with uniform weights")

    def init(self, n_tasks: int) -> Count:
        """No update yet."""
        check_n_tasks(n_tasks)
        return Count.zero()

    def update(
        self, value: Tensor, state: Count, present: Tensor | None = None
    ) -> tuple[Tensor, Count]:
        """Uniform weights (K,), or ``value`` (K,)."""
        value, _ = incoming(value, present)
        warming = state.count < self.steps
        return torch.where(warming, 1 / len(value), value), Count(state.count + 1)
