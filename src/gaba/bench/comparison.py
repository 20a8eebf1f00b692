"""What :func:`gaba.compare` found: its runs, the table of methods, best first, and a picture."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, final

import numpy as np

from gaba.bench import statistics as stats
from gaba.bench.statistics import Interval
from gaba.extras import library, needs
from gaba.record import History

__all__ = ["BASELINE", "Comparison", "Row", "Run"]

BASELINE = "uniform"
"""The method that all others are compared with: equal weights."""

Source = Literal["training", "validation", "test"]

PAIRED = 1e-4
"""Paired runs begin with equal losses, up to this relative difference of a parallel sum."""


@final
@dataclass(frozen=True)
class Run:
    """One training of one method from one seed.

    Attributes:
        method: as the table names it.
        seed: decides the initial parameters, the batches and the dropout.
        learning_rate: where several were tried; None for that of the optimizer as it is.
        figures: the validation losses (or metrics) by name, else the losses at the end of the
            training; empty if the run failed.
        test: the same on test data; empty without them.
        failure: why the run ended early, in words; None if it did not.
        warm_up: steps in which the method gives equal weights whatever it measures.
        history: every step.
        seconds_per_step: the median; two runs that differ in it alone are equal.
    """

    method: str
    seed: int
    learning_rate: float | None
    figures: Mapping[str, float]
    test: Mapping[str, float]
    failure: str | None
    warm_up: int
    history: History = field(compare=False, repr=False)
    seconds_per_step: float = field(compare=False, repr=False)

    @property
    def judged(self) -> Mapping[str, float]:
        """What the table shows: the figures on test data where there are any."""
        return self.test or self.figures


@final
@dataclass(frozen=True)
class Row:
    """One method in the table.

    Attributes:
        method: its name.
        learning_rate: the one that validation data chose; None where none was to be chosen.
        change: in percent, the mean over the figures of (figure − baseline) / |baseline| at the
            same seed, and its interval over the seeds; below 0 is better than equal weights.
        changes: the same of each figure by itself.
        figures: each figure as it is.
        failures: why runs of it ended early.
        only_warms_up: its warm-up is as long as the run, so it gave equal weights throughout.
        time: the median time of a step in parts of that of equal weights.
    """

    method: str
    learning_rate: float | None
    change: Interval
    changes: Mapping[str, Interval]
    figures: Mapping[str, Interval]
    failures: tuple[str, ...]
    only_warms_up: bool
    time: float = field(compare=False)

    @property
    def label(self) -> str:
        """The name, marked if the run is too short to say anything of the method."""
        return f"{self.method} (warm-up only)" if self.only_warms_up else self.method


@final
@dataclass(frozen=True)
class Comparison:
    """Several methods on one model: see :func:`gaba.compare`.

    Attributes:
        runs: every training, those with a learning rate that was not chosen too.
        seeds: how many, the same for every method.
        steps: of each training.
        source: the data that the figures are of.

    Example:
        >>> import torch, gaba
        >>> class Two(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.trunk = torch.nn.Linear(3, 4)
        ...     def forward(self, x):
        ...         z = self.trunk(x)
        ...         return {"a": z[:, 0].square().mean(), "b": 9 * (z[:, 1] - 1).square().mean()}
        >>> data = list(torch.randn(5, 16, 3))
        >>> found = gaba.compare(Two, data, ["gaba"], steps=20, seeds=2, quiet=True)
        >>> found
        Comparison(2 methods, 2 seeds, 20 steps; ... first)
        >>> found["uniform"].change.estimate, len(found.runs)
        (0.0, 4)
    """

    runs: tuple[Run, ...]
    seeds: int
    steps: int
    source: Source

    # ---- the figures ----------------------------------------------------------------------------

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """The methods, best first; those with a failed run come last."""
        baseline = {run.seed: run for run in self._chosen[BASELINE]}
        rows = [self._row(runs, baseline) for runs in self._chosen.values()]

        def place(row: Row) -> tuple[bool, bool, float]:
            change = row.change.estimate
            return bool(row.failures), math.isnan(change), 0 if math.isnan(change) else change

        return tuple(sorted(rows, key=place))

    def __getitem__(self, method: str) -> Row:
        """The row of a method."""
        found = {row.method: row for row in self.rows}
        if method not in found:
            raise KeyError(f"{method!r} was not compared, only {', '.join(found)}")
        return found[method]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of the figures."""
        return next((tuple(run.judged) for run in self.runs if run.failure is None), ())

    @cached_property
    def _chosen(self) -> dict[str, tuple[Run, ...]]:
        """The runs of each method with its learning rate, which validation figures decide alone."""
        tried: dict[str, dict[float | None, list[Run]]] = {}
        for run in self.runs:
            tried.setdefault(run.method, {}).setdefault(run.learning_rate, []).append(run)
        finished = [run.figures for run in self.runs if run.failure is None]
        sizes = {
            name: float(np.median([abs(figures[name]) for figures in finished])) or 1.0
            for name in (finished[0] if finished else ())
        }

        def merit(runs: Sequence[Run]) -> tuple[int, float]:
            parts = [run.figures[n] / s for run in runs if run.figures for n, s in sizes.items()]
            return sum(run.failure is not None for run in runs), math.fsum(parts) / len(runs)

        return {m: tuple(min(rates.values(), key=merit)) for m, rates in tried.items()}

    def _row(self, runs: Sequence[Run], baseline: Mapping[int, Run]) -> Row:
        done = [run for run in runs if run.failure is None]
        pairs = [(run.judged, baseline[run.seed].judged) for run in done]
        pairs = [(mine, base) for mine, base in pairs if base]
        return Row(
            method=runs[0].method,
            learning_rate=runs[0].learning_rate,
            change=_interval([_change(mine, base, self.names) for mine, base in pairs]),
            changes={
                name: _interval([_change(mine, base, [name]) for mine, base in pairs])
                for name in self.names
            },
            figures={name: _interval([run.judged[name] for run in done]) for name in self.names},
            failures=tuple(f"seed {run.seed}: {run.failure}" for run in runs if run.failure),
            only_warms_up=runs[0].warm_up >= self.steps,
            time=_seconds(runs) / _seconds([*baseline.values()]),
        )

    @cached_property
    def paired(self) -> bool:
        """Whether all methods began with the same losses at each seed."""
        first: dict[int, Any] = {}
        for run in self.runs:
            if len(run.history):
                losses = run.history.losses[0]
                seen = first.setdefault(run.seed, losses)
                if not np.allclose(losses, seen, rtol=PAIRED, atol=0, equal_nan=True):
                    return False
        return True

    # ---- in words -------------------------------------------------------------------------------

    @property
    def verdict(self) -> str:
        """What the table says, in a sentence."""
        best = self.rows[0]
        at = best.change
        if best.failures:
            return "Every method failed at least once."
        if math.isnan(at.estimate):
            return f"There is no change to report: {self._without_baseline()}."
        if best.method == BASELINE:
            return "No method is better than equal weights."
        below = f"{_percent(-at.estimate).lstrip('+')} below equal weights"
        if math.isnan(at.low):
            return f"{best.method} comes first, {below}, at the one seed."
        if at.estimate < 0 and at.high < 0:
            ends = f"{_number(-at.high)} to {_number(-at.low)} %"
            return f"{best.method} comes first: {below} (95 % interval {ends})."
        return (
            "No method is clearly better than equal weights: the change of the first, "
            f"{best.method}, is {_percents(at)}."
        )

    def table(self) -> str:
        r"""The verdict, the methods, best first, and what to know of the figures.

        Example:
            >>> history = History(["a", "b"])
            >>> runs = [
            ...     Run(method, seed, None, {"a": a + seed, "b": 1.0}, {}, None, 0, history, 0.1)
            ...     for method, a in (("uniform", 4.0), ("gaba", 2.0)) for seed in (0, 1)
            ... ]
            >>> lines = Comparison(tuple(runs), 2, 100, "validation").table().splitlines()
            >>> print(*lines[2:5], sep="\n")
            method   change [95 % interval]  a              b          time of a step
            gaba     −22.5 [−54.3, 9.3] %    2.5 (−45.0 %)  1 (0.0 %)  1.00×
            uniform  0 %                     4.5            1          1.00×
        """
        rated = any(row.learning_rate is not None for row in self.rows)
        head = ["method", "change [95 % interval]", *self.names]
        head += ["learning rate"] * rated + ["time of a step"]
        lines = [head, *(self._cells(row, rated) for row in self.rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
        grid = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in lines
        ]
        return "\n".join([self.verdict, "", *grid, "", *self._notes()])

    def _cells(self, row: Row, rated: bool) -> list[str]:
        cells = [row.label]
        if row.failures:
            cells.append(f"failed at {len(row.failures)} of {self.seeds}")
        else:
            cells.append("0 %" if row.method == BASELINE else _percents(row.change))
        for name in self.names:
            change = row.changes[name].estimate
            cell = _figure(row.figures[name].estimate)
            told = row.method != BASELINE and not math.isnan(change)
            cells.append(f"{cell} ({_percent(change)})" if told else cell)
        cells += [_figure(row.learning_rate)] * rated
        return [*cells, f"{row.time:.2f}×" if math.isfinite(row.time) else "–"]

    def _notes(self) -> list[str]:
        """What is to be known of the table, a line each."""
        last = max(1, round(self.steps / 10))
        of = {
            "training": f"the training losses of the last {_count(last, 'step')}, as there are no "
            "validation data",
            "validation": "validation data at the end of the training",
            "test": "test data at the end of the training",
        }[self.source]
        notes = [
            f"Figures: means over {_count(self.seeds, 'seed')} on {of}. Change: the mean over the "
            "figures of (figure − that of equal weights at the same seed) / the latter; lower is "
            f"better. {_count(self.steps, 'step')}."
        ]
        if self.seeds == 1:
            notes.append("One seed has no interval: use seeds=3 or more.")
        elif self.seeds < 5:
            notes.append("With so few seeds an interval is wide: more seeds make it narrower.")
        for row in self.rows:
            notes += [f"{row.method} failed at {why}." for why in row.failures]
            if row.only_warms_up:
                notes.append(
                    f"{row.method} gave equal weights throughout: its warm-up is as long as the "
                    "run. Use more steps."
                )
        if missing := self._without_baseline():
            notes.append(f"Some changes are not known: {missing}.")
        if not self.paired:
            notes.append(
                "The runs are not paired: at one seed, methods began with different losses. Give "
                "data=lambda seed: ..., and draw from nothing else in make_model and losses."
            )
        if self.source == "validation" and any(row.learning_rate for row in self.rows):
            notes.append(
                "The same data chose the learning rate of each method: give test= for figures that "
                "decided nothing."
            )
        return notes

    def _without_baseline(self) -> str:
        """Why some changes against equal weights are not known; empty if they are."""
        runs = self._chosen[BASELINE]
        if any(run.failure for run in runs):
            return "equal weights failed"
        zero = [n for n in self.names if any(run.judged[n] == 0 for run in runs)]
        return f"{zero[0]!r} is 0 with equal weights" if zero else ""

    def __str__(self) -> str:
        return self.table()

    def __repr__(self) -> str:
        count, first = len(self.rows), self.rows[0].method
        return (
            f"Comparison({_count(count, 'method')}, {_count(self.seeds, 'seed')}, "
            f"{_count(self.steps, 'step')}; {first} first)"
        )

    # ---- elsewhere ------------------------------------------------------------------------------

    def to_pandas(self) -> Any:
        """The table as a ``pandas.DataFrame``: a row a method, best first.

        Its columns are ``change``, ``change_low`` and ``change_high`` in percent, the same of each
        figure as ``change/NAME``, the figures as ``figure/NAME``, then ``failed`` (runs),
        ``only_warms_up``, ``learning_rate`` and ``time``.

        Raises:
            ImportError: pandas is not installed: ``pip install "gaba[bench]"``.
        """
        pandas = library("pandas", "to_pandas needs", "bench")
        rows: list[dict[str, Any]] = []
        for row in self.rows:
            found = _columns("change", row.change)
            for name in self.names:
                found |= _columns(f"change/{name}", row.changes[name])
                found |= _columns(f"figure/{name}", row.figures[name])
            found |= {"failed": len(row.failures), "only_warms_up": row.only_warms_up}
            found |= {"learning_rate": row.learning_rate, "time": row.time}
            rows.append(found)
        names = pandas.Index([row.method for row in self.rows], name="method")
        return pandas.DataFrame(rows, index=names)

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """A line a method, best on top: the mean change with its interval, and that of each figure.

        Args:
            path: where to write it as well, as PNG, SVG or PDF by its ending.

        Returns:
            A matplotlib figure, which a notebook shows.

        Raises:
            ImportError: matplotlib is not installed: ``pip install "gaba[plots]"``.
        """
        with needs("pictures need", "plots", "matplotlib"):
            from gaba.record.plots import Picture
        picture = Picture(figsize=(8, 1.6 + 0.34 * len(self.rows)), layout="constrained")
        axes = picture.subplots()
        axes.axvline(0, color="#565b66", linewidth=1)
        for i, name in enumerate(self.names):
            known = [row.changes[name].estimate for row in self.rows]
            axes.plot(
                known,
                range(len(known)),
                "|",
                color=f"C{i % 10}",
                ms=11,
                mew=2,
                label=name,
                zorder=2,
            )
        for y, row in enumerate(self.rows):
            if row.failures:
                text = f"failed at {len(row.failures)} of {self.seeds} seeds"
                at = (0.99, y), axes.get_yaxis_transform()
                axes.text(*at[0], text, transform=at[1], ha="right", va="center", color="#a52a22")
                continue
            if not math.isnan(row.change.low):
                axes.plot([row.change.low, row.change.high], [y, y], color="#1c1f26", linewidth=1.8)
            axes.plot(row.change.estimate, y, "o", color="#1c1f26", markersize=6, zorder=3)
        axes.set_yticks(range(len(self.rows)), [row.label for row in self.rows])
        axes.set_ylim(len(self.rows) - 0.4, -0.6)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.grid(axis="x", color="#e7e4db")
        axes.set_axisbelow(True)
        axes.set_xlabel(
            f"change against equal weights in %, {self.source} data, {_count(self.seeds, 'seed')}\n"
            "dot: mean of all figures with its 95 % interval; left is better"
        )
        if self.names:
            picture.legend(loc="outside upper right", ncols=6, frameon=False, fontsize=9)
        if path is not None:
            picture.savefig(path, dpi=150)
        return picture


# ---- numbers ------------------------------------------------------------------------------------


def _change(
    figures: Mapping[str, float], baseline: Mapping[str, float], names: Sequence[str]
) -> float:
    """The mean relative change in percent, lower is better; NaN where a baseline is 0."""
    bases = [baseline[name] for name in names]
    # A negative baseline turns the sign of a quotient; the direction turns it back.
    found = stats.relative_change([figures[n] for n in names], bases, [b < 0 for b in bases])
    return 0.0 - 100 * found


def _interval(values: Sequence[float]) -> Interval:
    """The mean and Student's t interval; NaN where nothing is known."""
    known = len(values) > 0 and all(map(math.isfinite, values))
    return stats.t_interval(values) if known else Interval(math.nan)


def _seconds(runs: Sequence[Run]) -> float:
    """Of a step, the median over the runs that made one."""
    known = [run.seconds_per_step for run in runs if math.isfinite(run.seconds_per_step)]
    return float(np.median(known)) if known else math.nan


def _columns(name: str, at: Interval) -> dict[str, float]:
    return {name: at.estimate, f"{name}_low": at.low, f"{name}_high": at.high}


def _figure(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "–"
    return f"{value:.4g}".replace("-", "−")


def _number(value: float) -> str:
    """In percent: with a digit after the point where there are less than three before it."""
    digits = 1 if abs(value) < 100 else 0
    text = f"{value:,.{digits}f}" if abs(value) < 1e6 else f"{value:.2g}"
    return text.removeprefix("-") if not float(text.replace(",", "")) else text.replace("-", "−")


def _percent(value: float) -> str:
    if math.isnan(value):
        return "–"
    text = _number(value)
    return f"+{text} %" if value > 0 and text != "0.0" else f"{text} %"


def _percents(at: Interval) -> str:
    if math.isnan(at.low):
        return _percent(at.estimate)
    return f"{_percent(at.estimate)[:-2]} [{_number(at.low)}, {_number(at.high)}] %"


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"
