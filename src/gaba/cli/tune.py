"""``gaba tune``: search the parts of the update that the tasks should have."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, final

from tyro.conf import Positional, arg

if TYPE_CHECKING:
    from gaba.bench.tuned import Watcher

PROBLEMS = "(default: the problem's)"


@final
@dataclass(frozen=True)
class Tune:
    """Search which part of the update each task should have. Safe to interrupt with --storage."""

    problem: Annotated[Positional[str], arg(metavar="PROBLEM")]
    """A name of `gaba bench problems`, or one of your own, FILE.py:NAME."""
    trials: Annotated[int, arg(metavar="N")] = 8
    """How many trainings there are in the end; the first has equal targets."""
    steps: Annotated[int | None, arg(metavar="N", help_behavior_hint=PROBLEMS)] = None
    """Of the optimizer, in each training."""
    method: Annotated[str, arg(metavar="NAME")] = "gaba"
    """What gets the targets: gaba, inverse, equal-share, ..."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """Of each training."""
    learning_rate: Annotated[float | None, arg(metavar="FLOAT", help_behavior_hint=PROBLEMS)] = None
    """Of that optimizer."""
    seed: int = 100
    """Decides the search, and each training."""
    storage: Annotated[
        str | None, arg(metavar="FILE", help_behavior_hint="(default: none is kept)")
    ] = None
    """The SQLite file of the study, or a database URL. The same command goes on where it was;
    several machines may work on one study."""
    study: Annotated[str | None, arg(metavar="NAME", help_behavior_hint=PROBLEMS)] = None
    """The name of the study in that file."""
    plot: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="")] = None
    """Write a picture of what was tried, as PNG, SVG or PDF."""
    data_dir: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="")] = None
    """The folder with the data."""

    def run(self) -> None:
        """Search, and print the best trial and its line of code."""
        from gaba.bench.tuning import tune

        try:
            with _watcher(self.trials) as watcher:
                found = tune(
                    self.problem,
                    self.trials,
                    steps=self.steps,
                    method=self.method,
                    optimizer=self.optimizer,
                    learning_rate=self.learning_rate,
                    seed=self.seed,
                    storage=self.storage,
                    study=self.study,
                    data_dir=self.data_dir,
                    watcher=watcher,
                )
        except KeyboardInterrupt:
            kept = "no trial is kept: use --storage FILE to resume"
            if self.storage is not None:
                kept = f"finished trials are in {self.storage}; run the same command to resume"
            raise KeyboardInterrupt(f"interrupted: {kept}") from None
        print(found)
        if self.plot is not None:
            found.plot(self.plot)
            print(f"what was tried is in {self.plot}")


@contextmanager
def _watcher(trials: int) -> Iterator[Watcher]:
    """A live bar on a terminal, a line a trial elsewhere."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from gaba.bench.tuned import Moment
    from gaba.cli.screen import console

    screen = console()
    if not screen.is_terminal:

        def tell(moment: Moment) -> None:
            if moment.tried is not None:
                print(moment, flush=True)

        yield tell
        return
    columns = BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}")
    with Progress(*columns, console=screen) as progress:
        task = progress.add_task("", total=trials)

        def update(moment: Moment) -> None:
            under_way = moment.tried is None and moment.part == moment.part
            done = moment.done + (moment.part if under_way else 0)
            progress.update(task, completed=done, description=str(moment))

        yield update
