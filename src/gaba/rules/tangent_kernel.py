"""Rules by the neural tangent kernel of each task: inverse norms with an exponent of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from gaba.pieces import Seen
from gaba.rules._settings import check_number
from gaba.rules._vectors import known
from gaba.rules.rule import Needs, Rule, gramian_of
from gaba.tensors import as_work

_EPS = 1e-6
"""What torch.nn.utils.clip_grad_norm_ adds to a length."""


@final
@dataclass(frozen=True)
class KernelRatio(Rule):
    """Raise the tasks whose kernel is small, m_k = (Σ_j g_j² / g_k²)^p.

    g_k² is the largest eigenvalue of the neural tangent kernel of task k: of one loss a batch, the
    squared norm of its gradient. At p = ½ this is :class:`InverseNorm` at another length.

    With ``max_norm`` c the multipliers are K times that, and shortened to ‖Σ_k m_k ∇L_k‖ ≤ c, as
    the published code clips the gradient of what is shared. K and the sums are over the tasks
    present.

    Args:
        exponent: p, positive.
        max_norm: c, positive, or ``None`` for no factor K and no clipping. It needs the Gramian.

    Raises:
        ValueError: A setting is not positive or not finite, or there is no Gramian to clip by.

    Source: Qin et al., NTKMTL: Mitigating Task Imbalance in Multi-Task Learning from Neural Tangent
    Kernel Perspective, NeurIPS 2025 (arXiv 2510.18258), as its published code has it.

    Example:
        >>> import numpy as np
        >>> KernelRatio().raw(np.array([3.0, 4.0])).round(4).tolist()  # 5/3 and 5/4
        [1.6667, 1.25]
        >>> m = KernelRatio(max_norm=1.0).raw(np.diag([9.0, 16.0]))
        >>> (m * [3.0, 4.0]).round(4).tolist()  # of a vector of length 1
        [0.7071, 0.7071]
    """

    exponent: float = 0.5
    max_norm: float | None = None

    def __post_init__(self) -> None:
        check_number(self, "exponent", "the paper has 0.5")
        if self.max_norm is not None:
            check_number(self, "max_norm", "the published code has 1; None does not clip")

    @property
    def needs(self) -> Needs:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The Gramian where the update is clipped, else norms."""
        return "norms" if self.max_norm is None else "gramian"

    def update(self, seen: Seen, state: Any) -> tuple[Tensor, Any]:
        """The multipliers (..., K)."""
        if self.max_norm is None:
            norms, _ = known(seen.norms, 0.0)
            return self._ratios(norms.square()), state
        gramian = as_work(gramian_of(self, seen))
        squares, here = known(gramian.diagonal(dim1=-2, dim2=-1), 0.0)
        pulls = here & (squares != 0)
        wanted = torch.where(pulls, here.sum(-1, keepdim=True) * self._ratios(squares), 0.0)
        both = pulls[..., :, None] & pulls[..., None, :]
        among = torch.where(both, gramian, 0.0)
        square = (wanted[..., None, :] @ among @ wanted[..., :, None])[..., 0]
        length = square.clamp(min=0).sqrt()
        return wanted * (self.max_norm / (length + _EPS)).clamp(max=1.0), state

    def _ratios(self, squares: Tensor) -> Tensor:
        """(Σ_j g_j² / g_k²)^p (..., K)."""
        return (squares.sum(-1, keepdim=True) / squares) ** self.exponent
