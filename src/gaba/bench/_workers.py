"""The workers of a benchmark: processes of this machine, or a cluster of Dask or Ray."""

from __future__ import annotations

import logging
import math
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any, Literal, TypeAlias, get_args

import torch

from gaba.bench.trial import Trial, run_trial
from gaba.extras import library

Backend = Literal["loky", "dask", "ray"]
Result: TypeAlias = "tuple[Trial, dict[str, Any]]"
Results: TypeAlias = "Generator[Result, None, None]"
Dispatch: TypeAlias = "Callable[[Iterable[Trial]], Results]"
"""From trials to their results as they come; once closed, no training continues."""

_ONE = threading.Lock()  # one training at a time in a process: PyTorch's generators are shared


def check(backend: str, scheduler: str | None) -> None:
    """Refuse a backend that does not exist, or an address for one that has none."""
    library("joblib", "the benchmark needs", "bench")
    if backend not in get_args(Backend):
        raise ValueError(f"backend: must be loky, dask or ray, found {backend!r}")
    if backend == "loky" and scheduler is not None:
        raise ValueError(
            f"scheduler: is for the backends dask and ray, found {scheduler!r} with backend loky: "
            "add --backend dask, or leave it out"
        )


@contextmanager
def workers(backend: Backend, scheduler: str | None, jobs: int) -> Iterator[Dispatch]:
    """Workers that exist inside the block. Without an address a cluster is started, then ended."""
    if backend == "ray":
        with _ray(scheduler, jobs) as tasks:
            yield tasks
        return
    joblib = library("joblib", "the benchmark needs", "bench")
    with ExitStack() as stack:
        settings: dict[str, Any] = {"inner_max_num_threads": 1} if backend == "loky" else {}
        if backend == "dask":
            client = library("distributed", "backend dask needs", "dask").Client
            local = {"n_workers": jobs, "threads_per_worker": 1, "dashboard_address": None}
            quiet = {"silence_logs": logging.ERROR}
            stack.enter_context(client(scheduler) if scheduler else client(**local, **quiet))
        stack.enter_context(joblib.parallel_config(backend=backend, **settings))

        def dispatch(trials: Iterable[Trial]) -> Results:
            parallel = joblib.Parallel(
                n_jobs=jobs, return_as="generator_unordered", batch_size=1, pre_dispatch="n_jobs"
            )
            parent = os.getpid()
            with closing(parallel(joblib.delayed(work)(t, parent) for t in trials)) as results:
                yield from results

        yield dispatch


@contextmanager
def _ray(scheduler: str | None, jobs: int) -> Iterator[Dispatch]:
    """Ray's own tasks: joblib's backend for Ray gives no result before all are there."""
    ray = library("ray", "backend ray needs", "ray")
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    ray.init(address=scheduler, **quiet, **({} if scheduler else {"num_cpus": jobs}))
    task, parent = ray.remote(num_cpus=1, max_retries=0)(work), os.getpid()
    places = max(1, int(ray.cluster_resources().get("CPU", 1)))

    def dispatch(trials: Iterable[Trial]) -> Results:
        running: list[Any] = []
        try:
            for trial in trials:
                running.append(task.remote(trial, parent))
                if len(running) == places:
                    (done,), running = ray.wait(running)
                    yield ray.get(done)
            while running:
                (done,), running = ray.wait(running)
                yield ray.get(done)
        finally:
            for left in running:
                ray.cancel(left, force=True)

    try:
        yield dispatch
    finally:
        ray.shutdown()


def work(trial: Trial, parent: int) -> Result:
    """Run ``trial`` in a worker with one thread; an error becomes its result."""
    if os.getpid() != parent and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent to answer
    with _ONE:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return trial, run_trial(trial)
        except Exception as error:
            text = " ".join(f"{type(error).__name__}: {error}".split())
            blank = {"quality": math.inf, "diverged": False, "steps": 0, "seconds": 0.0}
            return trial, {"validation": {}, "test": {}, **blank, "error": text}
        finally:
            torch.set_num_threads(threads)
