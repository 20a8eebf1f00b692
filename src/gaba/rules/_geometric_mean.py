"""The rule of the geometric mean of the losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from gaba.arrays import namespace
from gaba.rules._base import Needs, Weighting
from gaba.rules._inverse_losses import inverse, sound

if TYPE_CHECKING:
    from gaba.arrays import Array


@final
@dataclass(frozen=True)
class GeometricMean(Weighting):
    """Descend on the geometric mean of the losses, w_k = (Π_j L_j)^{1/K} / (K L_k).

    L_k is the loss of task k. Raw weights: w; on the simplex λ_k ∝ 1/L_k, as for
    :class:`ScaleInvariant`: the two differ in the length of the update alone, which here falls with
    the losses. Losses (..., K), weights (..., K).

    Where a loss is 0 or negative all weights are NaN, and the Balancer learns nothing from that
    step and goes on with the weights that it had.

    Raises:
        ValueError: The losses have no axis of tasks.

    Source: Chennupati et al., MultiNet++, CVPR workshops 2019 (geometric loss strategy).

    Example:
        >>> import numpy as np
        >>> GeometricMean().raw(np.array([4.0, 1.0])).tolist()  # 2 / (2 L)
        [0.25, 1.0]
    """

    needs: ClassVar[Needs] = "losses"

    def __call__(self, measured: Array, /) -> Array:
        """Weights (..., K) for the losses ``measured`` (..., K), on the simplex."""
        return inverse(measured, "GeometricMean")

    def raw(self, measured: Array, /) -> Array:
        """Weights (Π L)^{1/K} / (K L_k), (..., K), for the losses ``measured`` (..., K)."""
        losses = sound(measured, "GeometricMean")
        xp, logs = namespace(losses), namespace(losses).log(losses)
        n_tasks = losses.shape[-1]
        return xp.exp(xp.sum(logs, -1, keepdims=True) / n_tasks - logs) / n_tasks
