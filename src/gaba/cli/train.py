"""``gaba train turbofan`` and ``gaba evaluate``: call the application and show the result."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from rich.console import Console

import gaba
from gaba import rules, turbofan
from gaba.cli import compare as comparison
from gaba.cli.pictures import draw
from gaba.cli.progress import progress
from gaba.cli.report import REPORT, show
from gaba.cli.runs import interrupted, title
from gaba.cli.screen import console

RUNS = Path("runs")
CONFIG = "config.json"
_COLUMNS = ("unit", "cycle", "sensors", "settings")
_OPTION = {"rul_cap": "cap"}
"""Settings whose options have other names."""


def train(
    settings: Mapping[str, Any],
    run_dir: Path | None,
    resume: Path | None,
    methods: str | None = None,
) -> None:
    """Train, draw the pictures, and print the report; of several methods, compare them.

    Args:
        settings: What was given, by the names of the options.
        run_dir: The folder of the run; by default one of that run's name in ``runs``.
        resume: The folder of a run or a comparison to continue, with its own settings.
        methods: Those to compare, separated by commas.

    Raises:
        KeyboardInterrupt: Ctrl-C; the message says how to resume.
    """
    given = _given(settings)
    if methods is not None or (resume is not None and comparison.is_one(resume)):
        comparison.compare(_compared(given, run_dir, resume, methods))
        return
    config = _resumed(given, run_dir, resume) if resume else _new(given, run_dir)
    config.usable_device()
    fleet = turbofan.load(config.subset, config.data_dir, config.columns)
    screen = console()
    heading = title({**vars(config), "simulated": fleet.simulated})
    screen.print(f"{heading}\nrun folder: {config.run_dir}", markup=False)
    try:
        with progress(screen, config.steps) as bar:
            result = turbofan.train(
                config, bar.on_step, bar.on_epoch, resume=resume is not None, fleet=fleet
            )
        pictures = draw(result.run_dir, fleet=fleet)
    except KeyboardInterrupt:
        if not Path(config.run_dir, CONFIG).is_file():
            raise
        raise interrupted(config.run_dir) from None
    _conclude(screen, result.run_dir, result.metrics, pictures)
    screen.print(f"took {result.seconds:.0f} s")


def evaluate(run_dir: Path, data_dir: Path | None) -> None:
    """Evaluate the best model of a run, draw the pictures, and print the report."""
    metrics = turbofan.evaluate(run_dir, data_dir=data_dir)
    _conclude(console(), run_dir, metrics, draw(run_dir, data_dir=data_dir))


def _conclude(
    screen: Console, run_dir: Path, metrics: dict[str, Any], pictures: list[Path]
) -> None:
    show(screen, run_dir, metrics)
    names = ", ".join(path.name for path in pictures)
    screen.print(f"\nrun folder: {run_dir} ({REPORT} is this report)", markup=False)
    screen.print(f"pictures: {pictures[0].parent} ({names})", markup=False)


def _given(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the TrainConfig that the options ask for.

    Raises:
        ValueError: Options that do not go together.
    """
    rest = dict(settings)
    described = {name: rest.pop(name) for name in _COLUMNS if name in rest}
    for name in ("sensors", "settings"):
        if name in described:
            names = (part.strip() for part in described[name].split(","))
            described[name] = tuple(part for part in names if part)
    if "sensors" in described:
        rest["columns"] = turbofan.Columns(**described)
    elif "settings" in described:
        raise ValueError("--settings needs --sensors: name the columns that respond to wear too")
    elif described:
        rest["columns"] = replace(turbofan.CMAPSS, **described)
    if "cap" in rest:
        rest["rul_cap"] = rest.pop("cap")
    if (csv := rest.pop("csv", None)) is not None:
        path = Path(csv)
        if "subset" in rest:
            raise ValueError("--csv cannot be given with --subset: each names the data")
        if path.suffix != ".csv":
            raise ValueError(f"--csv must be a file that ends in .csv, found {csv}")
        rest = {"data_dir": str(path.parent), **rest, "subset": path.name}
    return rest


