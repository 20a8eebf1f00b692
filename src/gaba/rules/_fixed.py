"""The rule of those who know already: constant weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from gaba.arrays import namespace
from gaba.rules._base import Needs, Weighting
from gaba.rules._simplex import checked, matching, positive_settings, row

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gaba.arrays import Array


@final
@dataclass(frozen=True)
class Fixed(Weighting):
    """Give the tasks constant weights, λ_k = w_k / Σ_j w_j.

    w_k is the setting of task k, in the order of the tasks. The losses (..., K) give only the shape
    and the kind of the answer. A comparator: when an adaptive rule has stood still, this one does
    the same.

    Args:
        weights: One finite number a task, zero or more, not all zero; their sum is made 1.

    Raises:
        ValueError: A weight is negative or not finite, all are zero, or their number is not K.

    Example:
        >>> import numpy as np
        >>> Fixed((1, 20))(np.array([3.0, 0.2])).round(4).tolist()
        [0.0476, 0.9524]
    """

    weights: Sequence[float]
    needs: ClassVar[Needs] = "losses"

    def __post_init__(self) -> None:
        numbers = positive_settings(self.weights, "Fixed: weights", zero=True)
        total = sum(numbers)
        if total == 0:
            raise ValueError("Fixed: weights must not all be zero, found only zeros; raise one")
        object.__setattr__(self, "weights", tuple(number / total for number in numbers))

    def __call__(self, measured: Array, /) -> Array:
        """Weights (..., K) for the losses ``measured`` (..., K)."""
        losses = checked(measured, "Fixed", "losses")
        matching(self.weights, "Fixed: weights", losses.shape[-1])
        return namespace(losses).zeros_like(losses) + row(self.weights, losses)

    def of(self, tasks: Sequence[int], /) -> Weighting:
        """The same proportions among ``tasks``; uniform if all of their weights are zero."""
        weights = [self.weights[k] for k in tasks]
        return Fixed(weights) if any(weights) else Fixed([1.0] * len(weights))
