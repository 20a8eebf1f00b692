"""What a search in share space found: every trial, the best of them, and the code line of it."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias, final

from gaba.extras import library, needs

__all__ = ["Moment", "Tried", "Tuned", "Watcher"]

BEST, REST, LATE = "#1f5fa8", "#565b66", "#c9c5b8"
"""Of the best trial, of those that finished, and of those that were stopped early."""


@final
@dataclass(frozen=True)
class Tried:
    """One trial.

    Attributes:
        number: from 0 on.
        targets: {task: t_k}, of sum 1.
        value: the validation figure, lower is better; of a trial stopped early the last one seen.
        state: ``"finished"``, ``"stopped early"`` or ``"failed"``.
        curve: (step, figure) as it trained.
    """

    number: int
    targets: Mapping[str, float]
    value: float
    state: str
    curve: tuple[tuple[int, float], ...] = ()


@final
@dataclass(frozen=True)
class Moment:
    """How far a search is.

    Attributes:
        number: of the trial that this is about.
        done: how many trials have ended.
        trials: how many there are to be.
        part: which part of its training this trial has made; NaN if nobody knows.
        best: the lowest figure of a finished trial; NaN before there is one.
        tried: the trial, where it has just ended.

    Example:
        >>> tried = Tried(0, {"a": 0.5, "b": 0.5}, 0.25, "finished")
        >>> print(Moment(0, 1, 8, 1.0, 0.25, tried))
        trial 1 of 8: 0.25 at a 0.5, b 0.5 · best 0.25
    """

    number: int
    done: int
    trials: int
    part: float
    best: float
    tried: Tried | None = None

    def __str__(self) -> str:
        at = f"trial {max(self.done, 1)} of {self.trials}"
        best = "" if math.isnan(self.best) else f" · best {self.best:.4g}"
        if self.tried is None:
            return f"{at}{best}"
        early = "" if self.tried.state == "finished" else f" ({self.tried.state})"
        return f"{at}: {self.tried.value:.4g}{early} at {_shares(self.tried.targets)}{best}"


Watcher: TypeAlias = "Callable[[Moment], object]"
"""Is told of each figure as a trial trains, and of each trial that ends."""


@final
@dataclass(frozen=True)
class Tuned:
    """The result of :func:`gaba.tune`.

    Attributes:
        tasks: names of the losses.
        trials: all that ended, in order; the first has equal targets.
        method: what was given targets.
        study: its name in the storage.

    Example:
        >>> tried = [Tried(i, {"a": t, "b": 1 - t}, (t - 0.8) ** 2, "finished")
        ...          for i, t in enumerate((0.5, 0.75, 0.3))]
        >>> found = Tuned(("a", "b"), tuple(tried), "gaba", "mine")
        >>> found.code
        "gaba.Balancer(['a', 'b'], shared, share_targets={'a': 0.75, 'b': 0.25})"
        >>> print(found)
        best of 3 trials: 0.0025 at a 0.75, b 0.25; equal targets: 0.09 (−97.2 %)
        gaba.Balancer(['a', 'b'], shared, share_targets={'a': 0.75, 'b': 0.25})
    """

    tasks: tuple[str, ...]
    trials: tuple[Tried, ...]
    method: str = "gaba"
    study: str = ""

    @cached_property
    def best(self) -> Tried:
        """The finished trial with the lowest validation figure; of equal ones the first.

        Raises:
            ValueError: none has finished.
        """
        finished = [trial for trial in self.trials if trial.state == "finished"]
        if not finished:
            raise ValueError(
                f"trials must hold one that finished, found {len(self.trials)} that did not: run "
                "more, or look at why they failed"
            )
        return min(finished, key=lambda trial: (trial.value, trial.number))

    @property
    def value(self) -> float:
        """The validation figure of the best trial."""
        return self.best.value

    @property
    def targets(self) -> dict[str, float]:
        """{task: t_k} of the best trial, of sum 1."""
        return dict(self.best.targets)

    @property
    def equal(self) -> Tried | None:
        """The trial with equal targets, if it has finished."""
        even = 1 / len(self.tasks)
        return next(
            (
                trial
                for trial in self.trials
                if trial.state == "finished"
                and all(math.isclose(t, even) for t in trial.targets.values())
            ),
            None,
        )

    @property
    def code(self) -> str:
        """The line to paste."""
        targets = ", ".join(f"{task!r}: {t:.3g}" for task, t in self.targets.items())
        method = "" if self.method == "gaba" else f" {self.method!r},"
        return f"gaba.Balancer({list(self.tasks)}, shared,{method} share_targets={{{targets}}})"

    def __str__(self) -> str:
        count = "1 trial" if len(self.trials) == 1 else f"{len(self.trials)} trials"
        said = f"best of {count}: {self.value:.4g} at {_shares(self.best.targets)}"
        equal = self.equal
        if equal is self.best:
            said += "; those are equal targets"
        elif equal is not None:
            said += f"; equal targets: {equal.value:.4g}{_change(self.value, equal.value)}"
        return f"{said}\n{self.code}"

    def to_pandas(self) -> Any:
        """A ``pandas.DataFrame`` with a row a trial: ``value``, ``state``, ``target/TASK``.

        Raises:
            ImportError: pandas is not installed: ``pip install "gaba[parquet]"``.
        """
        pandas = library("pandas", "to_pandas needs", "parquet")
        rows = [
            {
                "value": trial.value,
                "state": trial.state,
                **{f"target/{task}": t for task, t in trial.targets.items()},
            }
            for trial in self.trials
        ]
        return pandas.DataFrame(rows, index=pandas.Index([t.number for t in self.trials], name="#"))

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """What was tried: the figure of each trial, and its targets.

        Args:
            path: where to write it as well, as PNG, SVG or PDF by its ending.

        Returns:
            A matplotlib figure, which a notebook shows.

        Raises:
            ImportError: matplotlib is not installed: ``pip install "gaba[plots]"``.
        """
        with needs("pictures need", "plots", "matplotlib"):
            from gaba.record.plots import Picture
        picture = Picture(figsize=(8, max(2.6, 1.6 + 0.3 * len(self.tasks))), layout="constrained")
        left, right = picture.subplots(1, 2)
        shown = [trial for trial in self.trials if math.isfinite(trial.value)]
        lowest = [min(t.value for t in finished) for finished in _up_to(shown)]
        left.step(range(1, len(lowest) + 1), lowest, where="post", color=BEST, linewidth=1)
        for trial in shown:
            left.plot(trial.number + 1, trial.value, "o", color=self._colour(trial), markersize=5)
            left.annotate(
                f"{trial.number + 1}",
                (trial.number + 1, trial.value),
                xytext=(4, 4),
                textcoords="offset points",
                fontsize=7,
            )
        left.set_xlabel("trial; the line is the best so far")
        left.set_ylabel("validation figure, lower is better")
        for trial in shown:
            targets, colour = [trial.targets[task] for task in self.tasks], self._colour(trial)
            z = 2 + (LATE, REST, BEST).index(colour)
            right.plot(targets, range(len(targets)), "o-", color=colour, lw=0.8, ms=5, zorder=z)
        right.axvline(1 / len(self.tasks), color=REST, linewidth=0.8, linestyle=":")
        right.set_yticks(range(len(self.tasks)), self.tasks)
        right.invert_yaxis()
        right.set_xscale("log")
        right.set_xlabel("target t, dotted: equal; blue: the best, pale: stopped early")
        for axes in (left, right):
            axes.spines[["top", "right"]].set_visible(False)
            axes.xaxis.label.set_size(8.5)
            axes.yaxis.label.set_size(8.5)
        if path is not None:
            picture.savefig(path, dpi=150)
        return picture

    def _colour(self, trial: Tried) -> str:
        if trial is self.best:
            return BEST
        return REST if trial.state == "finished" else LATE


def shares_of(tasks: Sequence[str], logs: Mapping[str, float]) -> dict[str, float]:
    """Targets of sum 1, t_k ∝ e^{x_k}; of two tasks, the second has −x of the first.

    >>> {task: round(t, 4) for task, t in shares_of(["a", "b"], {"a": math.log(3) / 2}).items()}
    {'a': 0.75, 'b': 0.25}
    """
    known = dict(logs)
    if len(tasks) == 2:
        known[tasks[1]] = -known[tasks[0]]
    parts = [math.exp(known[task]) for task in tasks]
    whole = math.fsum(parts)
    return {task: part / whole for task, part in zip(tasks, parts, strict=True)}


def _up_to(trials: Sequence[Tried]) -> list[list[Tried]]:
    """The finished ones among the first n, for each n from the first finished one on."""
    found: list[list[Tried]] = []
    for n in range(1, len(trials) + 1):
        finished = [trial for trial in trials[:n] if trial.state == "finished"]
        found += [finished] if finished else []
    return found


def _shares(targets: Mapping[str, float]) -> str:
    named = [f"{task} {t:.3g}" for task, t in targets.items()]
    return ", ".join(named if len(named) <= 4 else [*named[:3], f"{len(named) - 3} more"])


def _change(value: float, base: float) -> str:
    if base == 0 or not math.isfinite(base + value):
        return ""
    percent = 100 * (value - base) / abs(base)
    return f" ({percent:+.1f} %)".replace("-", "−")
