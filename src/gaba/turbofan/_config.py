"""The settings of a training run: one frozen dataclass, written as JSON beside its results."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import final

import torch

from gaba.turbofan import checkpoint
from gaba.turbofan.losses import RUL_CAP
from gaba.turbofan.model import HIDDEN, Size

_PLACES = ("run_dir", "data_dir")
"""Where things are, not what is run: a run may be moved and then resumed."""


@final
@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a run's outcome, and where its files are.

    Attributes:
        subset: ``"FD001"`` to ``"FD004"``, or ``"simulated"``.
        method: How the losses are balanced; see :data:`gaba.turbofan.policies.METHODS`.
        size: ``"small"`` or ``"paper"``.
        seed: Decides the split, the initial parameters, the order of the windows and the dropout.
        run_dir: The folder that the run writes to.
        data_dir: The folder of the data; None looks for it.
        steps: The most optimizer steps.
        steps_per_epoch: Optimizer steps between two validations, each with a checkpoint.
        batch_size: Windows in a step.
        learning_rate: Of AdamW, after the warm-up, in which it grows linearly.
        warmup_steps: Length of that warm-up.
        weight_decay: Of AdamW.
        dropout: In the backbone; half as much in the attention and of whole inputs.
        clip: The largest norm of the gradient of all parameters.
        ema_decay: Of the averaged parameters, which are those that are validated and kept. At
            step t it is min(``ema_decay``, (1 + t)/(10 + t)).
        plateau_factor: What the learning rate is multiplied by on a plateau.
        plateau_threshold: The least improvement between epochs, relative, that is no plateau.
        plateau_patience: Epochs with less improvement than that which are no plateau yet.
        stop_patience: Epochs without any improvement after which training stops.
        rul_cap: The largest RUL label, in cycles.
        smoothing: The weight of a new reading in the average of a sensor over what its engine has
            flown so far; 1 takes the readings as they are. See :func:`gaba.turbofan.smoothed`.
        capped_share: The most that windows with a capped label may be of all, in training and in
            validation; 1 keeps every window. See :func:`gaba.turbofan.thinned`.
        nonfinite_patience: Steps in a row without a finite loss after which training gives up.
        device: A torch device.

    Raises:
        ValueError: A setting out of range.

    >>> TrainConfig(subset="FD002").steps_per_epoch
    50
    >>> TrainConfig(clip=0)
    Traceback (most recent call last):
        ...
    ValueError: clip: must be positive; got 0
    """

    subset: str = "FD001"
    method: str = "gaba"
    size: Size = "small"
    seed: int = 0
    run_dir: str | Path = "runs/turbofan"
    data_dir: str | Path | None = None
    steps: int = 500
    steps_per_epoch: int = 50
    batch_size: int = 128
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    weight_decay: float = 1e-4
    dropout: float = 0.05
    clip: float = 1.0
    ema_decay: float = 0.999
    plateau_factor: float = 0.5
    plateau_threshold: float = 0.01
    plateau_patience: int = 0
    stop_patience: int = 5
    rul_cap: float = RUL_CAP
    smoothing: float = 0.1
    capped_share: float = 0.15
    nonfinite_patience: int = 20
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in _PLACES:  # both are written to a file as text
            if isinstance(place := getattr(self, name), Path):
                object.__setattr__(self, name, str(place))
        if self.size not in HIDDEN:
            raise ValueError(f"size: must be one of {', '.join(HIDDEN)}; got {self.size!r}")
        for name in _POSITIVE:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: must be positive; got {getattr(self, name)}")
        for name in ("dropout", "ema_decay", "plateau_factor", "plateau_threshold"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"{name}: must be at least 0 and below 1; got {getattr(self, name)}"
                )
        for name in ("smoothing", "capped_share"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(
                    f"{name}: must be above 0 and at most 1; got {getattr(self, name)}"
                )
        for name in ("seed", "warmup_steps", "weight_decay", "plateau_patience"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: must be at least 0; got {getattr(self, name)}")

    def usable_device(self) -> torch.device:
        """The device of that name, on which something has been made.

        Raises:
            ValueError: It does not exist here.

        >>> TrainConfig(device="cpu").usable_device()
        device(type='cpu')
        """
        try:
            return torch.empty(0, device=self.device).device
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"device: {self.device!r} cannot be used here: {reason}") from error

    def write(self) -> None:
        """Writes ``config.json`` into ``run_dir``, which is made if it is absent."""
        Path(self.run_dir).mkdir(parents=True, exist_ok=True)
        checkpoint.write_json(Path(self.run_dir, checkpoint.CONFIG), asdict(self))

    @classmethod
    def read(cls, run_dir: str | Path) -> TrainConfig:
        """The settings of the run in ``run_dir``, wherever that folder has been moved.

        Raises:
            FileNotFoundError: There is no run.
            ValueError: ``config.json`` does not hold these settings.
        """
        path = Path(run_dir, checkpoint.CONFIG)
        if not path.is_file():
            raise FileNotFoundError(f"no run in {run_dir}: it has no {checkpoint.CONFIG}")
        try:
            found = cls(**json.loads(path.read_text(encoding="utf-8")))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path} does not hold the settings of a run: {error}") from error
        return replace(found, run_dir=str(run_dir))

    def differences(self, other: TrainConfig) -> tuple[str, ...]:
        """The names of the settings in which two runs differ, apart from where their files are.

        >>> TrainConfig().differences(TrainConfig(seed=1, run_dir="elsewhere"))
        ('seed',)
        """
        names = (f.name for f in fields(self) if f.name not in _PLACES)
        return tuple(name for name in names if getattr(self, name) != getattr(other, name))


_POSITIVE = (
    "steps",
    "steps_per_epoch",
    "batch_size",
    "learning_rate",
    "clip",
    "stop_patience",
    "rul_cap",
    "nonfinite_patience",
)
