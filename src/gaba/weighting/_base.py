"""What a weighting is: a pure function from what was measured to weights on the simplex."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

if TYPE_CHECKING:
    from gaba._array import Array

Needs = Literal["losses", "norms", "gramian"]


class Weighting(ABC):
    """A rule: losses (..., K), norms (..., K) or a Gramian (..., K, K) to weights (..., K).

    Subclasses are frozen dataclasses without state. ``needs`` says what ``__call__`` takes; the
    Balancer measures no more than that. NumPy arrays and torch tensors are both accepted, and the
    weights come back as the same kind, in float64 (float32 on devices without it), without a host
    synchronisation. Weights are never negative and sum to 1 over the last axis.
    """

    needs: ClassVar[Needs] = "norms"

    @abstractmethod
    def __call__(self, measured: Array, /) -> Array:
        """Weights (..., K) for ``measured``, on the simplex."""

    def of(self, tasks: Sequence[int], /) -> Weighting:
        """The rule for a step that has only these of its tasks, by position; by default itself."""
        return self
