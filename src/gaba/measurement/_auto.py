"""Which measurement to take, where nobody says: from K, the model and an error."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch

from gaba.ranks.wrappers import sharded
from gaba.measurement._base import Measurement
from gaba.measurement._every import Every
from gaba.measurement._exact import ExactNorms
from gaba.measurement._sketch import SketchNorms
from gaba.autograd.shared import Shared, SharedModule, SharedSpec, as_shared

FEW = 3
"""So many tasks are measured exactly: now and then that is cheaper than a sketch."""
DEAREST = 50
"""The most steps between two exact measurements, after which weights would be too old."""


@final
@dataclass(frozen=True)
class Choice:
    """A measurement, and why it was chosen.

    Attributes:
        measurement: what to measure with.
        reason: why, in words.

    Example:
        >>> from gaba.measurement import ExactNorms
        >>> Choice(ExactNorms(), "each step needs the gradients of each task").measurement.mode
        'store'
    """

    measurement: Measurement
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

    What exact norms add to a step grows with K, by about .6 of a plain step for each task after the
    first; what a sketch adds does not. So up to 3 tasks are measured exactly in every 10 (K − 1)-th
    step, and more by a sketch in every 4th, with the decay d that its error asks for: the ratio of
    two norms then has the standard error ((1 − d)/(1 + d))^½ for gradients at right angles. Where
    a sketch cannot be taken, exact norms are, at most 50 steps apart.

    Args:
        n_tasks: K.
        shared: as the Balancer takes it.
        error: the relative standard error allowed, in (0, 1); .1 is one part in ten.
        gramian: whether the weighting needs the Gramian, for which a sketch must have seen more
            directions than there are tasks.
        every_step: whether each step must have the gradients of each task.

    Raises:
        ValueError: ``error`` is out of range.

    Example:
        >>> trunk = torch.nn.Linear(3, 4)
        >>> choose(2, trunk).measurement
        Every(n=10, engine=ExactNorms(mode='store'))
        >>> choose(40, trunk).measurement.every
        4
        >>> choose(8, trunk.parameters()).reason
        '8 tasks, but what is shared is no module: exact norms now and then instead of a sketch'
    """
    if not 0 < error < 1:
        raise ValueError(f"error must be above 0 and below 1, found {error}")
    exact = ExactNorms()
    if every_step:
        return Choice(exact, "each step needs the gradients of each task")
    apart = min(10 * (n_tasks - 1), DEAREST)
    if n_tasks <= FEW:
        return Choice(
            Every(apart, exact),
            f"{n_tasks} tasks: exact norms in every {apart}th step cost less than a sketch",
        )
    sparse = Every(apart, exact)
    if why := _no_sketch(shared, n_tasks, error, gramian):
        reason = f"{n_tasks} tasks, but {why}: exact norms now and then instead of a sketch"
        return Choice(sparse, reason)
    decay = round((1 - error**2) / (1 + error**2), 4)
    return Choice(
        SketchNorms(every=4, decay=decay),
        f"{n_tasks} tasks, whose number a sketch does not feel; decay {decay} for ratios within "
        f"{error:.0%} of exact",
    )


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
