"""The sweep: every training of a configuration that is not in its store yet, stage by stage."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Protocol, final

from gaba.bench._workers import Backend, check, workers
from gaba.bench.config import Config
from gaba.bench.plan import Outcome, Plan, Stage
from gaba.bench.progress import Pace
from gaba.bench.store import Store

__all__ = ["Backend", "Summary", "Watcher", "run", "status"]


class Watcher(Protocol):
    """Who is told how a sweep goes on.

    Example:
        >>> class Silent:
        ...     def update(self, plan: Plan, left_in_round: int) -> None:
        ...         pass
        >>> watcher: Watcher = Silent()
    """

    def update(self, plan: Plan, left_in_round: int) -> None:
        """A result has come in, or a round begins."""
        ...


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
    """Run what is missing of ``config`` in its store; killed at any time, the next call goes on.

    Stage after stage: every method is tuned at the tuning seeds (and ``fixed-sweep`` on its grid);
    the setting with the best validation quality is run at every other seed; each adaptive method's
    own weights are run once more, held at their mean. In each round the longest trainings come
    first. A worker has one PyTorch thread, and returns its result to this process, which alone
    writes it, at once. A training that raises an error is a row that says so.

    Args:
        config: what to run, and where the store is.
        jobs: trainings at a time; with ``"dask"`` or ``"ray"`` the cluster decides.
        backend: processes of this machine, or a cluster of Dask or Ray.
        scheduler: the address of that cluster; without it one is started on this machine.
        limit_seconds: start no further training after that long.
        shard: (i, n): the i-th of n parts, counted from 1; each with stores that can be merged.
        retry_failed: run those again that raised an error.
        watcher: is told of progress.

    Returns:
        How far it is.

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
    plan = Plan.of(config).part(shard[0] - 1, shard[1])
    ran = 0
    with ExitStack() as stack:
        store = stack.enter_context(Store(config.store))
        _recall(plan, store, retry_failed)
        dispatch = stack.enter_context(workers(backend, scheduler, jobs))
        while (ready := plan.ready()) and time.monotonic() < deadline:
            longest_first = Pace(plan).ordered(ready)
            left = len(longest_first)
            if watcher is not None:
                watcher.update(plan, left)
            in_time = (trial for trial in longest_first if time.monotonic() < deadline)
            with closing(dispatch(in_time)) as results:
                for trial, result in results:
                    store.put(trial, result)
                    plan.known[trial.key] = Outcome.of(trial, result)
                    ran, left = ran + 1, left - 1
                    if watcher is not None:
                        watcher.update(plan, left)
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
