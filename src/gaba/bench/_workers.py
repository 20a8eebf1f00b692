"""The workers of a benchmark: processes of this machine, or a cluster of Dask or Ray."""

from __future__ import annotations

import logging
import math
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from typing import Any, Literal, TypeAlias, get_args

import torch

from gaba.extras import library
from gaba.bench.trial import Trial, run_trial

Backend = Literal["loky", "dask", "ray"]
Result: TypeAlias = "tuple[Trial, dict[str, Any]]"
Results: TypeAlias = "Generator[Result, None, None]"
Dispatch: TypeAlias = "Callable[[Iterable[Trial]], Results]"
"""From trials to their results as they come; closed half-way, no training goes on behind."""

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
    """Workers that are there within; a cluster without an address is started, and ended after."""
    with ExitStack() as stack:
        if backend == "ray":
            yield stack.enter_context(_ray(scheduler, jobs))
            return
        joblib = library("joblib", "the benchmark needs", "bench")
        settings: dict[str, Any] = {}
        if backend == "loky":
            settings["inner_max_num_threads"] = 1
        else:
            distributed = library("distributed", "backend dask needs", "dask")
            stack.enter_context(_dask_client(distributed, scheduler, jobs))
        stack.enter_context(joblib.parallel_config(backend=backend, **settings))
        yield lambda trials: _by_joblib(joblib, trials, jobs)


def _by_joblib(joblib: Any, trials: Iterable[Trial], jobs: int) -> Results:
    parent = os.getpid()
    tasks = (joblib.delayed(work)(replace(trial), parent) for trial in trials)
    parallel = joblib.Parallel(
        n_jobs=jobs, return_as="generator_unordered", batch_size=1, pre_dispatch="n_jobs"
    )
    with closing(parallel(tasks)) as results:
        yield from results


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


@contextmanager
def _ray(scheduler: str | None, jobs: int) -> Iterator[Dispatch]:
    """Ray's own tasks: its backend of joblib gives no result before all are there."""
    ray = library("ray", "backend ray needs", "ray")
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    ray.init(address=scheduler, **quiet, **({} if scheduler else {"num_cpus": jobs}))
    try:
        yield lambda trials: _by_ray(ray, trials)
    finally:
        ray.shutdown()


def _by_ray(ray: Any, trials: Iterable[Trial]) -> Results:
    task, parent = ray.remote(num_cpus=1, max_retries=0)(work), os.getpid()
    places = max(1, int(ray.cluster_resources().get("CPU", 1)))
    running: list[Any] = []
    try:
        for trial in trials:
            running.append(task.remote(replace(trial), parent))
            if len(running) == places:
                (done,), running = ray.wait(running)
                yield ray.get(done)
        while running:
            (done,), running = ray.wait(running)
            yield ray.get(done)
    finally:
        for left in running:
            ray.cancel(left, force=True)


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
