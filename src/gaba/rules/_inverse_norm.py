"""The rule that makes contributions equal: weights inverse to the norms."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from gaba.rules._base import Needs
from gaba.rules._proportional import Proportional
from gaba.rules._simplex import RelativeNorms, checked, proportions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gaba.arrays import Array


@final
@dataclass(frozen=True)
class InverseNorm(Proportional):
    """Weigh a task by a power of its inverse norm, λ_k = g_k^(−p) / Σ_j g_j^(−p).

    g_k is the norm of task k and p the power. At p = 1 every contribution λ_k g_k is the same, for
    any K. p = 0 is uniform, p = ½ the square-root rule (imbalance is only square-rooted), p = 2 is
    inverse variance: minimum variance, not equal contributions. Norms (..., K) in any one unit,
    weights (..., K).

    Norms from 1e-23 to 1e20 may meet in one vector. A norm of exactly 0 gives its task 1/K, and the
    others share the rest by the rule. NaN propagates. Under the names of other fields this is the
    fixed point of GradNorm at α = 0 (Chen et al. 2018, equation 2) and, up to its scale, the
    balancer of EnCodec (Défossez et al. 2022, equation 5).

    Args:
        power: p, finite and zero or more.

    Raises:
        ValueError: The power is negative or not finite, a norm is negative (NumPy input only; a
            tensor is not looked at), or there is no axis of tasks.

    Example:
        >>> import numpy as np
        >>> norms = np.array([5.0, 0.01])
        >>> (InverseNorm()(norms) * norms).round(6).tolist()
        [0.00998, 0.00998]
        >>> InverseNorm(power=0.5)(norms).round(4).tolist()
        [0.0428, 0.9572]
    """

    power: float = 1.0
    needs: ClassVar[Needs] = "norms"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.power) and self.power >= 0):
            raise ValueError(
                f"InverseNorm: power must be finite and zero or more, found {self.power:g}; "
                f"1 makes contributions equal"
            )

    def towards(self, measured: Array, ratios: Sequence[float] | None = None, /) -> Array:
        """Weights (..., K) for the norms ``measured`` (..., K), with λ_k g_k^p ∝ ``ratios``."""
        norms = checked(measured, "InverseNorm", "norms")
        relative = RelativeNorms.of(norms)
        wanted = proportions(ratios, "InverseNorm", norms)
        return relative.weights(wanted * relative.ratio**-self.power)
