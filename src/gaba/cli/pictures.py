"""The pictures of a turbofan run, drawn from the files in its folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

import gaba
from gaba.cli.runs import method_of
from gaba.turbofan import HEALTH, plots

FOLDER = "pictures"


def draw(run_dir: Path) -> list[Path]:
    """Draw all five pictures of an evaluated run into ``run_dir/pictures``; return their paths.

    The trajectory is that of the engine whose record ends closest to its failure.
    """
    metrics = json.loads((run_dir / "metrics.json").read_text(encoding="utf-8"))
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
            unit=int(units[np.argmin(rul)]),
        ),
        "errors": plots.error_histogram(at["rul_predicted"], at["rul"], caption),
        "confusion": plots.confusion(metrics["test"]["health"]["confusion"], HEALTH, caption),
        "balance": plots.balance(gaba.History.read(run_dir / "history.jsonl"), caption),
    }
    folder = run_dir / FOLDER
    return [plots.save(figure, folder / f"{name}.png") for name, figure in figures.items()]
