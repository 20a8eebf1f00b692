"""Progress of a training: a live bar on a terminal, else a plain line now and then."""

from __future__ import annotations

import time
from typing import Any, final

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

import gaba
from gaba.turbofan import Epoch, TrainConfig

REFRESH = 0.2
"""Seconds between two updates of the bar: reading a step's figures waits for the device."""

LINES = 20
"""About the most plain lines of a whole training."""


def figures(step: dict[str, Any]) -> str:
    """The losses, weights and imbalance of ``Step.asdict()`` in one short line.

    >>> figures({"losses": {"a": 1234.5, "b": None}, "weights": {"a": 0.048, "b": 0.952},
    ...          "imbalance": 25.31})
    'loss a 1234, b – · weight a .048, b .952 · imbalance 25.3×'
    """
    losses = ", ".join(f"{k} {_short(v)}" for k, v in step["losses"].items())
    weights = ", ".join(f"{k} {v:.3f}".replace(" 0.", " .") for k, v in step["weights"].items())
    imbalance = step["imbalance"]
    tail = "–" if imbalance is None else f"{_short(imbalance)}×"
    return f"loss {losses} · weight {weights} · imbalance {tail}"


def _short(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"


@final
class Bar:
    """A live bar with the figures of the latest step below it, for a terminal."""

    def __init__(self, console: Console, config: TrainConfig) -> None:
        self.bar = Progress(
            TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        )
        self.task = self.bar.add_task("training", total=config.steps)
        self.latest = self.validated = ""
        self.live = Live(console=console, get_renderable=self._render, refresh_per_second=5)
        self.due = 0.0

    def _render(self) -> Group:
        lines = (line for line in (self.latest, self.validated) if line)
        return Group(self.bar, *(Text(line, "dim", no_wrap=True) for line in lines))

    def on_step(self, step: gaba.Step) -> None:
        """Move the bar, and renew the figures if it is time to."""
        self.bar.update(self.task, completed=step.step + 1)
        if (now := time.monotonic()) >= self.due:
            self.latest, self.due = figures(step.asdict()), now + REFRESH

    def on_epoch(self, epoch: Epoch) -> None:
        """Show the validation."""
        self.validated = f"epoch {epoch.epoch} · validation RMSE {epoch.rmse:.2f} cycles"

    def __enter__(self) -> Bar:
        self.live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.live.__exit__(*error)


@final
class Lines:
    """A plain line after a validation, about ``LINES`` of them in all, for logs and pipes."""

    def __init__(self, config: TrainConfig) -> None:
        self.total = config.steps
        self.due = 0
        self.step: gaba.Step | None = None

    def on_step(self, step: gaba.Step) -> None:
        """Remember the step."""
        self.step = step

    def on_epoch(self, epoch: Epoch) -> None:
        """Print a line if the last one was long enough ago."""
        if self.step is None or epoch.step < self.due:
            return
        self.due = epoch.step + self.total // LINES
        print(
            f"step {epoch.step}/{self.total} · validation RMSE {epoch.rmse:.2f} cycles · "
            f"{figures(self.step.asdict())}",
            flush=True,
        )

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        return None


def progress(console: Console, config: TrainConfig) -> Bar | Lines:
    """What suits the console."""
    return Bar(console, config) if console.is_terminal else Lines(config)
