"""A softer rule than inverse norms, kept as a comparator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from gaba.arrays import namespace
from gaba.rules._base import Needs, Weighting
from gaba.rules._simplex import RelativeNorms, checked

if TYPE_CHECKING:
    from gaba.arrays import Array


@final
@dataclass(frozen=True)
class LogInverse(Weighting):
    """Weigh a task by the inverse logarithm of its norm, λ_k ∝ 1 / log(1 + g_k / min_j g_j).

    g_k is the norm of task k, the minimum is over the positive norms. Norms (..., K) in any one
    unit, weights (..., K). Makes nothing exactly equal: the weights differ by the logarithm of what
    the norms differ by, so that it is not sufficient for losses of different units. A comparator.

    A norm of exactly 0 gives its task 1/K, and the others share the rest by the rule. NaN
    propagates.

    Raises:
        ValueError: A norm is negative (NumPy input only; a tensor is not looked at), or there is no
            axis of tasks.

    Example:
        >>> import numpy as np
        >>> LogInverse()(np.array([5.0, 0.01])).round(4).tolist()
        [0.1003, 0.8997]
    """

    needs: ClassVar[Needs] = "norms"

    def __call__(self, measured: Array, /) -> Array:
        """Weights (..., K) for the norms ``measured`` (..., K)."""
        norms = checked(measured, "LogInverse", "norms")
        relative = RelativeNorms.of(norms)
        return relative.weights(1.0 / namespace(norms).log1p(relative.ratio))
