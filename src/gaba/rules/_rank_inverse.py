"""A rule that sees only the order of the norms, kept as a comparator."""

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
class RankInverse(Weighting):
    """Weigh a task by the inverse rank of its norm, λ_k ∝ 1 / rank_k.

    rank_k is 1 for the smallest positive norm and grows with the norm; equal norms share the mean
    of their ranks. Norms (..., K) in any one unit, weights (..., K). Makes nothing exactly equal: a
    norm 500 times larger and one 1.01 times larger get the same weight. A comparator.

    A norm of exactly 0 is not ranked: it gives its task 1/K, and the others share the rest by the
    rule. NaN propagates.

    Raises:
        ValueError: A norm is negative (NumPy input only; a tensor is not looked at), or there is no
            axis of tasks.

    Example:
        >>> import numpy as np
        >>> RankInverse()(np.array([5.0, 0.01, 0.01])).round(4).tolist()
        [0.2, 0.4, 0.4]
    """

    needs: ClassVar[Needs] = "norms"

    def __call__(self, measured: Array, /) -> Array:
        """Weights (..., K) for the norms ``measured`` (..., K)."""
        norms = checked(measured, "RankInverse", "norms")
        xp = namespace(norms)
        relative = RelativeNorms.of(norms)
        mine, other = norms[..., :, None], norms[..., None, :]
        ones = xp.ones_like(other)
        ahead = xp.where(other < mine, ones, xp.where(other == mine, 0.5 * ones, 0.0))
        ahead = xp.where(relative.live[..., None, :], ahead, 0.0)
        return relative.weights(1.0 / (0.5 + xp.sum(ahead, -1)))
