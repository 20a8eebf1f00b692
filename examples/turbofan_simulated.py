"""The turbofan application from Python: a short run on a simulated fleet, evaluated and drawn.

The fleet is SIMULATED and small; for NASA's data, train(TrainConfig(subset="FD001")). The argument
is the number of steps (default 40, far too few for a good model).
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

import gaba
from gaba import turbofan
from gaba.diagnosis import diagnose
from gaba.turbofan import plots
from gaba.turbofan.simulate import simulate

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 40
fleet: turbofan.Fleet = simulate(train_engines=10, test_engines=8)


def show(epoch: turbofan.Epoch) -> None:
    print(f"step {epoch.step}: validation RMSE {epoch.rmse:.1f} cycles")


with tempfile.TemporaryDirectory() as folder:
    config = turbofan.TrainConfig(
        subset="simulated",
        run_dir=str(Path(folder, "run")),
        steps=steps,
        steps_per_epoch=max(1, steps // 2),
    )
    result: turbofan.TrainResult = turbofan.train(config, on_epoch=show, fleet=fleet)
    saved = np.load(result.run_dir / "predictions.npz")

    rmse = result.metrics["test"]["capped"]["rmse"]
    caption = plots.Caption("simulated", config.method, rmse, simulated=True)
    figure = plots.error_histogram(saved["rul_predicted"], saved["rul"], caption)
    plots.save(figure, Path(folder, "errors.png"))

    print(f"simulated test engines: RMSE {rmse:.1f} cycles after {result.steps} steps")
    print(diagnose(gaba.History.read(result.run_dir / "history.jsonl")))
