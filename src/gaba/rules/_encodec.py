"""The loss balancer of EnCodec, as far as it is a rule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from gaba.arrays import namespace
from gaba.rules._base import Needs, Weighting
from gaba.rules._simplex import checked, matching, positive_settings, row

if TYPE_CHECKING:
    from gaba.arrays import Array


@final
@dataclass(frozen=True)
class EnCodec(Weighting):
    """Give each task its part of a total norm: λ_k = R · (r_k / Σ_j r_j) / (g_k + ε).

    g_k is the norm of task k, r_k the part of the total that is asked for it, R the total and ε
    what keeps a norm of 0 from an infinite weight. Contributions are then R r_k / Σr, whatever the
    losses' scales. Norms (..., K) in any one unit, weights (..., K); :meth:`raw` gives λ as it is,
    for ``scale="rule"``, and calling the rule λ/Σλ. A norm well below ε counts as ε; NaN
    propagates.

    The original measures at the output of the model (:class:`gaba.measurement.OutputNorms`) and
    smooths the norms by :class:`gaba.stabilisers.EMA` at .999, debiased.

    Args:
        ratios: r, one positive finite number a task, or ``None`` for equal parts.
        total_norm: R, positive.
        epsilon: ε, positive.

    Raises:
        ValueError: A setting is not positive or not finite, the ratios are not K, or a norm is
            negative (NumPy input only; a tensor is not looked at).

    Source: Défossez et al., High Fidelity Neural Audio Compression, 2022, equation 5; ε = 1e-12 is
    that of the authors' code.

    Example:
        >>> import numpy as np
        >>> norms = np.array([5.0, 0.01])
        >>> (EnCodec(ratios=(1, 3)).raw(norms) * norms).round(6).tolist()
        [0.25, 0.75]
        >>> EnCodec()(norms).round(4).tolist()
        [0.002, 0.998]
    """

    ratios: Sequence[float] | None = None
    total_norm: float = 1.0
    epsilon: float = 1e-12
    needs: ClassVar[Needs] = "norms"

    def __post_init__(self) -> None:
        if self.ratios is not None:
            object.__setattr__(self, "ratios", positive_settings(self.ratios, "EnCodec: ratios"))
        for name, value in (("total_norm", self.total_norm), ("epsilon", self.epsilon)):
            if not (math.isfinite(value) and value > 0):
                raise ValueError(
                    f"EnCodec: {name} must be finite and positive, found {value:g}; leave it out "
                    "for that of the original"
                )

    def __call__(self, measured: Array, /) -> Array:
        """Weights (..., K) for the norms ``measured`` (..., K), on the simplex."""
        raw = self.raw(measured)
        return raw / namespace(raw).sum(raw, -1, keepdims=True)

    def raw(self, measured: Array, /) -> Array:
        """Weights (..., K) with which each contribution is its part of the total norm."""
        norms = checked(measured, "EnCodec", "norms")
        n_tasks = norms.shape[-1]
        wanted = [1.0] * n_tasks if self.ratios is None else self.ratios
        matching(wanted, "EnCodec: ratios", n_tasks)
        parts = [self.total_norm * ratio / sum(wanted) for ratio in wanted]
        return row(parts, norms) / (norms + self.epsilon)

    def of(self, tasks: Sequence[int], /) -> EnCodec:
        """The same total norm, in the same proportions among ``tasks``."""
        if self.ratios is None:
            return self
        return EnCodec([self.ratios[k] for k in tasks], self.total_norm, self.epsilon)
