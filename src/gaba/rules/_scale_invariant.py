"""The rule that does not see the scale of a loss: descend on the logarithms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from gaba.rules._base import Needs, Weighting
from gaba.rules._inverse_losses import inverse, sound

if TYPE_CHECKING:
    from gaba.arrays import Array


@final
@dataclass(frozen=True)
class ScaleInvariant(Weighting):
    """Descend on Σ_k log L_k, w_k = 1/L_k.

    L_k is the loss of task k, whose factor cancels in w_k ∇L_k. Raw weights: w; on the simplex
    λ_k ∝ 1/L_k. Losses (..., K), weights (..., K). It makes relative falls of the losses count
    alike; contributions g_k/L_k are equal only where norms are in proportion to losses.

    Where a loss is 0 or negative it has no logarithm: all weights are NaN, and the Balancer learns
    nothing from that step and goes on with the weights that it had.

    Raises:
        ValueError: The losses have no axis of tasks.

    Source: Navon et al., Multi-Task Learning as a Bargaining Game, ICML 2022 (the baseline that is
    called scale-invariant there).

    Example:
        >>> import numpy as np
        >>> ScaleInvariant()(np.array([4.0, 1.0])).tolist()
        [0.2, 0.8]
        >>> ScaleInvariant().raw(np.array([4.0, 1.0])).tolist()
        [0.25, 1.0]
    """

    needs: ClassVar[Needs] = "losses"

    def __call__(self, measured: Array, /) -> Array:
        """Weights (..., K) for the losses ``measured`` (..., K), on the simplex."""
        return inverse(measured, "ScaleInvariant")

    def raw(self, measured: Array, /) -> Array:
        """Weights 1/L_k (..., K) for the losses ``measured`` (..., K)."""
        return 1.0 / sound(measured, "ScaleInvariant")
