"""What the rules on Gramians share: unit gradients, and Newton's method for two vectors at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from torch import Tensor

from gaba.rules._simplex import RelativeNorms, checked, identity_mask

if TYPE_CHECKING:
    from collections.abc import Callable


@final
@dataclass(frozen=True)
class UnitGradients:
    """A Gramian split into lengths and angles.

    ``cosines`` (..., K, K) is the Gramian of the gradients scaled to length 1; a task without a
    gradient is orthogonal to all others in it. ``relative`` holds the lengths.
    """

    cosines: Tensor
    relative: RelativeNorms

    def with_ridge(self, ridge: float) -> Tensor:
        """The cosines with ``ridge`` added to the diagonal."""
        return self.cosines + ridge * identity_mask(self.relative.ratio)

    def weights(self, lengths: Tensor) -> Tensor:
        """Weights λ_k ∝ ``lengths``_k / g_k: the unit gradients at these lengths, as gradients."""
        return self.relative.weights(lengths / self.relative.ratio)


def split(gramian: Tensor, rule: str) -> UnitGradients:
    """Lengths and angles of ``gramian`` (..., K, K), which is made symmetric."""
    values = checked(gramian, rule, "Gramian")
    if values.ndim < 2 or values.shape[-1] != values.shape[-2]:
        raise ValueError(
            f"{rule}: the Gramian must have shape (..., K, K), found {tuple(values.shape)}; pass "
            f"all inner products of the gradients, not their norms"
        )
    values = 0.5 * (values + values.mT)
    norms = torch.diagonal(values, dim1=-2, dim2=-1).sqrt()
    relative = RelativeNorms.of(norms)
    safe = torch.where(relative.live, norms, 1.0)
    cosines = (values / safe[..., :, None] / safe[..., None, :]).clamp(-1.0, 1.0)
    both = relative.live[..., :, None] & relative.live[..., None, :]
    cosines = torch.where(both, cosines, 0.0)
    cosines = torch.where(identity_mask(norms), 1.0, cosines)
    broken = (norms * 0.0).sum(-1, keepdim=True)  # 0, or NaN where a norm is not finite
    return UnitGradients(cosines + broken[..., None], relative)


def on_arrays(solve: Callable[[Tensor], Tensor], gramian: Any, rule: str) -> Any:
    """``solve`` of a tensor, or of an array by way of a tensor: one solver serves both kinds."""
    if isinstance(gramian, Tensor):
        return solve(gramian)
    values = np.array(gramian, dtype=np.float64)
    diagonal = np.diagonal(values, axis1=-2, axis2=-1) if values.ndim >= 2 else values
    if bool((diagonal < 0).any()):
        raise ValueError(
            f"{rule}: the Gramian's diagonal must be zero or more, found {diagonal.min():g}; it "
            f"holds squared norms"
        )
    return solve(torch.from_numpy(values)).numpy()


def balance(
    matrix: Tensor, offset: Tensor | None, targets: Tensor | None, *, iterations: int
) -> Tensor:
    """Find y > 0 with s = ``matrix`` y − ``offset`` > 0 and y_k s_k = ``targets``_k.

    No ``offset`` means 0. No ``targets`` means 0 as well, which is neared by a factor of ten an
    iteration: the minimum of ½ yᵀ ``matrix`` y − ``offset``ᵀ y over y >= 0.

    Newton's method on y and s together (the primal-dual method of interior points), with steps cut
    at 0.95 of the way to the boundary, always ``iterations`` of them: to look whether it is done
    would stall the device. A step whose system is not positive definite is not made.
    """
    y = 1.0 + (matrix * 0.0).sum(-1)  # 1, or NaN where a row is not finite
    s = y
    wanted = 0.0 if offset is None else offset
    for _ in range(iterations):
        product = 0.1 * (y * s).mean(-1, keepdim=True) if targets is None else targets
        missing = s + wanted - times(matrix, y)
        system = matrix + torch.diag_embed(s / y)
        factor, failed = torch.linalg.cholesky_ex(system, check_errors=False)
        dy = solve_with(factor, missing + product / y - s)
        ds = times(matrix, dy) - missing
        fastest = torch.maximum(-dy / y, -ds / s).amax(-1, keepdim=True)
        step = 0.95 / fastest.clamp(min=0.95)
        made = (failed == 0)[..., None]
        y, s = torch.where(made, y + step * dy, y), torch.where(made, s + step * ds, s)
    return y


def times(matrix: Tensor, vector: Tensor) -> Tensor:
    """``matrix`` (..., K, K) times ``vector`` (..., K)."""
    return (matrix @ vector[..., None])[..., 0]


def solve_with(factor: Tensor, vector: Tensor) -> Tensor:
    """The solution (..., K) of a system by its Cholesky ``factor`` (..., K, K)."""
    return torch.cholesky_solve(vector[..., None], factor)[..., 0]
