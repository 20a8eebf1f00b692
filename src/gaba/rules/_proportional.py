"""A rule that makes one quantity equal, and can as well make it proportional."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from gaba.rules._base import Weighting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gaba.arrays import Array


class Proportional(Weighting):
    """A rule that makes some quantity (contribution, share, projection) the same for every task.

    `Targets` asks the same rule for that quantity in given proportions.

    Example:
        >>> import numpy as np
        >>> from gaba.rules import InverseNorm
        >>> isinstance(InverseNorm(), Proportional)
        True
        >>> norms = np.array([5.0, 0.01])
        >>> contributions = InverseNorm().towards(norms, (3, 1)) * norms
        >>> (contributions[0] / contributions[1]).round(6).item()
        3.0
    """

    def __call__(self, measured: Array, /) -> Array:
        """Weights (..., K) that make the rule's quantity equal."""
        return self.towards(measured)

    @abstractmethod
    def towards(self, measured: Array, ratios: Sequence[float] | None = None, /) -> Array:
        """Weights (..., K) that make the rule's quantity proportional to ``ratios`` (K,).

        ``ratios`` are positive and finite; None asks for equal ones.
        """
