"""The rule that makes projections equal: IMTL-G, kept on the simplex."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

import torch

from gaba.rules._base import Needs
from gaba.rules._gramian import balance, on_arrays, solve_with, split, times
from gaba.rules._proportional import Proportional
from gaba.rules._simplex import proportions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from gaba.arrays import Array

RIDGE = 1e-10
REFINEMENTS = 5
ITERATIONS = 50


@final
@dataclass(frozen=True)
class EqualProjection(Proportional):
    """Make the combined gradient go equally far along every task's own, (Gλ)_k / g_k all equal.

    G_kl is the inner product of the gradients of tasks k and l, g_k = √G_kk the norm, λ the
    weights. With C the cosines G_kl/(g_k g_l): λ_k = y_k/g_k for C y = 1, normalised to sum 1.
    Gramian (..., K, K) in any one unit, weights (..., K), in float64. For K = 2, and for orthogonal
    gradients, it is `InverseNorm`. It is IMTL-G (Liu et al. 2021, section 3.1) as long as no weight
    there is negative.

    *Fallback*: for K >= 3 a y_k can be negative, so that a task would be climbed to hold the others
    back. Then y is the minimum of ½ yᵀCy − Σ_k y_k over y >= 0 instead: the combined gradient goes
    equally far along every task with a weight, and at least as far along those with weight 0 (less
    than 1e-8 here). It is the shortest vector in the hull of the unit gradients (MGDA on normalised
    gradients), and meets IMTL-G where that leaves the simplex.

    A singular C gets a ridge of 1e-10, refined away where C y = 1 can be solved: tasks with the
    same direction then have equal y. Gradients that cancel out leave only y with C y = 0: the
    weights go to the tasks that cancel out, and the combined gradient is about 0. A matrix that is
    no Gramian (an eigenvalue of C below −1e-10) still gives weights on the simplex, and no more.

    A gradient of exactly 0 gives its task 1/K, and the others share the rest by the rule. NaN
    propagates.

    Raises:
        ValueError: The Gramian is not square, or a number on its diagonal is negative (NumPy input
            only; a tensor is not looked at).

    Example:
        >>> import numpy as np
        >>> gramian = np.array([[1, 0, 0], [0, 1, -0.9], [0, -0.9, 1]])
        >>> weights = EqualProjection()(gramian)
        >>> weights.round(4).tolist()
        [0.0476, 0.4762, 0.4762]
        >>> (gramian @ weights).round(4).tolist()
        [0.0476, 0.0476, 0.0476]
    """

    needs: ClassVar[Needs] = "gramian"

    def towards(self, measured: Array, ratios: Sequence[float] | None = None, /) -> Array:
        """Weights (..., K) for the Gramian ``measured``, with projections ∝ ``ratios``."""

        def solve(gramian: Tensor) -> Tensor:
            unit = split(gramian, "EqualProjection")
            targets = proportions(ratios, "EqualProjection", unit.relative.ratio)
            matrix = unit.with_ridge(RIDGE)
            factor, failed = torch.linalg.cholesky_ex(matrix, check_errors=False)
            exact = torch.zeros_like(targets)
            for _ in range(REFINEMENTS):
                exact = exact + solve_with(factor, targets - times(unit.cosines, exact))
            inside = (exact >= 0).all(-1, keepdim=True) & (failed == 0)[..., None]
            bounded = balance(matrix, targets, None, iterations=ITERATIONS)
            return unit.weights(torch.where(inside, exact, bounded))

        return on_arrays(solve, measured, "EqualProjection")
