"""What every piece of a method is: settings, with ``init`` and ``update`` and an explicit state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, final

from torch import Tensor

Told = TypeVar("Told")
Result = TypeVar("Result")


class Piece(ABC, Generic[Told, Result]):
    """A measurement, a stabiliser, a rule, the bounds of the multipliers, or a whole method.

    Subclasses are frozen dataclasses: settings only. What a piece remembers is an explicit state: a
    tensor, a frozen dataclass of tensors, a tuple of states, or ``()`` for a piece without memory.
    All tensors of a state exist from :meth:`init` on, and every number in them is finite: a step
    after which one is not is dropped. ``update`` is pure: it returns a new state
    and never writes into the old one, so the caller drops a bad step by keeping the state it had.
    """

    def init(self, n_tasks: int) -> Any:
        """The state before the first step, for K = ``n_tasks``. By default there is none."""
        return ()

    @abstractmethod
    def update(self, told: Told, state: Any, /) -> tuple[Result, Any]:
        """One step: what this piece makes of what it is told, and the next state."""


@final
@dataclass(frozen=True, eq=False)
class Seen:
    """What is known of the K tasks in one step. NaN stands for a task of which nothing is known.

    Attributes:
        losses: (..., K), L_k.
        norms: (..., K), g_k as believed; 0 for a task that has no gradient.
        gramian: (..., K, K), ⟨∇L_k, ∇L_l⟩ with the believed norms, if the rule needs it.
        statistics: (K, m), what a special measurement adds.
    """

    losses: Tensor
    norms: Tensor
    gramian: Tensor | None = None
    statistics: Tensor | None = None
