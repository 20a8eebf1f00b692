"""The pictures of a turbofan run, drawn from the files in its folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import gaba
from gaba.cli.runs import method_of
from gaba.turbofan import HEALTH, Fleet, Run, TrainConfig, checkpoint, lives, lives_plot, plots
from gaba.turbofan.data import SIMULATED
from gaba.turbofan.interval import COVERAGE

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

FOLDER = "pictures"


def draw(run_dir: Path, *, data_dir: Path | None = None, fleet: Fleet | None = None) -> list[Path]:
    """Draw all six pictures of an evaluated run into ``run_dir/pictures``; return their paths.

    The trajectory is that of the engine whose record ends closest to its failure. The lives are of
    six test engines from the least to the most true remaining life, predicted for this picture.

    Args:
        run_dir: The run's folder.
        data_dir: Where the data are now, if they were moved.
        fleet: The data themselves.
    """
    metrics = checkpoint.read_metrics(run_dir)
    caption = plots.Caption(
        metrics["subset"],
        method_of(metrics),
        metrics["test"]["capped"]["rmse"],
        simulated=metrics["simulated"],
    )
    with np.load(run_dir / "predictions.npz") as file:
        at = dict(file)
    units, rul = at["trajectory_unit"], at["trajectory_rul_raw"]
    engine = units == units[np.argmin(rul)]
    figures = {
        "predictions": plots.predictions(at["rul_predicted"], at["rul"], caption),
        "trajectory": plots.trajectory(
            at["trajectory_cycle"][engine],
            at["trajectory_rul_predicted"][engine],
            at["trajectory_rul"][engine],
            caption,
            unit=str(at.get("trajectory_name", units)[np.argmin(rul)]),
        ),
        "lives": _lives(run_dir, at, caption, data_dir, fleet),
        "errors": plots.error_histogram(at["rul_predicted"], at["rul"], caption),
        "confusion": plots.confusion(metrics["test"]["health"]["confusion"], HEALTH, caption),
        "balance": plots.balance(gaba.History.read(run_dir / "history.jsonl"), caption),
    }
    folder = run_dir / FOLDER
    return [plots.save(figure, folder / f"{name}.png") for name, figure in figures.items()]


def _lives(
    run_dir: Path,
    at: dict[str, np.ndarray],
    caption: plots.Caption,
    data_dir: Path | None,
    fleet: Fleet | None,
) -> Figure:
    config = TrainConfig.read(run_dir)
    shown = lives.of_test(run_dir, data_dir=data_dir, fleet=fleet)
    allowed, unit = lives.tolerance(config.rul_cap), lives.noun(config.columns)
    return lives_plot.lives(
        shown,
        lives.late_verdict(at["rul_predicted"], at["rul"], allowed, f"test {unit}"),
        f"{len(shown)} of {len(at['rul'])} test {unit}s, from the least to the most true remaining "
        "life at the last cycle",
        caption,
        cap=config.rul_cap,
        allowed=allowed,
        coverage=COVERAGE,
        noun=unit,
    )


def draw_predicted(run: Run, found: pd.DataFrame, file: Path, path: Path, *, failed: bool) -> str:
    """Draw up to six of the units that ``run`` has predicted at every cycle; return the verdict.

    Args:
        run: What predicted.
        found: Its predictions, every cycle.
        file: Where the units are from.
        path: The PNG file to write.
        failed: Whether each unit failed at its last cycle, so that the truth is known.
    """
    cap, columns, subset = run.config.rul_cap, run.config.columns, run.config.subset
    every = lives.from_table(found, cap if failed else None)
    allowed, unit = lives.tolerance(cap), lives.noun(columns)
    last = np.array([life.rul[-1] for life in every])
    if failed:
        verdict = lives.late_verdict(last, np.zeros(len(last)), allowed, unit)
        order, said = [life.cycle[-1] for life in every], "from the shortest to the longest life"
    else:
        verdict = lives.short_verdict(last, columns.thresholds(cap)[0], unit)
        order, said = last, "from the least to the most predicted life at the last cycle"
    chosen = [every[place] for place in lives.spread(order)]
    figure = lives_plot.lives(
        chosen,
        verdict,
        f"{file.name}: {len(chosen)} of {len(every)} {unit}s, {said}",
        plots.Caption(subset, method_of(vars(run.config)), simulated=subset == SIMULATED),
        cap=cap,
        allowed=allowed,
        coverage=run.interval.coverage,
        noun=unit,
    )
    plots.save(figure, path)
    return verdict
