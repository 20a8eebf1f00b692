"""``gaba train turbofan`` and ``gaba evaluate``: call the application, show what came of it."""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

import gaba
import gaba.turbofan as turbofan  # so that its absence is told by its name
from gaba import methods
from gaba.cli.pictures import draw
from gaba.cli.progress import progress
from gaba.cli.report import REPORT, WIDTH, show, title

if TYPE_CHECKING:
    from gaba.cli.commands import Train

RUNS = Path("runs")


def console() -> Console:
    """Where reports go: stdout, plain and of a fixed width unless it is a terminal."""
    terminal = sys.stdout.isatty()
    return Console(width=None if terminal else WIDTH, highlight=False, soft_wrap=not terminal)


def train(command: Train) -> None:
    """Train as ``command`` says, draw the pictures, and print the report.

    Raises:
        KeyboardInterrupt: Ctrl-C; the message says how to go on.
    """
    config = _config(command)
    # Whatever can be wrong is found before the run folder is made.
    turbofan.policy(config.method)
    config.usable_device()
    fleet = turbofan.load(config.subset, config.data_dir)
    screen = console()
    heading = title({**vars(config), "simulated": fleet.simulated})
    screen.print(f"{heading}\nrun folder: {config.run_dir}", markup=False)
    try:
        with progress(screen, config) as bar:
            result = turbofan.train(
                config, bar.on_step, bar.on_epoch, resume=command.resume is not None, fleet=fleet
            )
        pictures = draw(result.run_dir)
    except KeyboardInterrupt:
        if not Path(config.run_dir, "config.json").is_file():
            raise
        again = f"gaba train turbofan --resume {shlex.quote(str(config.run_dir))}"
        raise KeyboardInterrupt(f"interrupted: to go on, run: {again}") from None
    show(screen, result.run_dir, result.metrics)
    _say_where(screen, result.run_dir, pictures)
    screen.print(f"took {result.seconds:.0f} s")


def evaluate(run_dir: Path, data_dir: Path | None) -> None:
    """Evaluate the best model of a run, draw the pictures, and print the report."""
    screen = console()
    metrics = turbofan.evaluate(run_dir, data_dir=data_dir)
    pictures = draw(run_dir)
    show(screen, run_dir, metrics)
    _say_where(screen, run_dir, pictures)


def _say_where(screen: Console, run_dir: Path, pictures: list[Path]) -> None:
    names = ", ".join(path.name for path in pictures)
    screen.print(f"\nrun folder: {run_dir} ({REPORT} is this report)", markup=False)
    screen.print(f"pictures: {pictures[0].parent} ({names})", markup=False)


def _config(command: Train) -> turbofan.TrainConfig:
    """The settings of a new run, or of the one to go on with."""
    names = ("steps", "steps_per_epoch", "batch_size", "learning_rate", "device")
    given = {name: getattr(command, name) for name in names if getattr(command, name) is not None}
    settings = {
        **given,
        **{name: getattr(command, name) for name in ("subset", "method", "size", "seed")},
    }
    if command.weights_from is not None:
        settings["method"] = _fixed_as_in(command)
    if command.data_dir is not None:
        settings["data_dir"] = str(command.data_dir)
    if command.resume is not None:
        return _resumed(command, given)
    config = turbofan.TrainConfig(**settings)
    if command.run_dir is None:
        return replace(config, run_dir=str(_free_folder(config)))
    if (command.run_dir / "config.json").exists():
        raise FileExistsError(
            f"{command.run_dir} holds a run: go on with it by --resume {command.run_dir}, "
            "or name another --run-dir"
        )
    return replace(config, run_dir=str(command.run_dir))


def _fixed_as_in(command: Train) -> str:
    """The method ``fixed:`` with the weights of another run, so that the run needs that no more."""
    assert command.weights_from is not None
    if command.method != type(command)(command.application).method or command.resume is not None:
        raise ValueError(
            "--weights-from cannot be given with --method or --resume: it says what the weights "
            "are, and a run goes on with its own settings"
        )
    history = command.weights_from / "history.jsonl"
    weights = methods.settled_weights(gaba.History.read(history))
    if tuple(weights) != turbofan.TASKS:
        raise ValueError(
            f"--weights-from needs a run of the tasks {', '.join(turbofan.TASKS)}, found "
            f"{', '.join(weights)} in {command.weights_from}"
        )
    return "fixed:" + ",".join(f"{weight:.6g}" for weight in weights.values())


def _resumed(command: Train, given: dict[str, object]) -> turbofan.TrainConfig:
    assert command.resume is not None
    config = turbofan.TrainConfig.read(command.resume)
    if command.run_dir is not None and command.run_dir != command.resume:
        raise ValueError("--run-dir cannot be given with --resume: a run goes on in its own folder")
    defaults = type(command)(command.application)
    for name in ("subset", "method", "size", "seed"):
        if getattr(command, name) != getattr(defaults, name):
            given[name] = getattr(command, name)
    for name, value in given.items():
        if getattr(config, name) != value:
            raise ValueError(
                f"--{name.replace('_', '-')} {value} differs from the {getattr(config, name)} of "
                f"the run in {command.resume}: leave it out, a run goes on with its own settings"
            )
    data_dir = config.data_dir if command.data_dir is None else str(command.data_dir)
    return replace(config, data_dir=data_dir)


def _free_folder(config: turbofan.TrainConfig) -> Path:
    """The first folder of that run's name, or with -2, -3, ... after it, that is not there."""
    method = re.sub(r"[^\w.-]+", "_", config.method)
    name = f"{config.subset}-{method}-{config.size}-seed{config.seed}"
    folders = (RUNS / (name if i == 1 else f"{name}-{i}") for i in count(1))
    return next(folder for folder in folders if not folder.exists())
