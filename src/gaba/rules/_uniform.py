"""The rule of those who do not balance: the same weight for all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from gaba.arrays import namespace
from gaba.rules._base import Needs, Weighting
from gaba.rules._simplex import checked

if TYPE_CHECKING:
    from gaba.arrays import Array


@final
@dataclass(frozen=True)
class Uniform(Weighting):
    """Give every task the same weight, λ_k = 1/K.

    K is the number of tasks, read from the last axis of the losses (..., K); their values are not
    looked at, so that a NaN among them changes nothing. Makes the *weights* equal, and leaves the
    contributions as unequal as the norms.

    Raises:
        ValueError: The losses have no axis of tasks.

    Example:
        >>> import numpy as np
        >>> Uniform()(np.array([3.0, 0.2])).tolist()
        [0.5, 0.5]
    """

    needs: ClassVar[Needs] = "losses"

    def __call__(self, measured: Array, /) -> Array:
        """Weights (..., K) for the losses ``measured`` (..., K)."""
        losses = checked(measured, "Uniform", "losses")
        return namespace(losses).full_like(losses, 1.0 / losses.shape[-1])
