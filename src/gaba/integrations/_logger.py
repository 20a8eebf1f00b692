"""What a Balancer recorded since the last time: as scalars for a logger, as steps for sinks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, final

import numpy as np
from numpy.typing import NDArray

from gaba import Balancer, Step

LAST = ("norms", "multipliers", "weights", "contributions", "shares")
BY_TASK = ("losses", *LAST, "saturated")


class Sink(Protocol):
    """What takes steps one after the other, such as :class:`gaba.RunRecord`."""

    def write(self, step: Step) -> None:
        """Take one step."""
        ...


@final
class HistoryLogger:
    """Reads the history of a Balancer, so nothing waits for the device between two readings.

    Args:
        balancer: whose steps to read. Steps that are already there are left out.
        prefix: what the names of the scalars begin with.
        sinks: get every step, in order.

    Example:
        >>> import torch, gaba
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> balancer = gaba.Balancer(["a", "b"], [w], "inverse")
        >>> logger = HistoryLogger(balancer)
        >>> _ = balancer.backward({"a": w.sum(), "b": 3 * w.sum()})
        >>> {name: round(value, 3) for name, value in logger.collect().items() if "weights" in name}
        {'gaba/weights/a': 0.75, 'gaba/weights/b': 0.25}
        >>> logger.collect()
        {}
    """

    def __init__(
        self, balancer: Balancer, prefix: str = "gaba", sinks: Sequence[Sink] = ()
    ) -> None:
        self.balancer = balancer
        self.prefix = prefix
        self._sinks = tuple(sinks)
        self._cursor = balancer.history.recorded

    def collect(self) -> dict[str, float]:
        """The scalars of the steps since the last call; the sinks get these steps.

        Call it after the backward pass, which is when the shares of its step are measured.
        Losses are means over the steps, ``saturated`` is the part of the steps. Everything else is
        the last value that was seen; what no step has seen is left out.
        """
        new, self._cursor = self.balancer.history.since(self._cursor)
        if len(new) == 0:
            return {}
        if self._sinks:
            for step in new:
                for sink in self._sinks:
                    sink.write(step)
        vectors = {name: _last(getattr(new, name)) for name in LAST}
        vectors["losses"] = _mean(new.losses)
        vectors["saturated"] = new.saturated.mean(0)
        seen = {name: dict(zip(new.tasks, row, strict=True)) for name, row in vectors.items()}
        return scalars({**seen, "imbalance": _last(new.imbalance[:, None])[0]}, self.prefix)


def scalars(seen: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """``{"gaba/norms/rul": 3.0}`` and the like from ``{"norms": {"rul": 3.0}, "imbalance": 1.0}``.

    What is missing, None or not finite is left out. :meth:`gaba.Step.asdict` gives such a mapping.
    """
    found = {f"{prefix}/imbalance": seen["imbalance"]}
    for name in BY_TASK:
        for task, value in seen.get(name, {}).items():
            found[f"{prefix}/{name}/{task}"] = value
    return {
        name: float(value)
        for name, value in found.items()
        if value is not None and math.isfinite(value)
    }


def _mean(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """(K,), the mean of each column over its finite entries; NaN where there are none."""
    there = np.isfinite(rows)
    count = there.sum(0)
    total = np.where(there, rows, 0.0).sum(0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _last(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """(K,), the last finite entry of each column; NaN where there is none."""
    there = np.isfinite(rows)
    last = len(rows) - 1 - there[::-1].argmax(0)
    return np.where(there.any(0), rows[last, np.arange(rows.shape[1])], np.nan)
