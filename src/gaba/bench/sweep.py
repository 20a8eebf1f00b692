"""The sweep: every training of a configuration that is not in its store yet, stage by stage."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import TypeAlias, final

from gaba.bench._workers import Backend, check, workers
from gaba.bench.config import Config
from gaba.bench.plan import Outcome, Plan, Stage
from gaba.bench.progress import Pace
from gaba.bench.store import Store

__all__ = ["Backend", "Summary", "Watcher", "run", "status"]


Watcher: TypeAlias = "Callable[[Plan], object]"
"""Is told of the plan whenever a round begins or a result comes in."""


@final
@dataclass(frozen=True)
class Summary:
    """How far a benchmark is.

    Attributes:
        stages: each stage with what is done, failed, diverged, out of reach and left.
        ran: how many trainings this call has run.
        seconds_left: an estimate for one process; None where nothing is known yet.
        errors: what the failed trainings said, and how often.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     store = f"{folder}/runs.sqlite"
        ...     config = Config(("conflict-toy",), ("uniform",), ("adam",), steps=3, store=store)
        ...     summary = run(config)
        >>> summary.ran, summary.left
        (24, 0)
    """

    stages: tuple[Stage, ...]
    ran: int
    seconds_left: float | None
    errors: Mapping[str, int]

    @property
    def left(self) -> int:
        """How many trainings are still to be run."""
        return sum(stage.left for stage in self.stages)

    @property
    def failed(self) -> int:
        """How many trainings raised an error."""
        return sum(stage.failed for stage in self.stages)


def run(
    config: Config,
    *,
    jobs: int = 1,
    backend: Backend = "loky",
    scheduler: str | None = None,
    limit_seconds: float | None = None,
    shard: tuple[int, int] = (1, 1),
    retry_failed: bool = False,
    watcher: Watcher | None = None,
) -> Summary:
    """Run what is missing of ``config`` in its store. Safe to interrupt: call it again to resume.

    Stage after stage: every method is tuned at the tuning seeds (and ``fixed-sweep`` on its grid);
    the setting with the best validation quality runs at every other seed; each adaptive method runs
    once more with its own mean multipliers. In each round the longest trainings come first. A
    training that raises an error is a row that says so.

    Args:
        config: what to run, and where the store is.
        jobs: trainings at a time; with ``"dask"`` or ``"ray"`` the cluster decides.
        backend: processes of this machine, or a cluster of Dask or Ray.
        scheduler: the address of that cluster; without it one is started on this machine.
        limit_seconds: start no further training after that long.
        shard: (i, n): the i-th of n parts, counted from 1, each with its own store to merge.
        retry_failed: run those again that raised an error.
        watcher: is told of progress.

    Raises:
        ImportError: joblib, or the library of the cluster, is not installed.
        ValueError: a setting is wrong, or a problem or method does not exist.
        KeyboardInterrupt: Ctrl-C; what was finished is in the store.
    """
    if not 1 <= shard[0] <= shard[1]:
        raise ValueError(f"shard: must be I/N with 1 <= I <= N, found {shard[0]}/{shard[1]}")
    if jobs < 1:
        raise ValueError(f"jobs: must be at least 1, found {jobs}")
    check(backend, scheduler)
    deadline = time.monotonic() + (math.inf if limit_seconds is None else limit_seconds)
    plan = Plan.of(config).shard(shard[0] - 1, shard[1])
    ran, tell = 0, watcher or (lambda plan: None)
    with ExitStack() as stack:
        store = stack.enter_context(Store(config.store))
        _recall(plan, store, retry_failed)
        dispatch = stack.enter_context(workers(backend, scheduler, jobs))
        while (ready := plan.ready()) and time.monotonic() < deadline:
            tell(plan)
            trials = (t for t in Pace(plan).ordered(ready) if time.monotonic() < deadline)
            with closing(dispatch(trials)) as results:
                for trial, result in results:
                    store.put(trial, result)
                    plan.known[trial.key] = Outcome.of(trial, result)
                    ran += 1
                    tell(plan)
    return _summary(plan, ran)


def status(config: Config) -> Summary:
    """How far the store of ``config`` is, without running anything.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     store = f"{folder}/runs.sqlite"
        ...     config = Config(("conflict-toy",), ("gaba",), ("sgd",), store=store)
        ...     [(stage.name, stage.left) for stage in status(config).stages]
        [('tune', 9), ('final', 15), ('frozen', 5)]
    """
    plan = Plan.of(config)
    if os.path.exists(config.store):
        with Store(config.store, read_only=True) as store:
            _recall(plan, store, retry_failed=False)
    return _summary(plan, 0)


def _summary(plan: Plan, ran: int) -> Summary:
    return Summary(tuple(plan.stages()), ran, Pace(plan).seconds_left(), plan.errors())


def _recall(plan: Plan, store: Store, retry_failed: bool) -> None:
    for row in store.rows():
        outcome = Outcome.of(row, row.result)
        if not (outcome.failed and retry_failed):
            plan.known[row.key] = outcome
