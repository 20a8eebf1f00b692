"""What a Balancer has recorded since the last look: as scalars for a logger, as steps for sinks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, final

import numpy as np
import torch

from gaba import Balancer, History, Step


class Sink(Protocol):
    """What takes steps one after the other, such as :class:`gaba.RunRecord`."""

    def write(self, step: Step) -> None:
        """Take one step."""
        ...


@final
class Follower:
    """Reads on in the history of a Balancer, so that nothing waits for the device in between.

    Args:
        balancer: whose steps they are.
        prefix: what the names of the scalars begin with.
        sinks: get every step, in order.

    Example:
        >>> import torch, gaba
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> balancer = gaba.Balancer(["a", "b"], shared=[w])
        >>> follower = Follower(balancer)
        >>> _ = balancer.backward({"a": w.sum(), "b": 3 * w.sum()})
        >>> {name: round(value, 3) for name, value in follower.look().items() if "weights" in name}
        {'gaba/weights/a': 0.75, 'gaba/weights/b': 0.25}
        >>> follower.look()
        {}
    """

    def __init__(
        self, balancer: Balancer, prefix: str = "gaba", sinks: Sequence[Sink] = ()
    ) -> None:
        self.balancer = balancer
        self.prefix = prefix
        self._sinks = tuple(sinks)
        self._seen = len(balancer.history)

    def look(self) -> dict[str, float]:
        """The scalars of the steps since the last look; those steps go to the sinks."""
        history, start = self.balancer.history, self._seen
        if len(history) == start:
            return {}
        self._seen = len(history)
        if self._sinks:
            for step in steps_of(history, start):
                for sink in self._sinks:
                    sink.write(step)
        return scalars(history, start, self.prefix)


def scalars(history: History, start: int, prefix: str) -> dict[str, float]:
    """The steps from number ``start`` on by name; what was not seen in any of them is left out.

    Losses are means over the steps, ``saturated`` the part of them in which a weight sat on its
    floor; norms, contributions, imbalance, weights and gain are the last that were seen.
    """
    rows = slice(start, None)
    contributions = history.contributions[rows]
    by_task = {
        "losses": _mean(history.losses[rows]),
        "norms": _last(history.norms[rows]),
        "weights": history.weights[-1],
        "contributions": _last(contributions),
        "saturated": history.saturated[rows].mean(0),
    }
    found = {
        f"{prefix}/{name}/{task}": float(value)
        for name, values in by_task.items()
        for task, value in zip(history.tasks, values, strict=True)
    }
    found[f"{prefix}/gain"] = float(history.gain[-1])
    found[f"{prefix}/imbalance"] = float(_last(history.imbalance[rows][:, None])[0])
    return {name: value for name, value in found.items() if np.isfinite(value)}


def steps_of(history: History, start: int = 0) -> Iterator[Step]:
    """The steps of ``history`` from number ``start`` on, on the CPU."""
    names = ("losses", "norms", "weights", "saturated", "gain", "finite", "cosines")
    columns = {name: getattr(history, name)[start:] for name in names}
    numbers, times, measured = (x[start:] for x in (history.steps, history.times, history.measured))
    for i, number in enumerate(numbers.tolist()):
        row: dict[str, Any] = {
            name: torch.from_numpy(np.array(column[i])) for name, column in columns.items()
        }
        cosines, norms = row.pop("cosines"), row["norms"]
        seen = not bool(cosines.isnan().all())
        yield Step(
            tasks=history.tasks,
            step=number,
            measured=bool(measured[i]),
            combined="caller",
            gramian=cosines * (norms[:, None] * norms) if seen else None,
            about=history.about,
            time=float(times[i]),
            **row,
        )


def _mean(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """(K,), the mean of each column over its finite entries; NaN where there are none."""
    there = np.isfinite(rows)
    count = there.sum(0)
    total = np.where(there, rows, 0.0).sum(0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _last(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """(K,), the last finite entry of each column; NaN where there is none."""
    there = np.isfinite(rows)
    last = len(rows) - 1 - there[::-1].argmax(0)
    return np.where(there.any(0), rows[last, np.arange(rows.shape[1])], np.nan)
