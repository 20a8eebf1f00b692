"""When to measure: what a budget buys, counted in passes, never by a clock."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, final

FORWARD, BACKWARD = 1 / 3, 2 / 3
"""What a pass through the whole model costs, in plain steps."""
CREDIT = 30.0
"""How many plain steps may be spent on measuring in the beginning, beyond the budget."""
TRUSTED = 2
"""After so many sound reruns at unmoved parameters, no more are made."""
TURN = 4
"""Every so many probes, the probe of one task is held against its gradient."""
WRONG = 2
"""After so many failures in a row, the probe is given up."""


@final
@dataclass(frozen=True)
class Cadence:
    """What has been measured, and when the next measurement is due; plain numbers.

    Measurements are dense in the first steps and then as far apart as the budget asks for. All
    follows from the steps and the graphs, so every rank has the same, and a run repeats.

    Attributes:
        known: the tasks whose norm was measured exactly, once.
        made: how many measurements along the update there have been.
        due: the number of the step of the next one.
        repeated: how many reruns at unmoved parameters were sound.
        failures: how many probes in a row failed a check.
        direct: the tasks that the probe cannot see, so their gradient is taken.
        order: the tasks by their shares in the last probe, the quietest first.
        turns: how often each task's probe was held against its gradient.
        doubts: how often in a row it was wrong.
        spent: what all measurements so far have cost, in plain steps.
        reason: why the probe was given up, or is not complete; empty if it works.

    Example:
        >>> cadence = Cadence().moved(step=0, cost=0.5, budget=0.05)
        >>> cadence.due, cadence.made
        (1, 1)
        >>> Cadence(made=100).moved(step=700, cost=0.5, budget=0.05).due
        710
    """

    known: tuple[int, ...] = ()
    made: int = 0
    due: int = 0
    repeated: int = 0
    failures: int = 0
    direct: tuple[int, ...] = ()
    order: tuple[int, ...] = ()
    turns: tuple[int, ...] = ()
    doubts: tuple[int, ...] = ()
    spent: float = 0.0
    reason: str = ""

    @property
    def given_up(self) -> bool:
        """Whether no more probes are made."""
        return self.failures >= WRONG

    def moved(self, step: int, cost: float, budget: float, every: int | None = None) -> Cadence:
        """After a measurement in ``step`` that cost so many plain steps."""
        spent = self.spent + cost
        if every is not None:
            apart = every
        else:
            steady = math.ceil(cost / budget) + self.made % 2  # an even beat would miss every other
            apart = min(steady, 1 + self.made // TURN)
            apart = max(apart, math.ceil((spent + cost - CREDIT) / budget) - step)
        return replace(self, made=self.made + 1, due=step + apart, spent=spent)

    def to_dict(self) -> dict[str, Any]:
        """For a checkpoint.

        Example:
            >>> Cadence.from_dict(Cadence(due=3).to_dict()).due
            3
        """
        return asdict(self)

    @staticmethod
    def from_dict(saved: Mapping[str, Any]) -> Cadence:
        """The inverse of :meth:`to_dict`."""
        plain: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list | tuple) else value
            for name, value in saved.items()
        }
        return Cadence(**plain)
