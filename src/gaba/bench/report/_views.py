"""What each method reached and what it cost: in a block, and over problems."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np

from gaba.bench import statistics as stats
from gaba.bench.problem import Metric
from gaba.bench.report._runs import Block, marked


def interval_of(values: Sequence[float]) -> stats.Interval:
    """The mean and its bootstrap interval over the finite values; NaN where there is none."""
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return stats.Interval(math.nan)
    return stats.bootstrap_interval(known)


def mean_of(values: Sequence[float]) -> float:
    """The mean of the finite values; NaN where there is none."""
    known = [value for value in values if math.isfinite(value)]
    return float(np.mean(known)) if known else math.nan


def delta_m(block: Block, method: str) -> list[float]:
    """Δm of each seed's run against the mean single-task models of the block; empty without.

    Over the metrics that decide.
    """
    metrics = [metric for metric in block.judge.metrics if metric.decides]
    alone = [_alone(block, m) for m in metrics]
    if not all(map(math.isfinite, alone)):
        return []
    up, tasks = [m.higher_is_better for m in metrics], [m.task for m in metrics]
    return [
        stats.relative_change([run.test(m.name) for m in metrics], alone, up, tasks)
        for run in block.final.get(method, {}).values()
    ]


def time_ratio(block: Block, method: str) -> float:
    """Its seconds per step in parts of uniform's; NaN without either."""
    return block.median(method, "seconds_per_step") / block.median("uniform", "seconds_per_step")


@final
@dataclass(frozen=True)
class View:
    """One way to look at all problems: with one optimizer, or each method with its better one."""

    title: str
    blocks: tuple[Block, ...]
    chosen: bool = False

    @cached_property
    def problems(self) -> list[str]:
        return list(dict.fromkeys(block.problem for block in self.blocks))

    @cached_property
    def methods(self) -> list[str]:
        return list(dict.fromkeys(m for block in self.blocks for m in block.methods))

    def block(self, problem: str, method: str) -> Block | None:
        """Where the method is looked at: of several, where its validation quality is best."""
        found = [b for b in self.blocks if b.problem == problem and method in b.final]
        return min(found, key=lambda b: _validated(b, method)) if found else None

    def quality(self, problem: str, method: str) -> float:
        block = self.block(problem, method)
        return block.quality(method) if block else math.nan

    def label(self, method: str) -> str:
        """Its name, marked where its runs are no longer than its warm-up."""
        found = [self.block(problem, method) for problem in self.problems]
        return marked(method, [block for block in found if block])

    def ranking(self, methods: Sequence[str]) -> Ranking:
        """Ranks of those of the methods that have all problems; the others are named."""
        every = np.array([[self.quality(p, m) for m in methods] for p in self.problems])
        complete = [not np.isnan(column).any() for column in every.T]
        kept = [m for m, full in zip(methods, complete, strict=True) if full]
        return Ranking(
            self.title,
            tuple(kept),
            tuple(m for m in methods if m not in kept),
            tuple(self.problems),
            every[:, complete],
            {m: self.label(m) for m in kept},
        )

    def delta_m(self, method: str) -> stats.Interval:
        """The mean over problems of Δm, with the t interval over them."""
        found: list[float] = []
        for problem in self.problems:
            block = self.block(problem, method)
            values = [v for v in delta_m(block, method) if math.isfinite(v)] if block else []
            found += [float(np.mean(values))] if values else []
        return stats.t_interval(found) if found else interval_of([])

    def time_ratio(self, method: str) -> float:
        """The geometric mean over problems."""
        blocks = [self.block(problem, method) for problem in self.problems]
        ratios = [time_ratio(block, method) for block in blocks if block]
        known = [ratio for ratio in ratios if ratio > 0]
        return float(np.exp(np.mean(np.log(known)))) if known else math.nan


@final
@dataclass(frozen=True)
class Ranking:
    """Methods that have runs on all problems, ranked by their mean quality on each."""

    title: str
    methods: tuple[str, ...]
    missing: tuple[str, ...]
    problems: tuple[str, ...]
    scores: np.ndarray
    labels: Mapping[str, str]

    @property
    def possible(self) -> bool:
        """There are two problems and two methods at least."""
        return len(self.problems) > 1 and len(self.methods) > 1

    @cached_property
    def ranks(self) -> dict[str, float]:
        if len(self.methods) < 2 or not self.problems:
            return {}
        return dict(zip(self.methods, stats.mean_ranks(self.scores).tolist(), strict=True))

    @cached_property
    def friedman(self) -> stats.Friedman:
        return stats.friedman(self.scores)

    @cached_property
    def critical(self) -> float:
        return stats.nemenyi_critical_difference(len(self.methods), len(self.problems))


def views_of(blocks: Sequence[Block]) -> list[View]:
    """First each method with the optimizer that validation chose, then each optimizer."""
    optimizers = list(dict.fromkeys(block.optimizer for block in blocks))
    views = [
        View(f"with {name}", tuple(b for b in blocks if b.optimizer == name)) for name in optimizers
    ]
    if len(optimizers) < 2:
        return views
    return [View("each with its better optimizer", tuple(blocks), chosen=True), *views]


def _alone(block: Block, metric: Metric) -> float:
    """The mean over the seeds of the model that trained the metric's task alone."""
    runs = block.final.get(f"single:{metric.task}", {}).values()
    return mean_of([run.test(metric.name) for run in runs])


def _validated(block: Block, method: str) -> float:
    return float(np.mean([run.chosen_by for run in block.final[method].values()]))
