"""A history laid out for the checks: which entries count for what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from gaba.record.history import History

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

RISE = "1.2"
"""The factor by which the default method lets a multiplier grow in one step."""


@final
@dataclass(frozen=True)
class View:
    """The columns of a history, and the masks that every check needs.

    ``present`` (N, K): the step had the task. A missing task has no multiplier.
    ``pulls`` (N, K): norms that were measured in a finite step and are above 0; NaN elsewhere.
    ``complete`` (N,): finite steps that had every task, so that their weights can be compared.
    ``rising`` (N, K): a multiplier grew by all that the method lets it, when it last changed.
    ``saturated`` (N, K): it is at a limit, which one that is still rising is not.
    ``engines`` (N,): what was measured. Along the update, the norms are the effective ones, and 0
    for a task that opposes it.
    """

    tasks: tuple[str, ...]
    about: Mapping[str, str]
    steps: NDArray[np.int64]
    losses: Floats
    norms: Floats
    multipliers: Floats
    weights: Floats
    shares: Floats
    engines: NDArray[np.str_]
    rising: Bools
    saturated: Bools
    finite: Bools
    measured: Bools
    present: Bools
    pulls: Floats
    complete: Bools

    @classmethod
    def of(cls, history: History) -> View:
        """The view of ``history``."""
        norms, present = history.norms, ~np.isnan(history.multipliers)
        usable = (history.finite & history.measured)[:, None] & present & (norms > 0)
        rise = float(history.about.get("rise", RISE))
        rising = _rising(history.multipliers, history.steps, rise)
        return cls(
            tasks=history.tasks,
            about=history.about,
            steps=history.steps,
            losses=history.losses,
            norms=norms,
            multipliers=history.multipliers,
            weights=history.weights,
            shares=history.shares,
            engines=history.engines,
            rising=rising,
            saturated=history.saturated & ~rising,
            finite=history.finite,
            measured=history.measured,
            present=present,
            pulls=np.where(usable & np.isfinite(norms), norms, np.nan),
            complete=present.all(axis=1) & history.finite,
        )

    @property
    def contributions(self) -> Floats:
        """(N, K), m_k g_k where the task pulled; NaN elsewhere."""
        return self.multipliers * self.pulls

    @property
    def contested(self) -> Bools:
        """Steps (N,) in which at least two tasks pulled, so that a balance exists."""
        return np.isfinite(self.pulls).sum(axis=1) >= 2

    @property
    def along(self) -> Bools:
        """Steps (N,) that were measured along their update."""
        return np.isin(self.engines, ("products", "probe"))

    def step(self, row: int) -> int:
        """The number of the step in this row."""
        return int(self.steps[row])

    def line(self, **settings: object) -> str:
        """The line that makes the Balancer of this run with other settings."""
        method = self.about.get("method", "gaba")
        if method != "gaba" and "(" not in method:
            settings = {"method": method, **settings}
        written = (
            f"{name}={value:_}" if isinstance(value, int) else f'{name}="{value}"'
            for name, value in settings.items()
        )
        return f"gaba.Balancer(tasks, shared, {', '.join(written)})"


def _rising(multipliers: Floats, steps: NDArray[np.int64], rise: float) -> Bools:
    """Where (N, K) the last change of a multiplier was by ``rise`` in each step it took.

    Multipliers start from 1 before step 0. Micro-batches of one step share theirs.
    """
    rising = np.zeros(multipliers.shape, dtype=bool)
    before, at = np.ones(multipliers.shape[1]), np.full(multipliers.shape[1], -1)
    state = np.zeros(multipliers.shape[1], dtype=bool)
    for row, (values, step) in enumerate(zip(multipliers, steps, strict=True)):
        here = ~np.isnan(values)
        changed = here & ~np.isclose(values, before, rtol=1e-9, atol=0)
        most = before * rise ** np.minimum(step - at, 100)
        state = np.where(changed, np.isclose(values, most, rtol=1e-6, atol=0), state)
        before, at = np.where(here, values, before), np.where(here, step, at)
        rising[row] = state & here
    return rising


def runs(mask: Bools) -> list[tuple[int, int]]:
    """The stretches in which ``mask`` (N,) is true, as (first row, length).

    Example:
        >>> runs(np.array([True, False, True, True]))
        [(0, 1), (2, 2)]
    """
    padded = np.concatenate(([False], mask, [False]))
    edges = np.flatnonzero(padded[1:] != padded[:-1])
    return [(int(a), int(b - a)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def task_medians(values: Floats) -> Floats:
    """The median (K,) over steps of ``values`` (N, K), NaN where a task never has one."""
    known = [column[~np.isnan(column)] for column in values.T]
    return np.array([np.median(column) if len(column) else np.nan for column in known])


def ratios(values: Floats) -> Floats:
    """(N,), the largest over the smallest of ``values`` (N, K) that are known; ∞ above a 0."""
    high, low = np.nanmax(values, axis=1), np.nanmin(values, axis=1)
    return over(high, low)


def over(above: Floats, below: Floats) -> Floats:
    """``above / below``; anything above a sum or weight of 0 is infinitely far from it."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(below == 0, np.inf, above / below)
