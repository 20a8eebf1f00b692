"""The work of ``gaba bench``: a sweep with its progress, and how far it is in words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

import gaba.bench as bench  # so that its absence is told by its name
from gaba.extras import needs
from gaba.bench.plan import Plan
from gaba.bench.progress import Lines, Pace, line

if TYPE_CHECKING:
    from gaba.cli.bench import Run, Status

ERRORS = 5
"""How many different errors are shown."""


def run(asked: Run) -> None:
    """Run what is missing, and say how far it is.

    Raises:
        KeyboardInterrupt: Ctrl-C; its text says what is kept.
        ImportError, ValueError, OSError: see :func:`gaba.bench.run`.
    """
    config = _config(asked)
    jobs = _cores() if asked.jobs is None else asked.jobs
    shard = _shard(asked.shard)
    console = Console()
    try:
        with Bar(console, jobs) if console.is_terminal else Lines(jobs) as watcher:
            summary = bench.run(
                config,
                jobs=jobs,
                backend=asked.backend,
                scheduler=asked.scheduler,
                limit_seconds=asked.limit_seconds,
                shard=shard,
                retry_failed=asked.retry_failed,
                watcher=watcher,
            )
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted: what was finished is in {config.store}; the same command goes on"
        ) from None
    print(f"{summary.ran} trainings were run; they are in {config.store}")
    print(_said(summary, asked.config, config, jobs))


def status(asked: Status) -> str:
    """How far the benchmark of the configuration is."""
    config = _config(asked)
    return _said(bench.status(config), asked.config, config, _cores())


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


@final
class Bar:
    """A live bar of all stages, for a terminal."""

    def __init__(self, console: Console, jobs: int) -> None:
        self.jobs = jobs
        self.bar = Progress(
            BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), console=console
        )
        self.task = self.bar.add_task("", total=None)

    def update(self, plan: Plan, left_in_round: int) -> None:
        """Move the bar, and renew the estimate."""
        stages, seconds = plan.stages(), Pace(plan).seconds_left()
        self.bar.update(
            self.task,
            completed=sum(stage.done for stage in stages),
            total=sum(stage.total - stage.lost for stage in stages),
            description=line(stages, seconds and seconds / self.jobs),
        )

    def __enter__(self) -> Bar:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()


def _config(asked: Run | Status) -> bench.Config:
    instead = {"store": asked.store, "data_dir": asked.data_dir}
    config = bench.Config.read(asked.config)
    return replace(config, **{name: place for name, place in instead.items() if place is not None})


def _cores() -> int:
    with needs("gaba bench needs", "bench", "joblib"):
        import joblib
    return int(joblib.cpu_count())


def _shard(text: str) -> tuple[int, int]:
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
        lines.append(f"{summary.failed} raised an error; once mended: {command} --retry-failed")
        errors = Counter(summary.errors).most_common(ERRORS)
        lines += [f"    {times} × {text}" for text, times in errors]
    if lost := sum(stage.lost for stage in summary.stages):
        lines.append(f"{lost} cannot be run: what they follow from failed or diverged")
    return "\n".join(lines)


def problems() -> str:
    """The problems that come with the benchmark, or why one cannot be had."""
    lines: list[str] = []
    for name in sorted(bench.PROBLEMS):
        try:
            problem = bench.load(name)
        except (FileNotFoundError, ImportError) as error:
            lines.append(f"{name}\n    {' '.join(str(error).split())}")
            continue
        said = " ".join((type(problem).__doc__ or "").strip().split("\n\n")[0].split())
        tasks = problem.tasks
        shown = ", ".join(tasks) if len(tasks) <= 6 else f"{tasks[0]}, ..., {tasks[-1]}"
        lines.append(f"{name}\n    {said}\n    {len(tasks)} tasks: {shown}; {problem.steps} steps")
    return "\n".join([*lines, "", "one of your own: FILE.py:NAME (see examples/own_problem.py)"])
