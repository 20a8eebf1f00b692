"""Which measurement to take, where nobody says: from K, the model and an error."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch

from gaba.autograd.sharding import sharded
from gaba.autograd.shared import Shared, SharedModule, SharedSpec, as_shared
from gaba.measurement.base import Measurement
from gaba.measurement.exact import ExactNorms
from gaba.measurement.sketch import SketchNorms

FEW = 3
"""Up to so many tasks are measured exactly: now and then that is cheaper than a sketch."""
DEAREST = 50
"""The most steps between two exact measurements; later the multipliers would be too old."""


@final
@dataclass(frozen=True)
class Choice:
    """A measurement, how often to make it, and why.

    Attributes:
        measurement: what to measure with.
        every: n, to measure in the steps 0, n, 2n, ...
        reason: why, in words.

    Example:
        >>> from gaba.measurement import ExactNorms
        >>> Choice(ExactNorms(), 10, "two tasks").every
        10
    """

    measurement: Measurement
    every: int
    reason: str


def choose(
    n_tasks: int,
    shared: Shared | SharedSpec,
    *,
    error: float = 0.1,
    gramian: bool = False,
    every_step: bool = False,
) -> Choice:
    """The cheapest measurement whose norm ratios between tasks are within ``error`` of exact.

    Exact norms add about 0.6 of a plain step for each task after the first; the cost of a sketch
    does not grow with K. So up to 3 tasks are measured exactly in every 10 (K − 1)-th step, and
    more by a sketch in every 4th, with the decay that the error asks for. Where a sketch cannot be
    taken, exact norms are, at most 50 steps apart.

    Args:
        n_tasks: K.
        shared: as the Balancer takes it.
        error: the relative standard error allowed, in (0, 1); 0.1 is one part in ten.
        gramian: whether the rule needs the Gramian, for which a sketch must have seen more
            directions than there are tasks.
        every_step: whether each step must have the gradients of each task.

    Raises:
        ValueError: ``error`` is out of range.

    Example:
        >>> trunk = torch.nn.Linear(3, 4)
        >>> choose(2, trunk).measurement, choose(2, trunk).every
        (ExactNorms(mode='store'), 10)
        >>> choose(40, trunk).every
        4
        >>> choose(8, trunk.parameters()).reason
        '8 tasks, but what is shared is no module: exact norms now and then instead of a sketch'
    """
    if not 0 < error < 1:
        raise ValueError(f"error must be above 0 and below 1, found {error}")
    exact, apart = ExactNorms(), min(10 * (n_tasks - 1), DEAREST)
    if every_step:
        return Choice(exact, 1, "each step needs the gradients of each task")
    if n_tasks <= FEW:
        reason = f"{n_tasks} tasks: exact norms in every {apart}th step cost less than a sketch"
        return Choice(exact, apart, reason)
    if why := _no_sketch(shared, n_tasks, error, gramian):
        reason = f"{n_tasks} tasks, but {why}: exact norms now and then instead of a sketch"
        return Choice(exact, apart, reason)
    decay = round((1 - error**2) / (1 + error**2), 4)
    reason = (
        f"{n_tasks} tasks: the cost of a sketch does not grow with their number; decay {decay} for "
        f"ratios within {error:.0%} of exact"
    )
    return Choice(SketchNorms(decay=decay), 4, reason)


def _no_sketch(shared: Shared | SharedSpec, n_tasks: int, error: float, gramian: bool) -> str:
    """Why no sketch can be taken; empty if it can."""
    known = shared if isinstance(shared, Shared) else as_shared(shared)
    if not isinstance(known, SharedModule):
        return "what is shared is no module"
    if sharded(known.parameters()):
        return "a sketch cannot step along parameters that are spread over ranks"
    coarse = {p.dtype for p in known.parameters() if torch.finfo(p.dtype).bits < 32}
    if coarse:
        return f"parameters in {', '.join(map(str, coarse))} are too coarse for a difference"
    draws = math.floor(1 / error**2)
    if gramian and draws < 4 * n_tasks:
        return f"the Gramian of {draws} directions would be singular or nearly so"
    return ""
