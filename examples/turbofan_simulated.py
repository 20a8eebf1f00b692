"""The turbofan application from Python: a short run on a simulated fleet, evaluated and drawn.

The fleet is SIMULATED and small; for NASA's data, train(TrainConfig(subset="FD001")). The arguments
are the number of steps (default 40; a good model takes many more) and a folder for the pictures.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

import gaba
from gaba import turbofan
from gaba.turbofan import plots
from gaba.turbofan.simulate import simulate

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 40
fleet: turbofan.Fleet = simulate(train_engines=10, test_engines=8)


def show(epoch: turbofan.Epoch) -> None:
    print(f"step {epoch.step}: validation RMSE {epoch.rmse:.1f} cycles")


with tempfile.TemporaryDirectory() as scratch:
    config = turbofan.TrainConfig(
        subset="simulated",
        run_dir=str(Path(scratch, "run")),
        steps=steps,
        steps_per_epoch=max(1, steps // 2),
    )
    try:
        result: turbofan.TrainResult = turbofan.train(config, on_epoch=show, fleet=fleet)
    except turbofan.TrainingDivergedError as error:
        sys.exit(f"no finite steps: {error}")
    metrics = turbofan.evaluate(result.run_dir, fleet=fleet)  # result.metrics are the same
    saved = np.load(result.run_dir / "predictions.npz")
    history = gaba.History.read(result.run_dir / "history.jsonl")

rmse = metrics["test"]["capped"]["rmse"]
print(f"simulated test engines: RMSE {rmse:.1f} cycles after {result.steps} steps")
print(gaba.diagnose(history))

caption = plots.Caption("simulated", config.method, rmse, simulated=True)
unit = saved["trajectory_unit"][0]
one = saved["trajectory_unit"] == unit
cycles, predicted, true = (
    saved[f"trajectory_{name}"][one] for name in ("cycle", "rul_predicted", "rul")
)
confusion = metrics["test"]["health"]["confusion"]
figures = {
    "predictions": plots.predictions(saved["rul_predicted"], saved["rul"], caption),
    "errors": plots.error_histogram(saved["rul_predicted"], saved["rul"], caption),
    "trajectory": plots.trajectory(cycles, predicted, true, caption, unit=int(unit)),
    "confusion": plots.confusion(confusion, turbofan.HEALTH, caption),
    "balance": plots.balance(history, caption),
}
if len(sys.argv) > 2:
    for name, figure in figures.items():
        print("wrote", plots.save(figure, Path(sys.argv[2], f"{name}.png")))
