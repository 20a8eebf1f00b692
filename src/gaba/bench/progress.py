"""How far a sweep is: what is done, and an estimate of what is left."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import final

from gaba.bench.plan import Plan, Stage
from gaba.bench.trial import Trial

__all__ = ["Lines", "duration", "line", "said"]

EVERY = 30.0
"""Seconds between two plain lines."""


@final
class Pace:
    """What a training takes, by the median of those of its problem and method that are known.

    Where there is none, those of its problem count; where there is none of these, all.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        times: defaultdict[tuple[str, ...], list[float]] = defaultdict(list)
        for outcome in plan.known.values():
            if not outcome.failed:
                for label in ((outcome.problem, outcome.method), (outcome.problem,), ()):
                    times[label].append(outcome.seconds)
        self.medians = {label: statistics.median(found) for label, found in times.items()}

    def seconds(self, problem: str, method: str) -> float | None:
        """Of one training; None if nothing is known."""
        labels = ((problem, method), (problem,), ())
        return next((self.medians[label] for label in labels if label in self.medians), None)

    def seconds_left(self) -> float | None:
        """Of all that is left, one after the other; None if nothing is known."""
        if not self.medians:
            return None
        left = self.plan.left().items()
        return sum(count * (self.seconds(*label) or 0.0) for label, count in left)

    def ordered(self, trials: Sequence[Trial]) -> list[Trial]:
        """The longest first; by the number of steps where nothing is known of a problem."""

        def length(trial: Trial) -> tuple[float, int]:
            known = (trial.problem,) in self.medians
            seconds = self.seconds(trial.problem, trial.method) if known else None
            return (float("inf") if seconds is None else seconds, trial.steps)

        return sorted(trials, key=length, reverse=True)


def duration(seconds: float) -> str:
    """A time in words short enough for a line.

    >>> duration(42), duration(600), duration(9000), duration(200_000)
    ('42 s', '10 min', '2 h 30 min', '56 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest} min" if hours < 10 else f"{round(minutes / 60)} h"


def line(stages: Sequence[Stage], seconds: float | None) -> str:
    """How far each stage is, and how long the rest may take.

    >>> line([Stage("tune", 4, 6, 0, 1, 0), Stage("final", 0, 5, 0, 0, 0)], 75.0)
    'tune 4/6 (1 diverged) · final 0/5 · about 75 s left'
    """
    left = "unknown time" if seconds is None else f"about {duration(seconds)}"
    return f"{' · '.join(map(_of, stages))} · {left} left"


def _of(stage: Stage) -> str:
    said = f"{stage.name} {stage.done}/{stage.total - stage.lost}"
    bad = [f"{stage.failed} failed"] * (stage.failed > 0)
    bad += [f"{stage.diverged} diverged"] * (stage.diverged > 0)
    return f"{said} ({', '.join(bad)})" if bad else said


def said(plan: Plan, jobs: int) -> str:
    """:func:`line` of a plan whose trainings run ``jobs`` at a time.

    >>> from gaba.bench import Config
    >>> plan = Plan.of(Config(("conflict-toy",), ("uniform",), ("adam",), frozen=False))
    >>> said(plan, jobs=2)
    'tune 0/9 · final 0/15 · unknown time left'
    """
    seconds = Pace(plan).seconds_left()
    return line(plan.stages(), seconds and seconds / jobs)


@final
class Lines:
    """Prints a line when a sweep begins, and then every 30 seconds.

    Args:
        jobs: trainings at a time.

    >>> from gaba.bench import Config
    >>> plan = Plan.of(Config(("conflict-toy",), ("uniform",), ("adam",), frozen=False))
    >>> tell = Lines(jobs=2)
    >>> tell(plan)
    tune 0/9 · final 0/15 · unknown time left
    >>> tell(plan)
    """

    def __init__(self, jobs: int) -> None:
        self.jobs, self.due = jobs, 0.0

    def __call__(self, plan: Plan) -> None:
        """Print a line if it is time to."""
        if time.monotonic() >= self.due:
            print(said(plan, self.jobs), flush=True)
            self.due = time.monotonic() + EVERY
