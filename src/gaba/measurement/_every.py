"""Measuring now and then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from gaba.autograd.graph import LossGraph
from gaba.measurement._base import Measurement, Observation


@final
@dataclass(frozen=True)
class Every(Measurement):
    """Another measurement, made in the steps 0, n, 2n, ... only.

    The steps in between are one backward pass of the weighted sum, with the weights as they are,
    and leave the state alone. The mean cost of a step falls from 1 + c to 1 + c/n, with c what the
    measurement adds to a plain step, for weights that are up to n − 1 steps old.

    Args:
        n: at least 1.
        engine: what to measure with; where it leaves out steps itself, both must agree.

    Raises:
        ValueError: ``n`` is smaller than 1.
        TypeError: ``engine`` is no measurement.

    Example:
        >>> from gaba.measurement import ExactNorms
        >>> [Every(3, ExactNorms()).due(step) for step in range(5)]
        [True, False, False, True, False]
    """

    n: int
    engine: Measurement

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"n must be at least 1, found {self.n}")
        if not isinstance(self.engine, Measurement):
            raise TypeError(
                f"engine must be a measurement, found {type(self.engine).__name__}: pass an object "
                "such as ExactNorms()"
            )
        object.__setattr__(self, "needs_calls", self.engine.needs_calls)
        object.__setattr__(self, "halves", self.engine.halves)

    def init(self, n_tasks: int) -> Any:
        """The state of the engine."""
        return self.engine.init(n_tasks)

    def due(self, step: int) -> bool:
        """In every n-th step, if the engine agrees."""
        return step % self.n == 0 and self.engine.due(step)

    def __call__(
        self, graph: LossGraph, state: Any = (), *, gramian: bool = False, gradients: bool = False
    ) -> Observation:
        """Observe the K losses of ``graph`` with the engine."""
        return self.engine(graph, state, gramian=gramian, gradients=gradients)
