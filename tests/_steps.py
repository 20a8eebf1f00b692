"""Steps and histories that no Balancer made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from gaba.record import History, Step
from gaba.record.jsonl import COMBINED, ENGINES, Row

TASKS = ("rul", "health", "third")


def make_step(
    multipliers: ArrayLike,
    norms: ArrayLike,
    *,
    losses: ArrayLike | None = None,
    saturated: ArrayLike | bool = False,
    gramian: ArrayLike | None = None,
    finite: bool = True,
    measured: bool = True,
    step: int = 0,
    tasks: Sequence[str] = TASKS,
    **others: Any,
) -> Step:
    """A step with these vectors; its losses are its norms unless they are given."""
    vectors = {"multipliers": multipliers, "norms": norms}
    vectors["losses"] = norms if losses is None else losses
    tensors = {name: torch.tensor(np.array(v, dtype=float)) for name, v in vectors.items()}
    k = len(tensors["norms"])
    return Step(
        tasks=tuple(tasks[:k]),
        step=step,
        measured=measured,
        combined="caller",
        saturated=torch.tensor(np.broadcast_to(saturated, (k,)).copy()),
        finite=torch.tensor(finite),
        gramian=None if gramian is None else torch.tensor(np.array(gramian, dtype=float)),
        **tensors,
        **others,
    )


def make_history(
    norms: ArrayLike,
    multipliers: ArrayLike,
    *,
    losses: ArrayLike | None = None,
    saturated: ArrayLike = False,
    finite: ArrayLike | None = None,
    measured: ArrayLike = True,
    shares: ArrayLike = np.nan,
    engine: str | Sequence[str] | None = None,
    tasks: Sequence[str] = TASKS,
    about: Mapping[str, str] | None = None,
) -> History:
    """A history with these columns; anything with one row is repeated for every step.

    Unless it is given, the engine is "norms" where the step was measured.
    """
    norms = np.asarray(norms, dtype=float)
    n, k = np.broadcast_shapes(norms.shape, np.shape(multipliers))
    vectors = [norms if losses is None else losses, norms, multipliers, saturated, shares]
    vectors = [np.broadcast_to(np.asarray(vector, float), (n, k)) for vector in vectors]
    seen = np.isfinite(vectors[0]) | np.isnan(vectors[1])
    good = seen.all(1) if finite is None else finite
    caller = float(COMBINED.index("caller"))
    if engine is None:
        engines = np.where(measured, ENGINES.index("norms"), ENGINES.index(""))
    else:
        engines = np.array([ENGINES.index(name) for name in np.atleast_1d(engine)])
    scalars = [np.arange(n), measured, caller, engines, np.arange(n), good]
    scalars = [np.broadcast_to(scalar, (n,)) for scalar in scalars]
    numbers = np.column_stack([*scalars, *vectors]).astype(float)
    history = History(tuple(tasks[:k]), keep=None)
    history.add([Row(line) for line in numbers.tolist()], about)
    return history
