"""Progress of a training or a download: a live bar on a terminal, else now and then a line."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, final

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from gaba.cli.screen import short

if TYPE_CHECKING:
    import gaba
    from gaba.turbofan import Epoch

REFRESH = 0.2
"""Seconds between two updates of the figures: reading them waits for the device."""

LINES = 20
"""About the most lines of a whole training that tell a validation."""

EVERY = 10.0
"""Seconds after which a line without validation tells how far the training is."""


def figures(step: dict[str, Any]) -> str:
    """The losses, weights and imbalance of ``Step.asdict()`` in one short line.

    >>> figures({"losses": {"a": 1234.5, "b": None}, "weights": {"a": 0.048, "b": 0.952},
    ...          "imbalance": 25.31})
    'loss a 1234, b – · weight a 0.048, b 0.952 · imbalance 25.3×'
    """
    losses = ", ".join(f"{k} {short(v)}" for k, v in step["losses"].items())
    weights = ", ".join(f"{k} {v:.3f}" for k, v in step["weights"].items())
    imbalance = step["imbalance"]
    tail = "–" if imbalance is None else f"{short(imbalance)}×"
    return f"loss {losses} · weight {weights} · imbalance {tail}"


@final
class Bar(Progress):
    """A live bar with the figures of the latest step below it, for a terminal."""

    def __init__(self, console: Console, steps: int) -> None:
        self.latest = self.validated = ""
        self.due = 0.0
        columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        super().__init__(*columns, console=console, refresh_per_second=5)
        self.task = self.add_task("training", total=steps)

    def get_renderables(self) -> Iterable[RenderableType]:
        """The bar, and below it what is known."""
        yield from super().get_renderables()
        yield from (
            Text(line, "dim", no_wrap=True) for line in (self.latest, self.validated) if line
        )

    def on_step(self, step: gaba.Step) -> None:
        """Move the bar, and now and then renew the figures."""
        self.update(self.task, completed=step.step + 1)
        if (now := time.monotonic()) >= self.due:
            self.latest, self.due = figures(step.asdict()), now + REFRESH

    def on_epoch(self, epoch: Epoch) -> None:
        """Show the validation."""
        self.validated = f"epoch {epoch.epoch} · validation RMSE {epoch.rmse:.2f} cycles"


@final
class Lines(AbstractContextManager["Lines"]):
    """Plain lines for logs and pipes: after validations, and every ten seconds in between."""

    def __init__(self, steps: int) -> None:
        self.total = steps
        self.due = 0
        self.step: gaba.Step | None = None
        self.first = 0
        self.began = self.told = time.monotonic()

    def on_step(self, step: gaba.Step) -> None:
        """Remember the step, and now and then tell how far it is."""
        if self.step is None:  # a resumed run does not begin at 0
            self.first, self.began = step.step, time.monotonic()
        self.step = step
        if time.monotonic() - self.told >= EVERY:
            self._tell("")

    def on_epoch(self, epoch: Epoch) -> None:
        """Print a line if the last one was long enough ago."""
        if self.step is not None and epoch.step >= self.due:
            self.due = epoch.step + self.total // LINES
            self._tell(f" · validation RMSE {epoch.rmse:.2f} cycles")

    def _tell(self, validation: str) -> None:
        assert self.step is not None
        self.told = time.monotonic()
        number = self.step.step + 1
        done = number - self.first
        left = (self.told - self.began) / done * (self.total - number)
        print(
            f"step {number}/{self.total} · at most {timedelta(seconds=round(left))} left"
            f"{validation} · {figures(self.step.asdict())}",
            flush=True,
        )

    def __exit__(self, *_: object) -> None:
        return None


def progress(console: Console, steps: int) -> Bar | Lines:
    """A bar on a terminal, else lines."""
    return Bar(console, steps) if console.is_terminal else Lines(steps)


@final
class Download:
    """A bar of the bytes of a download, as pooch drives one; nothing off a terminal."""

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("downloading"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        self.bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self.task = self.bar.add_task("", total=None)
        self.total = 0

    def update(self, n: int) -> None:
        """``n`` more bytes."""
        self.bar.start()
        self.bar.update(self.task, advance=n, total=self.total or None)

    def reset(self) -> None:
        """Back to no bytes."""
        self.bar.reset(self.task)

    def close(self) -> None:
        """All bytes are there."""
        self.bar.stop()
