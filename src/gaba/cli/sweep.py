"""The work of ``gaba bench``: a sweep with its progress, and how far it is in words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

import gaba.bench as bench  # so that its absence is told by its name
from gaba.bench.plan import Plan
from gaba.bench.progress import Lines, line, said
from gaba.bench.sweep import Watcher
from gaba.extras import library

ERRORS = 5
"""How many different errors are shown."""


def configured(path: Path, **instead: str | None) -> bench.Config:
    """The configuration in a file, with the fields in ``instead`` that are not None."""
    given: dict[str, Any] = {name: value for name, value in instead.items() if value is not None}
    return replace(bench.Config.read(path), **given)


def run(config: bench.Config, path: Path, jobs: int | None, **settings: Any) -> None:
    """Run what is missing of the configuration in ``path``, and say how far it is.

    Raises:
        KeyboardInterrupt: Ctrl-C; its text says what is kept.
        ImportError, ValueError, OSError: see :func:`gaba.bench.run`.
    """
    jobs = _cores() if jobs is None else jobs
    try:
        with _watcher(jobs) as watcher:
            summary = bench.run(config, jobs=jobs, watcher=watcher, **settings)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted: finished trainings are in {config.store}; run the same command to resume"
        ) from None
    print(f"{summary.ran} trainings were run; they are in {config.store}")
    print(_said(summary, path, config, jobs))


def status(config: bench.Config, path: Path) -> str:
    """How far the benchmark of the configuration in ``path`` is."""
    return _said(bench.status(config), path, config, _cores())


def merge(stores: Sequence[Path]) -> str:
    """Take over into the first of ``stores`` what the others have; how many rows that was.

    Raises:
        ValueError: there are not two.
        FileNotFoundError: one to be read is not there.
    """
    if len(stores) < 2:
        raise ValueError(f"merge needs two stores at least, found {len(stores)}: name them all")
    for other in stores[1:]:
        if not other.is_file():
            raise FileNotFoundError(f"no store of results at {other}")
    with bench.Store(stores[0]) as store:
        said = [f"{store.merge(other)} trainings of {other} were new" for other in stores[1:]]
        return "\n".join([*said, f"{len(store)} trainings are in {stores[0]}"])


@contextmanager
def _watcher(jobs: int) -> Iterator[Watcher]:
    """A live bar of all stages on a terminal, plain lines elsewhere."""
    console = Console()
    if not console.is_terminal:
        yield Lines(jobs)
        return
    columns = BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}")
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=None)

        def update(plan: Plan) -> None:
            stages = plan.stages()
            total = sum(stage.total - stage.lost for stage in stages)
            done = sum(stage.done for stage in stages)
            progress.update(task, completed=done, total=total, description=said(plan, jobs))

        yield update


def _cores() -> int:
    return int(library("joblib", "gaba bench needs", "bench").cpu_count())


def shard(text: str) -> tuple[int, int]:
    """I and N of ``"I/N"``.

    Raises:
        ValueError: it is written otherwise.
    """
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found:
        raise ValueError(f"--shard must be I/N, as 1/4, found {text!r}")
    return int(found[1]), int(found[2])


def _said(summary: bench.Summary, path: Path, config: bench.Config, jobs: int) -> str:
    seconds, command = summary.seconds_left, f"gaba bench run {path}"
    if summary.left:
        lines = [line(summary.stages, seconds and seconds / jobs)]
        lines.append(f"{summary.left} trainings are left: {command}")
    else:
        done = sum(stage.done for stage in summary.stages)
        lines = [f"finished, {done} trainings: gaba bench report {config.store} -o report.html"]
    if summary.failed:
        lines.append(f"{summary.failed} raised an error; once fixed: {command} --retry-failed")
        errors = Counter(summary.errors).most_common(ERRORS)
        lines += [f"    {times} × {text}" for text, times in errors]
    if lost := sum(stage.lost for stage in summary.stages):
        lines.append(f"{lost} cannot run: what they follow from failed or diverged")
    return "\n".join(lines)
