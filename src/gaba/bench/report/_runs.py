"""What the store holds, in the shape that comparisons need: blocks of one problem and optimizer."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np

from gaba import methods
from gaba.bench.config import SWEEP, TUNED
from gaba.bench.problem import Metric, Problem, load, mean_quality
from gaba.bench.store import Row


@final
class Judge(NamedTuple):
    """By what the runs of a problem are judged."""

    tasks: tuple[str, ...]
    metrics: tuple[Metric, ...]


@final
@dataclass(frozen=True)
class Run:
    """A finished training. ``quality`` is of test data; NaN if it failed."""

    row: Row
    quality: float

    @cached_property
    def method(self) -> str:
        """Its name; fixed multipliers as weights of sum 1, however they were written."""
        word, _, argument = self.row.method.partition(":")
        if word != "fixed":
            return self.row.method
        multipliers = [float(number) for number in argument.split(",")]
        return "fixed:" + ",".join(f"{m / sum(multipliers):.4g}" for m in multipliers)

    @property
    def seed(self) -> int:
        return self.row.seed

    @property
    def error(self) -> str | None:
        return self.row.result.get("error")

    @property
    def diverged(self) -> bool:
        return self.error is None and not math.isfinite(self.quality)

    @property
    def chosen_by(self) -> float:
        """The quality on validation data; infinite if it failed or diverged."""
        value = number(self.row.result.get("quality"))
        return value if math.isfinite(value) else math.inf

    @property
    def multipliers(self) -> tuple[float, ...] | None:
        """Where they are constant."""
        found = self.row.config.get("multipliers")
        return None if found is None else tuple(float(m) for m in found)

    @property
    def only_warms_up(self) -> bool:
        """Whether the method gave equal weights in all steps, whatever it measured."""
        return self.row.result.get("warm_up", 0) >= self.row.steps

    @property
    def rates(self) -> tuple[float, float]:
        """Learning rate and weight decay."""
        return self.row.learning_rate, self.row.weight_decay

    def test(self, metric: str) -> float:
        return number((self.row.result.get("test") or {}).get(metric))

    def figure(self, name: str) -> float:
        """A number of the result by its name; NaN if there is none."""
        return number(self.row.result.get(name))


@final
@dataclass(frozen=True)
class Block:
    """All runs of one problem with one optimizer."""

    problem: str
    optimizer: str
    judge: Judge
    runs: tuple[Run, ...]

    @property
    def name(self) -> str:
        return f"{self.problem} · {self.optimizer}"

    @cached_property
    def final(self) -> dict[str, dict[int, Run]]:
        """Of each method the run of each seed with the chosen setting; failed runs are left out."""
        by_method: dict[str, dict[Any, list[Run]]] = defaultdict(lambda: defaultdict(list))
        for run in self.runs:
            if run.row.stage == "final" and run.error is None:
                fixed = run.multipliers if run.method in (SWEEP, TUNED) else None
                by_method[run.method][(run.rates, run.row.steps, fixed)].append(run)
        return {
            method: {run.seed: run for run in _most_complete(settings.values())}
            for method, settings in by_method.items()
        }

    @cached_property
    def methods(self) -> list[str]:
        """Those with final runs that train all tasks."""
        return [method for method in self.final if is_multi_task(method)]

    def only_warms_up(self, method: str) -> bool:
        """Whether a run of the method is too short to say anything of it."""
        return any(run.only_warms_up for run in self.final.get(method, {}).values())

    def label(self, method: str) -> str:
        """The name of the method, marked if its runs are too short to say anything of it."""
        return marked(method, [self])

    def trials(self, method: str) -> list[Run]:
        """The runs among which the setting of ``method`` was chosen, failed ones too."""
        stages = ("tune", "grid")
        return [run for run in self.runs if run.method == method and run.row.stage in stages]

    @cached_property
    def _worst(self) -> float:
        known = [r.quality for runs in self.final.values() for r in runs.values()]
        return max([1.0, *(q for q in known if math.isfinite(q))])

    def qualities(self, method: str) -> dict[int, float]:
        """By seed, on test data; a diverged run counts as the trivial predictor, or worse."""
        runs = self.final.get(method, {})
        return {
            seed: run.quality if math.isfinite(run.quality) else self._worst
            for seed, run in sorted(runs.items())
        }

    def quality(self, method: str) -> float:
        """The mean over the seeds; NaN without a run."""
        found = list(self.qualities(method).values())
        return float(np.mean(found)) if found else math.nan

    def median(self, method: str, figure: str) -> float:
        """The median over the seeds of a figure of the results; NaN if there is none."""
        known = [run.figure(figure) for run in self.final.get(method, {}).values()]
        known = [value for value in known if math.isfinite(value)]
        return float(np.median(known)) if known else math.nan


def marked(method: str, blocks: Iterable[Block]) -> str:
    """The name of a method, with on how many blocks its warm-up is as long as its runs."""
    found = [block for block in blocks if method in block.final]
    short = sum(block.only_warms_up(method) for block in found)
    if not short:
        return method
    where = "" if short == len(found) else f" on {short} of {len(found)}"
    return f"{method} (warm-up only{where})"


def blocks_of(
    rows: Iterable[Row], problems: Mapping[str, Problem], data_dir: str | Path | None = None
) -> list[Block]:
    """The blocks of a store, by problem and optimizer."""
    grouped: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        grouped[row.problem, row.optimizer].append(row)
    judges: dict[str, Judge] = {}
    blocks: list[Block] = []
    for (problem, optimizer), found in sorted(grouped.items()):
        if problem not in judges:
            judges[problem] = judge_of(problem, found, problems, data_dir)
        judge = judges[problem]
        runs = tuple(Run(row, _test_quality(row, judge)) for row in found)
        blocks.append(Block(problem, optimizer, judge, runs))
    return blocks


def judge_of(
    name: str, rows: Sequence[Row], problems: Mapping[str, Problem], data_dir: str | Path | None
) -> Judge:
    """The metrics of a problem: as given, as the results tell them, or as the problem has them."""
    if name in problems:
        return Judge(tuple(problems[name].tasks), tuple(problems[name].metrics))
    for row in rows:
        if told := row.result.get("metrics"):
            metrics = tuple(Metric(**metric) for metric in told)
            return Judge(tuple(dict.fromkeys(metric.task for metric in metrics)), metrics)
    try:
        problem = load(name, data_dir)
    except (ValueError, OSError, ImportError) as error:
        raise ValueError(
            f"problems must tell by what {name!r} is judged, found that it cannot be loaded "
            f"({error}): give problems={{{name!r}: its Problem}}"
        ) from error
    return Judge(tuple(problem.tasks), tuple(problem.metrics))


def is_multi_task(method: str) -> bool:
    return not method.startswith("single:")


def rankable(methods: Sequence[str]) -> list[str]:
    """Methods that stand for themselves: no single tasks and no frozen controls."""
    return [m for m in methods if is_multi_task(m) and not m.startswith("frozen:")]


def group_of(method: str) -> str:
    """As the table of methods has it: "own", "published", "relative", "peer" or "control"."""
    name = method.partition(":")[0]
    if name in ("frozen", SWEEP, TUNED):
        return "control"
    found = methods.METHODS.get(name)
    return found.group if found else "other"


def number(value: Any) -> float:
    """NaN where there is none."""
    return float(value) if isinstance(value, (int, float)) else math.nan


def _test_quality(row: Row, judge: Judge) -> float:
    if row.failed:
        return math.nan
    if not is_multi_task(row.method):  # the other tasks were not trained: not judged as a whole
        own = [m for m in judge.metrics if m.task == row.method.partition(":")[2]]
        judge = Judge(judge.tasks, tuple(own) or judge.metrics)
    test = row.result.get("test") or {}
    figures = {metric.name: number(test.get(metric.name)) for metric in judge.metrics}
    return math.inf if row.result.get("diverged") else mean_quality(judge.metrics, figures)


def _most_complete(settings: Iterable[list[Run]]) -> list[Run]:
    """The setting with the most seeds; of several, the one finished last."""
    return max(settings, key=lambda runs: (len(runs), max(run.row.finished_at for run in runs)))
