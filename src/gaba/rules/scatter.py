"""A rule that takes the scatter of a loss over the steps for the norm of its gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from gaba.pieces import Seen
from gaba.rules._settings import check_number
from gaba.rules._vectors import counts, known, zeros
from gaba.rules.rule import Needs, Rule


@final
@dataclass(frozen=True, eq=False)
class Scatter:
    """The running moments of each loss.

    Attributes:
        mean: (K,), of the losses.
        square: (K,), of their squares.
        count: (K,), int64, how many there have been.
    """

    mean: Tensor
    square: Tensor
    count: Tensor


@final
@dataclass(frozen=True)
class InverseDeviation(Rule):
    """Divide each loss by its standard deviation over the steps, m_k = K (1/s_k) / Σ_j (1/s_j).

    How much a loss scatters from step to step says, to first order, how long its gradient is; no
    pass is needed. The moments of L_k are plain means over its first 1/(1 − d) losses, then
    exponential averages. s_k is at least ε. A task of which there is one loss has m_k = 1; K and
    the sum are over the others that are present.

    Args:
        decay: d, in [0, 1).
        epsilon: ε, positive.

    Raises:
        ValueError: A setting is out of its range.

    Source: Crawshaw and Košecká, SLAW: Scaled Loss Approximate Weighting for Efficient Multi-Task
    Learning, 2021 (arXiv 2109.08218); d, ε, the plain means at the start and the equal weights of
    the first step are those of the authors' code.

    Example:
        >>> rule, norms = InverseDeviation(), torch.ones(2)
        >>> state = rule.init(2)
        >>> for losses in ([1.0, 10.0], [3.0, 16.0]):  # deviations 1 and 3
        ...     m, state = rule.update(Seen(torch.tensor(losses), norms), state)
        >>> m
        tensor([1.5000, 0.5000], dtype=torch.float64)
    """

    decay: float = 0.99
    epsilon: float = 1e-5
    needs: ClassVar[Needs] = "losses"

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise ValueError(
                f"InverseDeviation: decay must lie in [0, 1), found {self.decay!r}; 0.99 is that "
                "of the original"
            )
        check_number(self, "epsilon", "the authors' code has 1e-5")

    def init(self, n_tasks: int) -> Scatter:
        """No loss seen."""
        return Scatter(zeros(n_tasks), zeros(n_tasks), counts(n_tasks))

    def update(self, seen: Seen, state: Scatter) -> tuple[Tensor, Scatter]:
        """The multipliers (K,) with the losses of this step taken in, and the state with them."""
        losses, here = known(seen.losses, 0.0)
        count = state.count + here
        plain = count <= round(1 / (1 - self.decay))
        keep = torch.where(plain, 1 - 1 / count.clamp(min=1).to(losses), self.decay)
        mean = torch.where(here, keep * state.mean + (1 - keep) * losses, state.mean)
        moved = keep * state.square + (1 - keep) * losses.square()
        square = torch.where(here, moved, state.square)
        deviation = (square - mean.square()).clamp(min=0).sqrt().clamp(min=self.epsilon)
        ready = here & (count > 1)
        inverse = torch.where(ready, 1 / deviation, 0.0)
        total = inverse.sum(-1, keepdim=True)
        part = inverse / torch.where(total > 0, total, 1.0)
        multipliers = torch.where(ready, ready.sum(-1, keepdim=True) * part, 1.0)
        return multipliers, Scatter(mean, square, count)
