"""The published rule: one minus the task's part of all the norms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from gaba.arrays import namespace
from gaba.rules._base import Needs, Weighting
from gaba.rules._simplex import checked, identity_mask

if TYPE_CHECKING:
    from gaba.arrays import Array


@final
@dataclass(frozen=True)
class Gaba(Weighting):
    """Weigh a task by the norms of all the *others*, λ_k = (S − g_k) / ((K − 1) S).

    g_k is the norm of task k, S = Σ_j g_j, K the number of tasks: the paper's equation 4. Norms
    (..., K) in any one unit, weights (..., K).

    For K = 2 this is λ_k ∝ 1/g_k, and contributions are equal. **For K >= 3 they are not**: the
    rule only bounds λ_k ≤ 1/(K − 1), so that it tames one loud task but treats all quiet ones
    alike, however far apart they are. Use `InverseNorm` there.

    The formula holds for a norm of 0 too, whose task gets 1/(K − 1); only where all norms are 0 are
    the weights uniform. S − g_k is summed without g_k and so without cancellation. NaN propagates.

    Raises:
        ValueError: A norm is negative (NumPy input only; a tensor is not looked at), or there is no
            axis of tasks.

    Example:
        Two tasks pull equally hard; of these three the last pulls 100 times less than the first.

        >>> import numpy as np
        >>> norms = np.array([5.0, 0.01])
        >>> (Gaba()(norms) * norms).round(6).tolist()
        [0.00998, 0.00998]
        >>> norms = np.array([100.0, 1.0, 0.01])
        >>> Gaba()(norms).round(3).tolist()
        [0.005, 0.495, 0.5]
        >>> (Gaba()(norms) * norms).round(3).tolist()
        [0.5, 0.495, 0.005]
    """

    needs: ClassVar[Needs] = "norms"

    def __call__(self, measured: Array, /) -> Array:
        """Weights (..., K) for the norms ``measured`` (..., K)."""
        norms = checked(measured, "Gaba", "norms")
        xp = namespace(norms)
        others = xp.sum(xp.where(identity_mask(norms), 0.0, norms[..., None, :]), -1)
        total = xp.sum(others, -1, keepdims=True)  # (K − 1) S
        silent = total == 0
        weights = xp.where(silent, 1.0 / norms.shape[-1], others / xp.where(silent, 1.0, total))
        return xp.where(norms != norms, norms, weights)
