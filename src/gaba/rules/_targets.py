"""Unequal on purpose: what a rule makes equal, in given proportions instead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from gaba.rules._base import Needs, Weighting
from gaba.rules._inverse_norm import InverseNorm
from gaba.rules._proportional import Proportional
from gaba.rules._simplex import positive_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gaba.arrays import Array


@final
@dataclass(frozen=True)
class Targets(Weighting):
    """Make what another rule makes equal proportional to r_k instead.

    Around `InverseNorm`, contributions: λ_k g_k ∝ r_k, so that λ_k ∝ r_k / g_k, with g_k the norm
    of task k. Around `EqualShare`, shares: λ_k (Gλ)_k ∝ r_k (a risk budget, in finance). Around
    `EqualProjection`, projections. It takes what the other rule takes, norms (..., K) or Gramian
    (..., K, K), and gives weights (..., K). What the other rule says of zero and NaN holds here.

    Args:
        ratios: r, one positive finite number a task, in the order of the tasks; only their
            proportions matter.
        weighting: The rule whose quantity is to be proportional: `InverseNorm`, `EqualShare` or
            `EqualProjection`; another rule makes nothing equal for every K.

    Raises:
        ValueError: A ratio is not positive or not finite, or their number is not K.
        TypeError: The rule is none of those three.

    Example:
        >>> import numpy as np
        >>> norms = np.array([5.0, 0.01])
        >>> contributions = Targets((3, 1))(norms) * norms
        >>> (contributions / contributions.sum()).round(6).tolist()
        [0.75, 0.25]
    """

    ratios: Sequence[float]
    weighting: Proportional = InverseNorm()  # noqa: RUF009 - frozen

    def __post_init__(self) -> None:
        object.__setattr__(self, "ratios", positive_settings(self.ratios, "Targets: ratios"))
        if not isinstance(self.weighting, Proportional):
            raise TypeError(
                f"Targets: weighting must be a rule that makes something equal, found "
                f"{self.weighting!r}; use InverseNorm, EqualShare or EqualProjection"
            )

    @property
    def needs(self) -> Needs:  # pyright: ignore[reportIncompatibleVariableOverride]
        """What the wrapped rule needs: "norms" or "gramian"."""
        return self.weighting.needs

    def __call__(self, measured: Array, /) -> Array:
        """Weights (..., K) for what the wrapped rule takes."""
        return self.weighting.towards(measured, self.ratios)
