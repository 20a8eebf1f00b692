"""FAMO by how the losses fall along one and the same step, in place of from step to step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from gaba.pieces import Seen
from gaba.rules._settings import check_each, check_number
from gaba.rules._vectors import known, positive, row, softmax, zeros
from gaba.rules.learnt import Adam, Moments
from gaba.rules.rule import Needs, Rule, gramian_of
from gaba.tensors import as_work

_EPS = 1e-8


@final
@dataclass(frozen=True, eq=False)
class LearntLogits:
    """The learnt logits.

    Attributes:
        logits: (K,), ξ.
        moments: Adam's.
    """

    logits: Tensor
    moments: Moments


@final
@dataclass(frozen=True)
class FAMOAlong(Rule):
    """:class:`FAMO` by what one step does to the losses of its own batch.

    The published code runs each batch again after the step, and learns from
    δ_k = log D_k − log D'_k. Here D' is taken to first order along u = Σ_l m_l ∇L_l:
    δ_k = η ⟨∇L_k, u⟩/D_k = η (Gm)_k/D_k. So the noise between two batches is not in it, which is
    in that of :class:`FAMO`. A task that is missing learns nothing.

    Args:
        learning_rate: of ξ, positive.
        decay: γ, zero or more; it draws z to uniform, the more so the smaller η is.
        step: η, positive: how far along u the losses are compared.
        minimum: b, one number or one a task.

    Raises:
        ValueError: A setting is out of its range, ``minimum`` does not hold K numbers, or there is
            no Gramian. A loss that is not above b is refused by a Balancer; here the answer is NaN.

    Source: Liu, Feng, Stone and Liu, FAMO, NeurIPS 2023, algorithm 1, and its published code, which
    clips the gradient of what is shared at length 1 as well.

    Example:
        >>> rule = FAMOAlong(decay=0.0)
        >>> seen = Seen(torch.tensor([1.0, 4.0]), torch.ones(2), torch.eye(2))
        >>> rule.update(seen, rule.init(2))[0]  # ∝ 1/L in the first step
        tensor([0.8000, 0.2000], dtype=torch.float64)
    """

    learning_rate: float = 0.025
    decay: float = 0.01
    step: float = 1e-3
    minimum: float | Sequence[float] = 0.0
    needs: ClassVar[Needs] = "gramian"
    defined_at_zero: ClassVar[bool] = True
    takes: ClassVar[str] = "above the rule's `minimum`"

    def __post_init__(self) -> None:
        check_number(self, "learning_rate", "the published code has 0.025")
        check_number(self, "decay", "the published code has 0.01", zero=True)
        check_number(self, "step", "give the learning rate of the shared parameters")
        if isinstance(self.minimum, Sequence):
            object.__setattr__(self, "minimum", tuple(float(bound) for bound in self.minimum))

    def init(self, n_tasks: int) -> LearntLogits:
        """Uniform z."""
        if isinstance(self.minimum, Sequence):
            check_each(self, "minimum", n_tasks)
        return LearntLogits(zeros(n_tasks), Moments.zero(n_tasks))

    def unfit(self, losses: Tensor, state: Any) -> Tensor | None:
        """Losses that are not above their lower bound (K,)."""
        return losses <= self._bound(losses)

    def _bound(self, losses: Tensor) -> Tensor | float:
        return row(self.minimum, losses) if isinstance(self.minimum, Sequence) else self.minimum

    def update(self, seen: Seen, state: LearntLogits) -> tuple[Tensor, LearntLogits]:
        """The multipliers (K,) of this step, and the state: ξ has learnt what this step does."""
        losses, told = known(seen.losses, 1.0)
        gramian = as_work(gramian_of(self, seen))
        here = told & ~gramian.diagonal(dim1=-2, dim2=-1).isnan()
        gap = positive(torch.where(here, losses - self._bound(losses) + _EPS, 1.0))
        z = softmax(state.logits, here)
        raw = z / gap
        multipliers = raw / raw.sum(-1, keepdim=True)
        both = here[..., :, None] & here[..., None, :]
        slopes = (torch.where(both, gramian, 0.0) @ multipliers[..., None])[..., 0]
        fallen = torch.where(here, self.step * slopes / gap, 0.0)
        slope = z * (fallen - (z * fallen).sum(-1, keepdim=True))
        adam = Adam(self.learning_rate, self.decay)
        return multipliers, LearntLogits(*adam.step(state.logits, slope, state.moments, here))
