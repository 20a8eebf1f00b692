"""The rule that makes shares equal, conflict between the gradients included."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

import torch

from gaba.rules._base import Needs
from gaba.rules._gramian import balance, on_arrays, split
from gaba.rules._proportional import Proportional
from gaba.rules._simplex import proportions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from gaba.arrays import Array


@final
@dataclass(frozen=True)
class EqualShare(Proportional):
    """Make every task account for the same part of the combined update, λ_k (Gλ)_k all equal.

    G_kl is the inner product of the gradients of tasks k and l, λ the weights, and (Gλ)_k how far
    the combined gradient goes along task k's. λ is the minimum of ½ λᵀGλ − Σ_k log λ_k, normalised
    to sum 1. Gramian (..., K, K) in any one unit, weights (..., K). For K = 2, and for orthogonal
    gradients, it is `InverseNorm`; else a task that others oppose gets more than there.

    The minimum exists, also for a singular Gramian, just if some direction lowers all losses at
    once; it is found on gradients scaled to length 1, always in float64. Shares are then equal to
    1e-10 relative as long as the combined gradient is longer than a tenth of Σ_k λ_k g_k; below
    that, rounding and the ridge take over as the inverse square of that part.

    *Fallback*: gradients that cancel out (two opposite ones, say) leave no minimum. A ridge of
    K · 2.2e-16 on the Gramian of the unit gradients, always there, gives them one: weights go to
    the tasks that cancel out, inversely to their norms where two do, and what others keep is about
    1e-8 of that. So the combined gradient is about 0, which is the limit of the exact rule, and
    shares of nothing are not equal. A matrix that is no Gramian (an eigenvalue below 0 by more than
    rounding) still gives weights on the simplex, and no more.

    A gradient of exactly 0 gives its task 1/K, and the others share the rest by the rule. NaN
    propagates. In finance this is equal risk contribution (Maillard, Roncalli and Teïletche 2010;
    the convex form is Spinu's, 2013), in multi-task learning Nash-MTL (Navon et al. 2022, claim
    3.1).

    Args:
        iterations: Newton steps, always made in full. 20 were enough for every Gramian tried, with
            K = 100 and condition numbers beyond 1e12.

    Raises:
        ValueError: ``iterations`` is less than 1, the Gramian is not square, or a number on its
            diagonal is negative (NumPy input only; a tensor is not looked at).

    Example:
        Three tasks of norm 1; the last two nearly oppose each other.

        >>> import numpy as np
        >>> gramian = np.array([[1, 0, 0], [0, 1, -0.9], [0, -0.9, 1]])
        >>> weights = EqualShare()(gramian)
        >>> weights.round(4).tolist()
        [0.1365, 0.4317, 0.4317]
        >>> (weights * (gramian @ weights)).round(6).tolist()
        [0.01864, 0.01864, 0.01864]
    """

    iterations: int = 30
    needs: ClassVar[Needs] = "gramian"

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise ValueError(
                f"EqualShare: iterations must be 1 or more, found {self.iterations}; 30 is enough"
            )

    def towards(self, measured: Array, ratios: Sequence[float] | None = None, /) -> Array:
        """Weights (..., K) for the Gramian ``measured`` (..., K, K), with shares ∝ ``ratios``."""

        def solve(gramian: Tensor) -> Tensor:
            unit = split(gramian, "EqualShare")
            targets = proportions(ratios, "EqualShare", unit.relative.ratio)
            ridge = targets.shape[-1] * torch.finfo(targets.dtype).eps
            return unit.weights(
                balance(unit.with_ridge(ridge), None, targets, iterations=self.iterations)
            )

        return on_arrays(solve, measured, "EqualShare")
