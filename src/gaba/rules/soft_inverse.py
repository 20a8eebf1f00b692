"""A softmax of inverse losses: the variances of uncertainty weighting, solved for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, final

from torch import Tensor

from gaba.pieces import Seen
from gaba.rules._settings import check_number
from gaba.rules._vectors import known, positive, softmax
from gaba.rules.rule import Needs, Rule

_EPS = 1e-8


@final
@dataclass(frozen=True)
class SoftInverseLoss(Rule):
    """Weigh by a softmax of the inverse losses, m = softmax(1/(T (L_k + 1e-8))).

    1/L_k is where the variances of :class:`Uncertainty` come to rest; the softmax keeps one small
    loss from taking everything, as long as T is large beside 1/L. Unlike 1/L itself it depends on
    the units of the losses. Everything is over the tasks present.

    Args:
        temperature: T, positive; the larger, the more even. The paper tunes it for each problem.

    Raises:
        ValueError: ``temperature`` is out of its range. A loss that is not above 0 is refused by a
            Balancer, and here the answer is NaN.

    Source: Kirchdorfer et al., Analytical Uncertainty-Based Loss Weighting in Multi-Task Learning
    (UW-SO), GCPR 2024 (arXiv 2408.07985); 1e-8 and T = 1 are those of a public code.

    Example:
        >>> import numpy as np
        >>> SoftInverseLoss(temperature=0.5).raw(np.array([2.0, 1.0])).round(4).tolist()
        [0.2689, 0.7311]
    """

    temperature: float = 1.0
    needs: ClassVar[Needs] = "losses"

    def __post_init__(self) -> None:
        check_number(self, "temperature", "1 is the default")

    def unfit(self, losses: Tensor, state: Any) -> Tensor | None:
        """Losses that are not above 0 (K,)."""
        return losses <= 0

    def update(self, seen: Seen, state: Any) -> tuple[Tensor, Any]:
        """The multipliers (..., K)."""
        losses, here = known(seen.losses, 1.0)
        return softmax(1 / (positive(losses) + _EPS) / self.temperature, here), state
