"""A control: fixed weights from the losses at the start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from gaba.rules._base import Measured, Needs, StatefulWeighting
from gaba.rules._memory import check_count, counts, masked, positive, zeros


@final
@dataclass(frozen=True, eq=False)
class FirstLosses:
    """The first losses of each task.

    Attributes:
        total: (K,), their sum.
        count: (K,), int64, how many there have been, up to ``steps``.
    """

    total: Tensor
    count: Tensor


@final
@dataclass(frozen=True)
class InverseInitial(StatefulWeighting[FirstLosses]):
    """Weigh each task by the inverse of its loss at the start, w_k = 1/L̄_k, and leave it at that.

    L̄_k is the mean of the first ``steps`` losses of task k; until there are so many, of those so
    far, this step's included. Raw weights: w, so that each term of Σ_k w_k L_k starts at about 1.
    Losses, weights: (K,). A control: it knows the scales of the losses, and nothing else.

    Args:
        steps: at least 1.

    Raises:
        ValueError: ``steps`` is out of its range. Where L̄_k is not above 0 the weights are NaN, and
            the Balancer learns nothing from the step: later losses are then the first.

    Source: none; a control of this library.

    Example:
        >>> import torch
        >>> rule = InverseInitial()
        >>> weights, state = rule.update(Measured(torch.tensor([4.0, 0.5])), rule.init(2))
        >>> weights, state = rule.update(Measured(torch.tensor([1.0, 1.0])), state)
        >>> weights
        tensor([0.2500, 2.0000], dtype=torch.float64)
    """

    steps: int = 1
    needs: ClassVar[Needs] = "losses"

    def __post_init__(self) -> None:
        check_count("InverseInitial", "steps", self.steps)

    def init(self, n_tasks: int) -> FirstLosses:
        """No loss seen."""
        return FirstLosses(zeros(n_tasks), counts(n_tasks))

    def update(
        self, measured: Measured, state: FirstLosses, present: Tensor | None = None
    ) -> tuple[Tensor, FirstLosses]:
        """The weights (K,), and the state with this step's losses in, as long as they count."""
        losses, here = masked(measured.losses, present, 0.0)
        counted = here & (state.count < self.steps)
        total = torch.where(counted, state.total + losses, state.total)
        count = state.count + counted
        weights = count / torch.where(here, positive(total), 1.0)
        return weights, FirstLosses(total, count)
