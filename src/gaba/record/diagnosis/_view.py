"""A history laid out for the checks: which entries count for what."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np
from numpy.typing import NDArray

from gaba.record.cosines import known_cosines
from gaba.record.diagnosis._thresholds import DEFAULT_LIMIT, DROWNS, EARLY, FADED, FEW_STEPS, RARE
from gaba.record.diagnosis._windows import Windows

if TYPE_CHECKING:
    from gaba.record.history import History

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

RISE = "1.2"
"""The factor by which the default method lets a multiplier grow in one step."""

CONSTANT = ("observe", "uniform", "fixed", "single", "from-run", "inverse-initial")


@final
@dataclass(frozen=True)
class View:
    """The columns of a history, and the masks that every check needs.

    With accumulation a row is one optimizer step: its norms are of the gradients of its window.

    ``present`` (N, K): the step had the task. A missing task has no multiplier.
    ``pulls`` (N, K): norms that were measured in a finite step and are above 0; NaN elsewhere, and
    where a regularizer is kept from being amplified, so that nobody asks to balance it.
    ``complete`` (N,): finite steps that had every task, so that their weights can be compared.
    ``rising`` (N, K): a multiplier grew by all that the method lets it, when it last changed.
    ``saturated`` (N, K): it is at a limit, which one that is still rising, or spared, is not.
    ``cosines`` (M, K, K): of the M finite steps where some are known.
    ``groups`` (N, K) by part of the shared module: the norms there.
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
    cosines: Floats
    engines: NDArray[np.str_]
    rising: Bools
    saturated: Bools
    finite: Bools
    measured: Bools
    present: Bools
    pulls: Floats
    complete: Bools
    groups: Mapping[str, Floats]

    @classmethod
    def of(cls, history: History) -> View:
        """The view of ``history``."""
        windows, there = Windows.of(history), ~np.isnan(history.multipliers)
        norms, present = windows.summed(history.norms, there), windows.fold(there, np.any)
        multipliers = windows.last(history.multipliers, there)
        finite = windows.fold(history.finite, np.all)
        measured = windows.fold(history.measured, np.any)
        steps = history.steps[windows.rows[:, -1]]
        losses = windows.mean(np.where(there, history.losses, np.nan))
        saturated = windows.fold(history.saturated, np.any)
        usable = (finite & measured)[:, None] & present & (norms > 0)
        spared = _named(history.tasks, history.about.get("spared", ""))
        usable &= ~(saturated & spared)
        rise = float(history.about.get("rise", RISE))
        rising = _rising(multipliers, steps // windows.size, rise)
        return cls(
            tasks=history.tasks,
            about=history.about,
            steps=steps,
            losses=losses,
            norms=norms,
            multipliers=multipliers,
            weights=windows.last(history.weights, there),
            shares=windows.mean(history.shares),
            cosines=known_cosines(history),
            engines=windows.last(history.engines, history.measured),
            rising=rising,
            saturated=saturated & ~rising & ~spared,
            finite=finite,
            measured=measured,
            present=present,
            pulls=np.where(usable & np.isfinite(norms), norms, np.nan),
            complete=present.all(axis=1) & finite,
            groups={name: windows.summed(found, there) for name, found in history.groups.items()},
        )

    @property
    def contributions(self) -> Floats:
        """(N, K), m_k g_k where the task pulled, over what its target asks for; NaN elsewhere."""
        return self.multipliers * self.pulls / self.asked

    @property
    def asked(self) -> Floats:
        """(K,), how hard each task is to pull next to the others: the root of its share; else 1."""
        words = [word.rpartition(" ") for word in self.about.get("targets", "").split(", ")]
        targets = {name: float(value) for name, _, value in words if name}
        if set(targets) != set(self.tasks):
            return np.ones(len(self.tasks))
        roots = np.sqrt([targets[task] for task in self.tasks])
        return roots / roots.mean()

    @property
    def contested(self) -> Bools:
        """Steps (N,) in which at least two tasks pulled, so that a balance exists."""
        return np.isfinite(self.pulls).sum(axis=1) >= 2

    @property
    def lived(self) -> NDArray[np.int64]:
        """For each step (M,), the row of the last contested one up to it; empty if there is none.

        Measurements are dense in the beginning. Medians over these rows are of the run, not of
        its beginning.
        """
        rows = np.where(self.contested, np.arange(len(self.steps)), -1)
        latest = np.maximum.accumulate(rows) if len(rows) else rows
        return latest[latest >= 0]

    def typical(self, values: Floats) -> Floats:
        """The medians (K,) of ``values`` (N, K) over the run; of all there is if none contests."""
        rows = self.lived
        return task_medians(values[rows] if len(rows) else values)

    @property
    def along(self) -> Bools:
        """Steps (N,) that were measured along their update."""
        return np.isin(self.engines, ("products", "probe"))

    @property
    def observed(self) -> bool:
        """Whether the run was only watched: every loss went into the update as it is written."""
        return self.about.get("method") == "observe"

    @property
    def constant(self) -> bool:
        """Whether the method has one multiplier for each task and never moves it."""
        return self.about.get("method", "").partition(":")[0] in CONSTANT

    @property
    def as_written(self) -> bool:
        """Whether all losses had one multiplier throughout, and not because of a warm-up."""
        high, low = np.nanmax(self.weights, axis=1), np.where(self.present, self.weights, np.inf)
        return not self.warming and bool(np.all(high <= low.min(axis=1) * (1 + 1e-9)))

    @property
    def warm_up(self) -> int:
        """In how many steps the method keeps its multipliers equal."""
        return int(self.about.get("warm-up", "0"))

    @property
    def warming(self) -> bool:
        """Whether the run ends before its warm-up does."""
        return self.step(-1) < self.warm_up

    @property
    def rare(self) -> Bools:
        """(K,), tasks that few steps have, next to the most frequent one."""
        parts = self.present.mean(axis=0)
        return parts < RARE * parts.max()

    @property
    def spared(self) -> list[str]:
        """The tasks that the method never multiplies by more than 1."""
        return [task for task in self.about.get("spared", "").split(", ") if task]

    @property
    def limit(self) -> float:
        """No loss is multiplied or divided by more than this; ∞ without a limit."""
        return float(self.about.get("limit", "inf"))

    def risen(self) -> dict[int, int]:
        """The tasks that have risen without a pause up to the end, and for how many steps."""
        lengths = {k: _to_the_end(self.rising[self.present[:, k], k]) for k in self._all}
        whole = self.present.sum(axis=0)
        return {k: n for k, n in lengths.items() if n and n >= EARLY * whole[k]}

    def faded(self, k: int) -> float:
        """By which factor the norm of task ``k`` fell from its early heights; 1 for few steps."""
        known = self.pulls[~np.isnan(self.pulls[:, k]), k]
        if len(known) < FEW_STEPS // 2:
            return 1.0
        early, late = known[: len(known) // 2], known[-(len(known) // 4) :]
        return float(np.quantile(early, 0.9) / np.median(late))

    def converged(self, k: int) -> bool:
        """Whether the norm of task ``k`` fell so far that the task may be solved."""
        return self.faded(k) >= FADED

    def step(self, row: int) -> int:
        """The number of the step in this row."""
        return int(self.steps[row])

    def line(self, **settings: object) -> str:
        """The line that makes the Balancer of this run with other settings."""
        method = self.about.get("method", "gaba")
        if method != "gaba" and "(" not in method:
            settings = {"method": method, **settings}
        return _balancer(settings, self.about)

    def balancing(self) -> str:
        """The line that balances these tasks: the default method, with the limit it needs."""
        settings: dict[str, object] = {} if self.observed else {"method": "gaba"}
        pulls = self.typical(self.pulls)
        pulls = pulls[pulls > 0]
        limit = DEFAULT_LIMIT
        while len(pulls) > 1 and left_by(limit, pulls) >= DROWNS:
            limit = 10 * limit if limit > DEFAULT_LIMIT else 1000
        if limit > DEFAULT_LIMIT:
            settings["limit"] = int(limit)
        return _balancer(settings, self.about)

    @property
    def _all(self) -> range:
        return range(len(self.tasks))


def _named(tasks: tuple[str, ...], listed: str) -> Bools:
    """(K,), which tasks are in a list of names."""
    return np.isin(tasks, listed.split(", "))


def _balancer(settings: Mapping[str, object], about: Mapping[str, str]) -> str:
    """The line that makes a Balancer of these settings, with the fixed losses of the run."""
    shared = "shared" if "shared" not in settings else f'shared="{settings["shared"]}"'
    words = [word.rpartition(" ") for word in about.get("fixed", "").split(", ") if word]
    fixed = ", ".join(f'"{name}": {value}' for name, _, value in words)
    written = [
        f"{name}={value:_}" if isinstance(value, int) else f'{name}="{value}"'
        for name, value in settings.items()
        if name != "shared"
    ]
    written += [f"fixed={{{fixed}}}"] if fixed else []
    return f"gaba.Balancer({', '.join(['tasks', shared, *written])})"


def left_by(limit: float, norms: Floats) -> float:
    """How far apart contributions stay if no multiplier may exceed ``limit``, under scale "sum".

    Example:
        >>> round(left_by(64, np.array([500.0, 1.0])), 2), left_by(64, np.array([100.0, 1.0]))
        (6.83, 1.0)
    """
    norms = np.sort(norms)
    for weak in range(len(norms)):
        equal = (norms.sum() - limit * norms[:weak].sum()) / (len(norms) - weak)
        if equal <= limit * norms[weak]:
            return float(equal / (limit * norms[0])) if weak else 1.0
    return 1.0


def next_power(value: float) -> int:
    """The next power of ten."""
    return 10 ** math.ceil(math.log10(value) - 1e-9)


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


def _to_the_end(mask: Bools) -> int:
    """How long the stretch is in which ``mask`` (N,) is true, up to its end."""
    start, length = runs(mask)[-1] if mask.any() else (0, 0)
    return length if start + length == len(mask) else 0


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
