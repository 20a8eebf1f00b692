"""Rules on norms: the published one, inverse powers, and two softer comparators."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from gaba.pieces import Seen
from gaba.rules._settings import check_number
from gaba.rules._vectors import known, proportions
from gaba.rules.rule import Proportional, Rule


@final
@dataclass(frozen=True)
class Gaba(Rule):
    """Weigh a task by the norms of all the *others*, λ_k = (S − g_k) / ((K − 1) S), S = Σ_j g_j.

    For K = 2 this is λ_k ∝ 1/g_k, and contributions are equal. **For K >= 3 they are not**: the
    rule tames one loud task, since λ_k ≤ 1/(K − 1), and treats all quiet ones alike. Use
    :class:`InverseNorm` there. A task of norm 0 gets 1/(K − 1); only if all norms are 0 are the
    weights uniform.

    Source: the GABA paper, equation 4.

    Example:
        >>> import numpy as np
        >>> norms = np.array([100.0, 1.0, 0.01])
        >>> Gaba()(norms).round(3).tolist()
        [0.005, 0.495, 0.5]
        >>> (Gaba()(norms) * norms).round(3).tolist()
        [0.5, 0.495, 0.005]
    """

    defined_at_zero: ClassVar[bool] = True

    def update(self, seen: Seen, state: Any) -> tuple[Tensor, Any]:
        """λ (..., K); S − g_k is summed without g_k, and so without cancellation."""
        norms, here = known(seen.norms, 0.0)
        itself = torch.eye(norms.shape[-1], dtype=torch.bool, device=norms.device)
        others = torch.where(itself, 0.0, norms[..., None, :]).sum(-1)
        total = torch.where(here, others, 0.0).sum(-1, keepdim=True)  # (K − 1) S
        silent = total == 0
        return torch.where(silent, 1.0, others / torch.where(silent, 1.0, total)), state


@final
@dataclass(frozen=True)
class InverseNorm(Proportional):
    """Divide a loss by a power of its norm, m_k = g_k^(−p).

    At p = 1 every contribution m_k g_k is the same, for any K. p = 0 is uniform, p = 0.5 halves the
    imbalance on a log scale, p = 2 is inverse variance: minimum variance, not equal contributions.

    Args:
        power: p, finite and zero or more.

    Raises:
        ValueError: The power is negative or not finite.

    Source: the fixed point of GradNorm at α = 0 (Chen et al., ICML 2018, equation 2) and, up to
    its scale, the balancer of EnCodec (Défossez et al. 2022, equation 5).

    Example:
        >>> import numpy as np
        >>> norms = np.array([5.0, 0.01])
        >>> (InverseNorm()(norms) * norms).round(6).tolist()
        [0.00998, 0.00998]
        >>> InverseNorm(power=0.5)(norms).round(4).tolist()
        [0.0428, 0.9572]
    """

    power: float = 1.0

    def __post_init__(self) -> None:
        check_number(self, "power", "1 makes contributions equal", zero=True)

    def towards(self, seen: Seen, ratios: Sequence[float] | None) -> Tensor:
        """Multipliers (..., K) with m_k g_k^p ∝ ``ratios``."""
        return proportions(ratios, seen.norms) * seen.norms**-self.power


@final
@dataclass(frozen=True)
class LogInverse(Rule):
    """Divide a loss by the logarithm of its norm, m_k = 1 / log(1 + g_k / min_j g_j).

    The minimum is over the positive norms. A comparator that makes nothing exactly equal:
    multipliers differ by the logarithm of what the norms differ by, too little for losses of
    different units.

    Example:
        >>> import numpy as np
        >>> LogInverse()(np.array([5.0, 0.01])).round(4).tolist()
        [0.1003, 0.8997]
    """

    def update(self, seen: Seen, state: Any) -> tuple[Tensor, Any]:
        """The inverse logarithms (..., K)."""
        norms = seen.norms
        smallest = torch.where(norms > 0, norms, math.inf).amin(-1, keepdim=True)
        return 1 / torch.log1p(norms / smallest), state


@final
@dataclass(frozen=True)
class RankInverse(Rule):
    """Divide a loss by the rank of its norm, m_k = 1 / rank_k.

    The smallest positive norm has rank 1; equal norms share the mean of their ranks. A comparator
    that makes nothing exactly equal: a norm 500 times larger and one 1.01 times larger count alike.

    Example:
        >>> import numpy as np
        >>> RankInverse()(np.array([5.0, 0.01, 0.01])).round(4).tolist()
        [0.2, 0.4, 0.4]
    """

    def update(self, seen: Seen, state: Any) -> tuple[Tensor, Any]:
        """The inverse ranks (..., K)."""
        mine, other = seen.norms[..., :, None], seen.norms[..., None, :]
        ahead = (other < mine).to(mine.dtype) + 0.5 * (other == mine)
        return 1 / (0.5 + torch.where(other > 0, ahead, 0.0).sum(-1)), state
