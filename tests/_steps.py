"""Steps and histories that no Balancer made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from gaba.record import History, Step

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
    tasks: Sequence[str] = TASKS,
    keep: int | None = None,
    **others: Any,
) -> History:
    """A history with these columns; anything with one row is repeated for every step."""
    norms = np.asarray(norms, dtype=float)
    n, k = np.broadcast_shapes(norms.shape, np.shape(multipliers))
    norms = np.broadcast_to(norms, (n, k))
    losses = norms if losses is None else np.broadcast_to(losses, (n, k))
    multipliers = np.broadcast_to(np.asarray(multipliers, float), (n, k))
    held = np.broadcast_to(saturated, (n, k))
    seen = np.isfinite(losses) | np.isnan(norms)
    good = np.broadcast_to(seen.all(1) if finite is None else finite, (n,))
    when = np.broadcast_to(measured, (n,))
    history = History(tuple(tasks[:k]), keep)
    for i in range(n):
        history.append(
            make_step(
                multipliers[i],
                norms[i],
                losses=losses[i],
                saturated=held[i],
                finite=bool(good[i]),
                measured=bool(when[i]),
                step=i,
                tasks=tasks,
                **others,
            )
        )
    return history
