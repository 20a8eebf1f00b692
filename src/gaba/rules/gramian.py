"""Rules on Gramians, which see conflict as well as length: equal shares and equal projections.

Both split the Gramian into lengths and angles, find the lengths y that the unit gradients should
have, and give m_k = y_k / g_k. The search is Newton's method with a fixed number of steps: to look
whether it is done would stall the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from gaba.pieces import Seen
from gaba.rules._settings import check_count
from gaba.rules._vectors import proportions
from gaba.rules.rule import Needs, Proportional, gramian_of

RIDGE = 1e-10
REFINEMENTS = 5
ITERATIONS = 50


@final
@dataclass(frozen=True)
class EqualShare(Proportional):
    """Make every task account for the same part of the combined update, m_k (Gm)_k = 1.

    G_kl is the inner product of the gradients of tasks k and l. m is the minimum of
    ½ mᵀGm − Σ_k log m_k; it exists if some direction lowers all losses at once. For K = 2, and for
    orthogonal gradients, this is :class:`InverseNorm`; else a task that others oppose gets more.
    Gradients that cancel out have no minimum: a small ridge then gives the multipliers to them, so
    that the update is about 0, the limit of the exact rule.

    Args:
        iterations: Newton steps, always made in full; 20 were enough for every Gramian tried.

    Raises:
        ValueError: ``iterations`` is no int of at least 1, or there is no Gramian.

    Source: Nash-MTL (Navon et al., ICML 2022, claim 3.1); in finance, equal risk contribution
    (Maillard, Roncalli and Teïletche 2010; the convex form is Spinu's, 2013).

    Example:
        >>> import numpy as np
        >>> gramian = np.array([[1, 0, 0], [0, 1, -0.9], [0, -0.9, 1]])
        >>> EqualShare()(gramian).round(4).tolist()
        [0.1365, 0.4317, 0.4317]
    """

    iterations: int = 30
    needs: ClassVar[Needs] = "gramian"

    def __post_init__(self) -> None:
        check_count(self, "iterations", "30 is enough")

    def towards(self, seen: Seen, ratios: Sequence[float] | None) -> Tensor:
        """Multipliers (..., K) with shares ∝ ``ratios``."""
        unit = UnitGradients.of(gramian_of(self, seen))
        targets = proportions(ratios, unit.norms)
        ridge = targets.shape[-1] * torch.finfo(targets.dtype).eps
        return _balance(unit.with_ridge(ridge), None, targets, self.iterations) / unit.norms


@final
@dataclass(frozen=True)
class EqualProjection(Proportional):
    """Make the update go equally far along every task's own gradient, (Gm)_k / g_k all equal.

    With C the cosines, m_k = y_k / g_k for C y = 1. For K = 2, and for orthogonal gradients, this
    is :class:`InverseNorm`. For K >= 3 a y_k can be negative; then y is the minimum of
    ½ yᵀCy − Σ_k y_k over y >= 0: the update goes equally far along every task with a multiplier,
    and at least as far along the others. That is the shortest vector in the hull of the unit
    gradients. Gradients that cancel out get the multipliers, and the update is about 0.

    Raises:
        ValueError: There is no Gramian.

    Source: IMTL-G (Liu et al., ICLR 2021, section 3.1), wherever that has no negative weight; MGDA
    on unit gradients elsewhere.

    Example:
        >>> import numpy as np
        >>> gramian = np.array([[1, 0, 0], [0, 1, -0.9], [0, -0.9, 1]])
        >>> (gramian @ EqualProjection()(gramian)).round(4).tolist()
        [0.0476, 0.0476, 0.0476]
    """

    needs: ClassVar[Needs] = "gramian"

    def towards(self, seen: Seen, ratios: Sequence[float] | None) -> Tensor:
        """Multipliers (..., K) with projections ∝ ``ratios``."""
        unit = UnitGradients.of(gramian_of(self, seen))
        targets = proportions(ratios, unit.norms)
        matrix = unit.with_ridge(RIDGE)
        factor, failed = torch.linalg.cholesky_ex(matrix, check_errors=False)
        exact = torch.zeros_like(targets)
        for _ in range(REFINEMENTS):  # the ridge is refined away where C y = 1 has a solution
            exact = exact + _solve(factor, targets - _times(unit.cosines, exact))
        inside = (exact >= 0).all(-1, keepdim=True) & (failed == 0)[..., None]
        bounded = _balance(matrix, targets, None, ITERATIONS)
        return torch.where(inside, exact, bounded) / unit.norms


@final
@dataclass(frozen=True)
class UnitGradients:
    """A Gramian split into lengths and angles.

    Attributes:
        cosines: (..., K, K), the Gramian of the gradients scaled to length 1. A task that is
            unknown or has no gradient is orthogonal to all others.
        norms: (..., K), the lengths, 1 where there is none.
    """

    cosines: Tensor
    norms: Tensor

    @classmethod
    def of(cls, gramian: Tensor) -> UnitGradients:
        """``gramian`` (..., K, K), made symmetric; NaN throughout where it is broken."""
        values = 0.5 * (gramian + gramian.mT)
        norms = values.diagonal(dim1=-2, dim2=-1).sqrt()
        live = norms > 0
        norms = torch.where(live, norms, 1.0)
        cosines = (values / norms[..., :, None] / norms[..., None, :]).clamp(-1.0, 1.0)
        cosines = torch.where(live[..., :, None] & live[..., None, :], cosines, 0.0)
        cosines = torch.where(_diagonal(norms), 1.0, cosines)
        broken = (norms * 0.0).sum(-1, keepdim=True)  # 0, or NaN where a norm is infinite
        return cls(cosines + broken[..., None], norms)

    def with_ridge(self, ridge: float) -> Tensor:
        """The cosines with ``ridge`` added to the diagonal."""
        return self.cosines + ridge * _diagonal(self.norms)


def _balance(
    matrix: Tensor, offset: Tensor | None, targets: Tensor | None, iterations: int
) -> Tensor:
    """Find y > 0 with s = ``matrix`` y − ``offset`` > 0 and y_k s_k = ``targets``_k.

    No ``offset`` means 0. No ``targets`` means 0 as well, which is neared by a factor of ten an
    iteration: the minimum of ½ yᵀ ``matrix`` y − ``offset``ᵀ y over y >= 0.

    This is the primal-dual method of interior points: Newton's method on y and s together, with
    steps cut at 0.95 of the way to the boundary. A step whose system is not positive definite is
    not made.
    """
    y = 1.0 + (matrix * 0.0).sum(-1)  # 1, or NaN where a row is not finite
    s = y
    wanted = 0.0 if offset is None else offset
    for _ in range(iterations):
        product = 0.1 * (y * s).mean(-1, keepdim=True) if targets is None else targets
        missing = s + wanted - _times(matrix, y)
        system = matrix + torch.diag_embed(s / y)
        factor, failed = torch.linalg.cholesky_ex(system, check_errors=False)
        dy = _solve(factor, missing + product / y - s)
        ds = _times(matrix, dy) - missing
        fastest = torch.maximum(-dy / y, -ds / s).amax(-1, keepdim=True)
        step = 0.95 / fastest.clamp(min=0.95)
        made = (failed == 0)[..., None]
        y, s = torch.where(made, y + step * dy, y), torch.where(made, s + step * ds, s)
    return y


def _diagonal(like: Tensor) -> Tensor:
    """The diagonal (K, K) as booleans, where ``like`` (..., K) lives."""
    return torch.eye(like.shape[-1], dtype=torch.bool, device=like.device)


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    """``matrix`` (..., K, K) times ``vector`` (..., K)."""
    return (matrix @ vector[..., None])[..., 0]


def _solve(factor: Tensor, vector: Tensor) -> Tensor:
    """The solution (..., K) of a system by its Cholesky ``factor`` (..., K, K)."""
    return torch.cholesky_solve(vector[..., None], factor)[..., 0]
