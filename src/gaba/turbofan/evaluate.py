"""Evaluation of the chosen model at the last cycle of each test engine."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch

from gaba.turbofan import _recipe, checkpoint, windows
from gaba.turbofan._config import TrainConfig
from gaba.turbofan.fleet import Fleet
from gaba.turbofan.metrics import RulMetrics, health_metrics, rul_metrics
from gaba.turbofan.model import TurbofanNet
from gaba.turbofan.normalise import Normaliser

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

_MAIN = ("subset", "method", "sample_weights", "size", "seed")
TRAJECTORIES = 6
"""So many test engines, those with the longest records, are predicted at every cycle."""


@final
@dataclass(frozen=True, eq=False)
class Predictions:
    """The answers for N windows: ``rul`` (N,) in cycles, ``health`` (N, 3) probabilities."""

    rul: NDArray[np.float32]
    health: NDArray[np.float32]

    @property
    def health_class(self) -> NDArray[np.int64]:
        """The most probable class (N,)."""
        return self.health.argmax(axis=1)


def predict(model: TurbofanNet, inputs: NDArray[np.float32], batch_size: int = 512) -> Predictions:
    """Run ``model`` over windows (N, 30, 17) in evaluation mode, and restore its mode.

    >>> predictions = predict(TurbofanNet("small"), np.zeros((3, 30, 17), dtype=np.float32))
    >>> predictions.rul.shape, predictions.health.sum(axis=1).round(4).tolist()
    ((3,), [1.0, 1.0, 1.0])
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    rul, health = [np.zeros(0, np.float32)], [np.zeros((0, 3), np.float32)]
    with torch.inference_mode():
        for part in torch.from_numpy(inputs).split(batch_size):
            output = model(part.to(device))
            rul.append(output["rul"].cpu().numpy())
            health.append(output["health"].softmax(dim=-1).cpu().numpy())
    model.train(was_training)
    return Predictions(np.concatenate(rul), np.concatenate(health))


def evaluate(
    run_dir: str | Path,
    *,
    data_dir: str | Path | None = None,
    fleet: Fleet | pd.DataFrame | None = None,
) -> dict[str, Any]:
    """Evaluate the best model of a run on the last window of each test engine.

    The model is the best on the validation engines. This writes ``metrics.json`` and
    ``predictions.npz`` into the run folder. The latter holds ``unit``, ``cycle``, ``rul`` (capped),
    ``rul_raw``, ``rul_predicted``, ``health``, ``health_predicted`` and ``health_probability``
    (N, 3) for the last windows, and with the prefix ``trajectory_`` for every window of the test
    engines with the longest records. If engines are not called by whole numbers, it also holds
    ``name``.

    Args:
        run_dir: The run's folder, finished or not.
        data_dir: Where the data are now, if they were moved.
        fleet: The data themselves, or the table of your own that the run was trained on.

    Returns:
        What ``metrics.json`` holds: ``test.capped`` and ``test.raw`` (``rmse`` in cycles, NASA
        ``score``, None if infinite), ``test.health`` (``accuracy``, ``macro_f1``,
        ``confusion[true][predicted]``), ``validation`` (the epoch that was chosen), ``simulated``,
        and the main settings.

    Raises:
        FileNotFoundError: The folder holds no run.
        ValueError: The run has no validation yet.
    """
    run_dir = Path(run_dir)
    config = TrainConfig.read(run_dir)
    state = checkpoint.load(run_dir / checkpoint.CHECKPOINT)
    if state["best"] is None:
        raise ValueError(f"{run_dir} has no validated model yet: train it for an epoch")
    return evaluate_state(config, run_dir, state, _recipe.fleet_of(config, fleet, data_dir))


def restored(config: TrainConfig, state: dict[str, Any]) -> tuple[TurbofanNet, Normaliser]:
    """The best model of a checkpoint, on its device, and the normaliser of its inputs."""
    model = _recipe.network(config)
    model.load_state_dict(state["best"]["model"])
    return model.to(config.usable_device()), Normaliser.from_arrays(
        state["normaliser"], config.columns
    )


def evaluate_state(
    config: TrainConfig, run_dir: Path, state: dict[str, Any], fleet: Fleet
) -> dict[str, Any]:
    """:func:`evaluate` with everything at hand."""
    model, normaliser = restored(config, state)
    every = _recipe.cut(config, fleet.test, normaliser, fleet.rul)
    last = windows.last_of_each(every)
    longest = last.unit[np.argsort(-last.cycle, kind="stable")[:TRAJECTORIES]]
    at_last, arrays = _predicted(model, last)
    _, trajectories = _predicted(model, every.take(np.isin(every.unit, longest)))
    arrays |= {f"trajectory_{name}": array for name, array in trajectories.items()}
    if fleet.names:  # what the numbers in `unit` stand for
        for prefix in ("", "trajectory_"):
            units = arrays[f"{prefix}unit"].tolist()
            arrays[f"{prefix}name"] = np.array([fleet.names[unit] for unit in units])
    metrics = {
        **{name: getattr(config, name) for name in _MAIN},
        "simulated": fleet.simulated,
        "steps": state["steps"],
        "finished": state["finished"],
        "test_engines": len(last),
        "validation": state["best"]["epoch"],
        "test": {
            "capped": _plain(rul_metrics(at_last.rul, last.rul)),
            "raw": _plain(rul_metrics(at_last.rul, last.rul_raw)),
            "health": asdict(health_metrics(at_last.health_class, last.health)),
        },
    }
    checkpoint.write_arrays(run_dir / checkpoint.PREDICTIONS, arrays)
    checkpoint.write_json(run_dir / checkpoint.METRICS, metrics)
    return metrics


def _plain(metrics: RulMetrics) -> dict[str, float | None]:
    return {name: x if math.isfinite(x) else None for name, x in asdict(metrics).items()}


def _predicted(
    model: TurbofanNet, seen: windows.Windows
) -> tuple[Predictions, dict[str, NDArray[Any]]]:
    predictions = predict(model, seen.inputs)
    return predictions, {
        "unit": seen.unit,
        "cycle": seen.cycle,
        "rul": seen.rul,
        "rul_raw": seen.rul_raw,
        "rul_predicted": predictions.rul,
        "health": seen.health,
        "health_predicted": predictions.health_class,
        "health_probability": predictions.health,
    }