def _new(settings: Mapping[str, Any], run_dir: Path | None) -> turbofan.TrainConfig:
    config = turbofan.TrainConfig(**settings)
    config = replace(config, method=_by_itself(config.method))
    if run_dir is None:
        return replace(config, run_dir=str(_free_folder(config, config.method)))
    if (run_dir / CONFIG).exists():
        raise FileExistsError(
            f"{run_dir} holds a run: continue it with --resume {run_dir}, or name another --run-dir"
        )
    return replace(config, run_dir=str(run_dir))


def _by_itself(method: str) -> str:
    """The method; with the multipliers of another run it needs that run no more."""
    if not method.startswith("from-run:"):
        return method
    rule = gaba.methods.get(method, turbofan.TASKS).rule
    assert isinstance(rule, rules.Fixed)
    return f"fixed:{','.join(f'{multiplier:.6g}' for multiplier in rule.weights)}"


def _compared(
    settings: Mapping[str, Any], run_dir: Path | None, resume: Path | None, methods: str | None
) -> comparison.Comparison:
    if "method" in settings:
        raise ValueError("--method cannot be given with --compare: name the method there")
    named = None if methods is None else tuple(map(_by_itself, comparison.names(methods)))
    if resume is not None:
        if not comparison.is_one(resume):
            raise FileNotFoundError(
                f"no comparison in {resume}: leave --compare out to resume the run there"
            )
        asked = comparison.Comparison.read(resume)
        if named not in (None, asked.methods):
            raise ValueError(
                f"--compare {methods} differs from the {','.join(asked.methods)} of {resume}: "
                "leave it out, a comparison keeps its own methods"
            )
        return replace(asked, shared=_kept(asked.shared, settings, run_dir, resume))
    assert named is not None
    shared = turbofan.TrainConfig(**settings)
    for method in named:
        replace(shared, method=method)  # is there such a method?
    folder = run_dir or _free_folder(shared, "compare")
    if comparison.is_one(folder):
        raise FileExistsError(
            f"{folder} holds a comparison: continue it with --resume {folder}, or name another "
            "--run-dir"
        )
    return comparison.Comparison(folder, named, shared)


def _resumed(
    settings: Mapping[str, Any], run_dir: Path | None, resume: Path
) -> turbofan.TrainConfig:
    return _kept(turbofan.TrainConfig.read(resume), settings, run_dir, resume)


def _kept(
    config: turbofan.TrainConfig, settings: Mapping[str, Any], run_dir: Path | None, resume: Path
) -> turbofan.TrainConfig:
    """The settings of a run, after a check that those given are the same."""
    if run_dir is not None and run_dir != resume:
        raise ValueError("--run-dir cannot be given with --resume: a run stays in its own folder")
    for name, value in settings.items():
        if name != "data_dir" and (own := getattr(config, name)) != value:
            differs = (
                f"--{_OPTION.get(name, name).replace('_', '-')} {value} differs from the {own}"
            )
            if name == "columns":
                differs = f"columns {_names(value)} differ from the {_names(own)}"
            raise ValueError(
                f"{differs} of the run in {resume}: leave it out, a run keeps its own settings"
            )
    return replace(config, data_dir=settings.get("data_dir", config.data_dir))


def _free_folder(config: turbofan.TrainConfig, label: str) -> Path:
    """The first folder of that run's name, or with -2, -3, ... after it, that is not there."""
    method = re.sub(r"[^\w.-]+", "_", label) + "-samples" * config.sample_weights
    data = re.sub(r"[^\w.-]+", "_", config.subset.removesuffix(".csv"))
    name = f"{data}-{method}-{config.size}-seed{config.seed}"
    folders = (RUNS / (name if i == 1 else f"{name}-{i}") for i in count(1))
    return next(folder for folder in folders if not folder.exists())


def _names(columns: turbofan.Columns) -> str:
    return ", ".join(columns.needed)
