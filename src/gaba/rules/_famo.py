"""Weights by which all losses fall at the same rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from gaba.rules._adam import Adam, Moments
from gaba.rules._base import Measured, Needs, StatefulWeighting
from gaba.rules._memory import (
    check_not_negative,
    check_positive,
    masked,
    positive,
    softmax,
    zeros,
)
from gaba.rules._simplex import matching, row

_EPS = 1e-8


@final
@dataclass(frozen=True, eq=False)
class Logits:
    """The learnt logits, and the losses that the next ones are compared with.

    Attributes:
        logits: (K,), ξ.
        last: (K,), the last D of each task.
        seen: (K,), bool, whether there has been one.
        moments: Adam's.
    """

    logits: Tensor
    last: Tensor
    seen: Tensor
    moments: Moments


@final
@dataclass(frozen=True)
class FAMO(StatefulWeighting[Logits]):
    """Let all losses fall at the same rate, w_k = (z_k/D_k) / Σ_j (z_j/D_j), z = softmax(ξ).

    D_k = L_k − b_k + 1e-8 is the loss of task k over its lower bound b_k: the weighted gradient is
    Σ_k z_k ∇ log D_k, up to a factor. The logits ξ descend, from 0, by Adam with slope Jᵀδ + γ ξ,
    where J = ∂z/∂ξ and δ_k = log D_k − log D'_k is by how much log D_k has fallen in one step of
    the model: a task that falls faster than the others loses weight. Raw weights: w, which sum to
    1. Losses, weights: (K,).

    D' is the loss after the step. The published code computes it again on the same batch, one
    more forward pass; here it is the loss of the next step, as in that code's own toy problem. On
    the same data both are the same; on mini-batches δ carries the difference of two batches too,
    which has no bias. The published code also clips the shared gradient to length 1, which is left
    to the user. A task that was missing is compared with when it was last there, and z is over the
    tasks present.

    Args:
        learning_rate: of ξ, positive.
        decay: γ, zero or more, which draws the weights z to uniform.
        minimum: b, one number or one a task.

    Raises:
        ValueError: a setting is out of its range, or ``minimum`` does not hold K numbers. Where
            D_k is not above 0 the weights are NaN, and the Balancer learns nothing from the step.

    Source: Liu, Feng, Stone and Liu, FAMO: Fast Adaptive Multitask Optimization, NeurIPS 2023,
    algorithm 1; defaults and 1e-8 of its published code.

    Example:
        >>> import torch
        >>> rule = FAMO(learning_rate=0.5, decay=0.0)
        >>> weights, state = rule.update(Measured(torch.tensor([1.0, 4.0])), rule.init(2))
        >>> weights  # in proportion to 1/L
        tensor([0.8000, 0.2000], dtype=torch.float64)
        >>> weights, state = rule.update(Measured(torch.tensor([0.5, 4.0])), state)
        >>> weights[0] / weights[1] < 8  # the first has fallen, and loses some of its 1/L
        tensor(True)
    """

    learning_rate: float = 0.025
    decay: float = 0.01
    minimum: float | Sequence[float] = 0.0
    needs: ClassVar[Needs] = "losses"

    def __post_init__(self) -> None:
        check_positive("FAMO", "learning_rate", self.learning_rate)
        check_not_negative("FAMO", "decay", self.decay)
        if isinstance(self.minimum, Sequence):
            object.__setattr__(self, "minimum", tuple(float(bound) for bound in self.minimum))

    def init(self, n_tasks: int) -> Logits:
        """Uniform z, no loss seen."""
        if isinstance(self.minimum, Sequence):
            matching(self.minimum, "FAMO: minimum", n_tasks)
        return Logits(
            zeros(n_tasks),
            zeros(n_tasks),
            torch.zeros(n_tasks, dtype=torch.bool),
            Moments.zero(n_tasks),
        )

    def update(
        self, measured: Measured, state: Logits, present: Tensor | None = None
    ) -> tuple[Tensor, Logits]:
        """The weights (K,) of this step, and the state: ξ has learnt from what the last one did."""
        losses = measured.losses
        bound = row(self.minimum, losses) if isinstance(self.minimum, Sequence) else self.minimum
        gap, here = masked(losses - bound + _EPS, present, 1.0)
        gap = positive(gap)
        both = here & state.seen
        z = softmax(state.logits, both)
        fallen = torch.where(both, torch.where(both, state.last, 1.0).log() - gap.log(), 0.0)
        slope = z * (fallen - (z * fallen).sum())
        adam = Adam(self.learning_rate, self.decay)
        logits, moments = adam.step(state.logits, slope, state.moments, both)
        raw = softmax(logits, here) / gap
        last = torch.where(here, gap, state.last)
        return raw / raw.sum(), Logits(logits, last, state.seen | here, moments)
