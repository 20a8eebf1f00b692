"""What a weighting is: from what was measured to weights, with or without a memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, NamedTuple, TypeAlias, TypeVar

from torch import Tensor

if TYPE_CHECKING:
    from gaba.arrays import Array

Needs = Literal["losses", "norms", "gramian"]
State = TypeVar("State")


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

    def raw(self, measured: Array, /) -> Array:
        """Weights (..., K) with the sum that the method itself gives them, for ``scale="rule"``.

        By default they are those on the simplex.
        """
        return self(measured)

    def of(self, tasks: Sequence[int], /) -> Weighting:
        """The rule for a step that has only these of its tasks, by position; by default itself."""
        return self


class Measured(NamedTuple):
    """What was seen of the K tasks in one step; the entries of missing tasks mean nothing.

    Attributes:
        losses: (K,), their values.
        norms: (K,), as believed after the norm stabiliser; ``None`` where none were measured.
        gramian: (K, K), ⟨∇L_k, ∇L_l⟩ with the believed norms; ``None`` if it was not asked for.
        statistics: (K, m), what a special measurement gives besides; ``None`` from the others.
    """

    losses: Tensor
    norms: Tensor | None = None
    gramian: Tensor | None = None
    statistics: Tensor | None = None


class StatefulWeighting(ABC, Generic[State]):
    """A weighting with a memory, such as weights that are themselves learnt.

    Subclasses are frozen dataclasses: settings only. Their state is another frozen dataclass of
    tensors, all of them there from :meth:`init` on; the Balancer keeps it, saves it and drops a bad
    step. ``needs`` says what must be measured; the losses are always there besides.

    Example:
        One whose weights are the largest losses so far; the state is a single tensor.

        >>> from dataclasses import dataclass
        >>> import torch
        >>> @dataclass(frozen=True)
        ... class Largest(StatefulWeighting[torch.Tensor]):
        ...     def init(self, n_tasks):
        ...         return torch.zeros(n_tasks, dtype=torch.float64)
        ...
        ...     def update(self, measured, state, present=None):
        ...         state = torch.maximum(state, measured.losses)
        ...         return state, state
        >>> rule = Largest()
        >>> weights, state = rule.update(Measured(torch.tensor([3.0, 1.0])), rule.init(2))
        >>> weights.tolist()
        [3.0, 1.0]
    """

    needs: ClassVar[Needs] = "losses"

    @abstractmethod
    def init(self, n_tasks: int) -> State:
        """The state before the first step, for K = ``n_tasks``."""

    @abstractmethod
    def update(
        self, measured: Measured, state: State, present: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """One step: the weights (K,) with the sum that the method gives them, and the next state.

        ``present`` (K,) is a boolean mask of the tasks that this step has; ``None`` means all. A
        task that is missing keeps its part of the state, and its weight is ignored.
        """


AnyWeighting: TypeAlias = "Weighting | StatefulWeighting[Any]"
