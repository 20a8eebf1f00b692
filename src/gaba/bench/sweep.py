"""The sweep: every training of a configuration that is not in its store yet, stage by stage."""

from __future__ import annotations

import importlib
import logging
import math
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, final, get_args

import torch

from gaba._extras import library
from gaba.bench.config import Config
from gaba.bench.plan import Outcome, Plan, Stage
from gaba.bench.progress import Pace
from gaba.bench.store import Store
from gaba.bench.trial import Trial, run_trial

__all__ = ["Backend", "Summary", "Watcher", "run", "status"]

Backend = Literal["loky", "dask", "ray"]

_ONE = threading.Lock()  # one training at a time in a process: PyTorch's generators are shared


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
        backend: joblib's: processes of this machine, or a cluster of Dask or Ray.
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
    _check_backend(backend, scheduler)
    deadline = time.monotonic() + (math.inf if limit_seconds is None else limit_seconds)
    plan = Plan.of(config).part(shard[0] - 1, shard[1])
    ran = 0
    with ExitStack() as stack:
        store = stack.enter_context(Store(config.store))
        _recall(plan, store, retry_failed)
        stack.enter_context(_cluster(backend, scheduler, jobs))
        while (ready := plan.ready()) and time.monotonic() < deadline:
            longest_first = Pace(plan).ordered(ready)
            left = len(longest_first)
            if watcher is not None:
                watcher.update(plan, left)
            for trial, result in _results(longest_first, jobs, deadline):
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


# ---- the workers --------------------------------------------------------------------------------


def work(trial: Trial, parent: int) -> tuple[Trial, dict[str, Any]]:
    """Run ``trial`` in a worker; an error becomes its result."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    if os.getpid() != parent and in_main_thread:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent to answer
    with _ONE, _one_thread():
        try:
            return trial, run_trial(trial)
        except Exception as error:
            text = " ".join(f"{type(error).__name__}: {error}".split())
            return trial, _failure(text)


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _failure(text: str) -> dict[str, Any]:
    return {
        "validation": {},
        "test": {},
        "quality": math.inf,
        "selected_step": 0,
        "curve": [],
        "seconds": 0.0,
        "seconds_per_step": None,
        "peak_memory_bytes": 0,
        "weights_mean": {},
        "weights_std": {},
        "gain_median": 1.0,
        "saturated": 0.0,
        "imbalance_median": None,
        "steps": 0,
        "diverged": False,
        "error": text,
        "wall_seconds": 0.0,
    }


def _results(
    trials: Iterable[Trial], jobs: int, deadline: float
) -> Iterator[tuple[Trial, dict[str, Any]]]:
    """The results as they come; dropped half-way, no training goes on behind."""
    joblib = library("joblib", "the benchmark needs", "bench")
    parent = os.getpid()
    in_time = (trial for trial in trials if time.monotonic() < deadline)
    tasks = (joblib.delayed(work)(replace(trial), parent) for trial in in_time)
    parallel = joblib.Parallel(
        n_jobs=jobs, return_as="generator_unordered", batch_size=1, pre_dispatch="n_jobs"
    )
    with closing(parallel(tasks)) as results:
        yield from results


def _check_backend(backend: str, scheduler: str | None) -> None:
    library("joblib", "the benchmark needs", "bench")
    if backend not in get_args(Backend):
        raise ValueError(f"backend: must be loky, dask or ray, found {backend!r}")
    if backend == "loky" and scheduler is not None:
        raise ValueError(
            f"scheduler: is for the backends dask and ray, found {scheduler!r} with backend loky: "
            "add --backend dask, or leave it out"
        )


@contextmanager
def _cluster(backend: str, scheduler: str | None, jobs: int) -> Iterator[None]:
    """Make joblib use ``backend`` within."""
    joblib = library("joblib", "the benchmark needs", "bench")
    with ExitStack() as stack:
        settings: dict[str, Any] = {}
        if backend == "loky":
            settings["inner_max_num_threads"] = 1
        elif backend == "dask":
            distributed = library("distributed", "backend dask needs", "dask")
            stack.enter_context(_dask_client(distributed, scheduler, jobs))
        elif backend == "ray":
            ray = library("ray", "backend ray needs", "ray")
            importlib.import_module("ray.util.joblib").register_ray()
            ray.init(address=scheduler, **({} if scheduler else {"num_cpus": jobs}))
            stack.callback(ray.shutdown)
        stack.enter_context(joblib.parallel_config(backend=backend, **settings))
        yield


@contextmanager
def _dask_client(distributed: Any, scheduler: str | None, jobs: int) -> Iterator[None]:
    if scheduler is not None:
        with distributed.Client(scheduler):
            yield
        return
    with (
        distributed.LocalCluster(
            n_workers=jobs,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            silence_logs=logging.ERROR,
        ) as cluster,
        distributed.Client(cluster),
    ):
        yield
