"""Training: the recipe, the loop, and a run folder from which you can resume exactly."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import torch
from torch import nn

import gaba
from gaba.turbofan import _recipe, checkpoint, windows
from gaba.turbofan._config import TrainConfig
from gaba.turbofan._run import (
    CALIBRATION,
    Schedule,
    Shuffled,
    averaged,
    random_state,
    recalibrated,
    reproducible,
    set_random_state,
)
from gaba.turbofan.evaluate import evaluate_state, predict
from gaba.turbofan.fleet import Fleet
from gaba.turbofan.interval import Interval
from gaba.turbofan.losses import TASKS, losses
from gaba.turbofan.metrics import health_metrics, rmse
from gaba.turbofan.model import TurbofanNet
from gaba.turbofan.normalise import Normaliser

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Epoch", "TrainConfig", "TrainResult", "TrainingDivergedError", "train"]


@final
class TrainingDivergedError(RuntimeError):
    """The losses or gradients of many steps in a row were not finite."""


@final
@dataclass(frozen=True)
class Epoch:
    """One validation, of the averaged parameters: a line of ``epochs.jsonl``.

    Attributes:
        epoch: Its number, from 1.
        step: Optimizer steps so far.
        learning_rate: At that step.
        rmse: Of the capped RUL over the validation windows, in cycles; it chooses the model.
        accuracy: Of the health class over the same windows.
        macro_f1: Of the health class over the same windows.
        best: Whether this is the lowest ``rmse`` so far.
    """

    epoch: int
    step: int
    learning_rate: float
    rmse: float
    accuracy: float
    macro_f1: float
    best: bool


@final
@dataclass(frozen=True)
class TrainResult:
    """The result of a run.

    Attributes:
        config: Its settings.
        run_dir: Its folder.
        best: The validation that was chosen.
        epochs: Validations in all.
        steps: Optimizer steps in all.
        resumed_at: The step from which this call resumed the run, 0 for a new one.
        metrics: What ``metrics.json`` holds; see :func:`gaba.turbofan.evaluate`.
        seconds: The duration of this call, with loading and evaluation.
    """

    config: TrainConfig
    run_dir: Path
    best: Epoch
    epochs: int
    steps: int
    resumed_at: int
    metrics: dict[str, Any]
    seconds: float


@final
class Trainer:
    """One run in memory: ``step`` trains on a batch, ``validate`` ends an epoch."""

    def __init__(self, config: TrainConfig, prepared: windows.Prepared) -> None:
        self.config, self.prepared = config, prepared
        self.device = torch.device(config.device)
        self.model = _recipe.network(config).to(self.device)
        self.mean = averaged(self.model, config.ema_decay)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), config.learning_rate, weight_decay=config.weight_decay
        )
        method = gaba.methods.get(config.method, TASKS, self.model.backbone)
        asks = method.metric == "optimizer"
        self.balancer = gaba.Balancer(
            TASKS,
            self.model.backbone,
            config.method,
            optimizer=self.optimizer if asks else None,
        ).to(self.device)
        self.schedule = Schedule(self.optimizer, config)
        self.batches = Shuffled(prepared.train, config.batch_size, config.seed, self.device)
        self.steps = self.epochs = self.lost = self.since_best = 0
        self.best: dict[str, Any] | None = None

    @property
    def finished(self) -> bool:
        """Whether all steps are done, or the validation has not improved for too long."""
        spent = self.steps >= self.config.steps
        return spent or self.since_best >= self.config.stop_patience

    def step(self) -> gaba.Step:
        """One step of the optimizer; it skips gradients that are not finite."""
        self.model.train()
        batch = next(self.batches)
        both = losses(
            self.model(batch.inputs),
            batch,
            weigh_samples=self.config.sample_weights,
            cap=self.config.rul_cap,
        )
        step = self.balancer.backward(both)
        length = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        if bool(length.isfinite() & step.finite):
            self.optimizer.step()
            self.mean.update_parameters(self.model)
            self.schedule.step()
            self.lost = 0
        else:
            self._lose(step)
        self.optimizer.zero_grad()
        self.steps += 1
        return step

    def _lose(self, step: gaba.Step) -> None:
        self.lost += 1
        if self.lost >= self.config.nonfinite_patience:
            found = ", ".join(f"{k} {v}" for k, v in step.asdict()["losses"].items())
            raise TrainingDivergedError(
                f"losses or gradients were not finite in {self.lost} steps in a row, up to step "
                f"{self.steps + 1} (losses now: {found}): lower learning_rate "
                f"({self.config.learning_rate:g}) or look for bad values in the data"
            )

    def validate(self) -> Epoch:
        """Validate the averaged parameters, recalibrated, and keep them if they are the best."""
        seen = self.prepared.validation
        averaged_model = self.mean.module
        assert isinstance(averaged_model, TurbofanNet)
        inputs = self.batches.all.inputs
        model = recalibrated(averaged_model, inputs[:: max(1, len(inputs) // CALIBRATION)])
        predicted = predict(model, seen.inputs)
        error = rmse(predicted.rul, seen.rul)
        if not math.isfinite(error):
            raise TrainingDivergedError(
                f"the validation error after step {self.steps} is {error}: look for bad values in "
                f"the data, or lower learning_rate ({self.config.learning_rate:g})"
            )
        health = health_metrics(predicted.health_class, seen.health)
        is_best = self.best is None or error < self.best["epoch"]["rmse"]
        self.epochs += 1
        epoch = Epoch(
            self.epochs,
            self.steps,
            float(self.optimizer.param_groups[0]["lr"]),
            error,
            health.accuracy,
            health.macro_f1,
            is_best,
        )
        self.since_best = 0 if is_best else self.since_best + 1
        if is_best:
            state = {name: value.clone() for name, value in model.state_dict().items()}
            interval = Interval.fit(predicted.rul, seen.rul, seen.unit, cap=self.config.rul_cap)
            self.best = {"epoch": asdict(epoch), "model": state, "interval": interval.to_dict()}
        self.schedule.validated(error)
        return epoch

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to resume the run bit for bit."""
        parts = {name: getattr(self, name).state_dict() for name in _PARTS}
        counts = {name: getattr(self, name) for name in _COUNTS}
        normaliser = self.prepared.normaliser.to_arrays()
        return {
            **parts,
            **counts,
            "best": self.best,
            "finished": self.finished,
            "random": random_state(self.device),
            "normaliser": {name: torch.from_numpy(array) for name, array in normaliser.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to ``state``."""
        for name in _PARTS:
            getattr(self, name).load_state_dict(state[name])
        for name in (*_COUNTS, "best"):
            setattr(self, name, state[name])
        set_random_state(state["random"], self.device)


_PARTS = ("model", "mean", "balancer", "optimizer", "schedule", "batches")
_COUNTS = ("steps", "epochs", "lost", "since_best")


def train(
    config: TrainConfig,
    on_step: Callable[[gaba.Step], object] | None = None,
    on_epoch: Callable[[Epoch], object] | None = None,
    *,
    resume: bool = False,
    fleet: Fleet | pd.DataFrame | None = None,
) -> TrainResult:
    """Train a turbofan network, keep the best by validation engines, and evaluate it.

    The run folder gets ``config.json``, ``history.jsonl`` (a line a step), ``epochs.jsonl`` (a line
    a validation), ``checkpoint.pt`` (after every epoch), and at the end ``metrics.json`` and
    ``predictions.npz``. Safe to interrupt: the same call with ``resume`` continues from the last
    checkpoint and gives the same parameters and metrics bit for bit (with as many threads).

    Args:
        config: The settings.
        on_step: Called after every step.
        on_epoch: Called after every validation.
        resume: Whether to continue a run that the folder may hold.
        fleet: The data, or a table of units that ran to failure, with ``config.columns`` (see
            :func:`~gaba.turbofan.own_fleet`); by default they are loaded as ``config`` says.

    Raises:
        FileExistsError: The folder holds a run, and ``resume`` is false.
        ValueError: The folder holds a run with other settings, or a setting cannot be used.
        DataNotFoundError, DataFormatError: The data are missing or malformed. Up to here nothing
            was written.
        TrainingDivergedError: ``config.nonfinite_patience`` steps in a row were not finite, or a
            validation was not.
    """
    began = time.perf_counter()
    folder = Path(config.run_dir)
    device = config.usable_device()
    state = _found(config, folder, resume)
    fleet = _recipe.fleet_of(config, fleet)
    kept = None
    if state is not None:
        kept = Normaliser.from_arrays(state["normaliser"], config.columns)
    prepared = _recipe.prepared(config, fleet, kept)
    with reproducible(config.seed, device), ExitStack() as stack:
        trainer = Trainer(config, prepared)
        if not (folder / checkpoint.CONFIG).is_file():  # nothing was written until here
            config.write()
        if state:
            trainer.load_state_dict(state)
            checkpoint.keep_lines(folder / checkpoint.EPOCHS, trainer.epochs)
        else:  # also after a run that ended before its first checkpoint
            for name in (checkpoint.EPOCHS, checkpoint.HISTORY):
                (folder / name).unlink(missing_ok=True)
        resumed_at = trainer.steps
        meta = {**asdict(config), "simulated": fleet.simulated}
        record = stack.enter_context(
            gaba.RunRecord(
                folder / checkpoint.HISTORY, TASKS, meta, resume_at=resumed_at if state else None
            )
        )
        while not trainer.finished:
            for _ in range(min(config.steps_per_epoch, config.steps - trainer.steps)):
                step = trainer.step()
                record.write(step)
                if on_step is not None:
                    on_step(step)
            epoch = trainer.validate()
            checkpoint.append_line(folder / checkpoint.EPOCHS, asdict(epoch))
            checkpoint.save(folder / checkpoint.CHECKPOINT, trainer.state_dict())
            if on_epoch is not None:
                on_epoch(epoch)
        metrics = evaluate_state(config, folder, trainer.state_dict(), fleet)
    assert trainer.best is not None
    return TrainResult(
        config=config,
        run_dir=folder,
        best=Epoch(**trainer.best["epoch"]),
        epochs=trainer.epochs,
        steps=trainer.steps,
        resumed_at=resumed_at,
        metrics=metrics,
        seconds=time.perf_counter() - began,
    )


def _found(config: TrainConfig, folder: Path, resume: bool) -> dict[str, Any] | None:
    """The state to resume from; None if the folder holds no run, or none with a checkpoint."""
    if not (folder / checkpoint.CONFIG).is_file():
        return None
    if not resume:
        raise FileExistsError(f"run_dir {folder} holds a run: resume it, or name another folder")
    if names := config.differences(TrainConfig.read(folder)):
        raise ValueError(
            f"run_dir {folder} holds a run with another {', '.join(names)}: "
            "resume it with its own settings, or name another folder"
        )
    path = folder / checkpoint.CHECKPOINT
    return checkpoint.load(path) if path.is_file() else None
