"""What a stabiliser is: a pure update of an explicit state, one vector in, one vector out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

from torch import Tensor

State = TypeVar("State")


class Stabiliser(ABC, Generic[State]):
    """Smooths, bounds or delays a vector of norms or weights of shape (K,).

    Subclasses are frozen dataclasses: settings only. Their state is another frozen dataclass of
    tensors, all of them there from ``init`` on, and ``update`` returns a new one: it never writes
    into the old, so that a caller may drop a step by keeping the state it had.
    """

    @abstractmethod
    def init(self, n_tasks: int) -> State:
        """The state before the first step, for K = ``n_tasks``."""

    @abstractmethod
    def update(
        self, value: Tensor, state: State, present: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """One step: ``value`` (K,) in, the stabilised value (K,) and the next state out.

        ``present`` (K,) is a boolean mask of the tasks that this step has; ``None`` means all.
        A task that is missing keeps its part of the state, and what ``value`` holds for it is
        ignored.
        """


AnyStabiliser = Stabiliser[Any]
