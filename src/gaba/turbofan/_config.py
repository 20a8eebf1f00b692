"""The settings of a training run: one frozen dataclass, written as JSON beside its results."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, final

import torch

import gaba
from gaba.turbofan import checkpoint
from gaba.turbofan._checks import check
from gaba.turbofan.fleet import CMAPSS, RUL_CAP, Columns
from gaba.turbofan.model import HIDDEN, WINDOW, Size

_PLACES = ("run_dir", "data_dir")
"""Where things are, not what is run: you can move a run and then resume it."""

_VERSION = "gaba"
"""The key of the version that wrote a ``config.json``; 0.1.0 wrote none."""

_POSITIVE: dict[str, float] = {"above": 0}
_COUNT: dict[str, float] = {"least": 0}
_PART: dict[str, float] = {"least": 0, "below": 1}
_SHARE: dict[str, float] = {"above": 0, "most": 1}
_RANGES = {
    **dict.fromkeys(("steps", "steps_per_epoch", "batch_size", "learning_rate"), _POSITIVE),
    **dict.fromkeys(
        ("clip", "stop_patience", "rul_cap", "window", "nonfinite_patience"), _POSITIVE
    ),
    **dict.fromkeys(("dropout", "ema_decay", "plateau_factor", "plateau_threshold"), _PART),
    **dict.fromkeys(("smoothing", "capped_share"), _SHARE),
    **dict.fromkeys(("seed", "warmup_steps", "weight_decay", "plateau_patience"), _COUNT),
}

_RENAMED = {
    "gaba": "--method paper",
    "amnl": "--method uniform --sample-weights",
    "grace": "--method paper --sample-weights",
}
"""The methods of 0.1.0 that have another name now."""


@final
@dataclass(frozen=True)
class TrainConfig:
    """All settings of a run, and where its files are.

    Attributes:
        subset: ``"FD001"`` to ``"FD004"``, ``"simulated"``, the CSV file of your own fleet, or the
            name of a table that you give :func:`train`.
        method: A method of :data:`gaba.methods.METHODS`, such as ``"gaba"``, ``"paper"`` or
            ``"fixed:1,20"`` (for rul and health).
        sample_weights: Whether the RUL loss has the sample weights of AMNL. AMNL is that with
            ``"uniform"``, GRACE with ``"paper"``.
        size: ``"small"`` or ``"paper"``.
        seed: Decides the split, the initial parameters, the order of the windows and the dropout.
        run_dir: The folder of the run.
        data_dir: The folder of the data; None looks for it.
        steps: The most optimizer steps.
        steps_per_epoch: Optimizer steps between two validations, each with a checkpoint.
        batch_size: Windows in a step.
        learning_rate: Of AdamW, after the linear warm-up.
        warmup_steps: Length of the warm-up.
        weight_decay: Of AdamW.
        dropout: In the backbone; half of it in the attention and on whole inputs.
        clip: The largest norm of the gradient of all parameters.
        ema_decay: Of the averaged parameters, which are validated and kept. At step t it is
            min(``ema_decay``, (1 + t)/(10 + t)).
        plateau_factor: Multiplies the learning rate on a plateau.
        plateau_threshold: The least relative improvement between epochs that is no plateau.
        plateau_patience: Epochs with less improvement before the learning rate falls.
        stop_patience: Epochs without any improvement after which training stops.
        rul_cap: The largest RUL label, in cycles.
        window: The cycles that the model sees.
        columns: Which columns hold what; by default those of C-MAPSS.
        conditions: How many operating conditions to look for, or ``"auto"``; see
            :meth:`gaba.turbofan.normalise.Normaliser.fit`.
        smoothing: The weight of a new reading in the running average of a sensor; 1 takes the
            readings as they are. See :func:`gaba.turbofan.smoothed`.
        capped_share: The largest share of windows with a capped label, in training and validation;
            1 keeps every window. See :func:`gaba.turbofan.thinned`.
        nonfinite_patience: Steps in a row without a finite loss after which training gives up.
        device: A torch device.

    Raises:
        ValueError: A setting is out of range.

    >>> TrainConfig(subset="FD002").method
    'gaba'
    >>> TrainConfig(clip=0)
    Traceback (most recent call last):
        ...
    ValueError: clip must be above 0, found 0
    """

    subset: str = "FD001"
    method: str = "gaba"
    sample_weights: bool = False
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
    window: int = WINDOW
    columns: Columns = CMAPSS
    conditions: int | Literal["auto"] = "auto"
    smoothing: float = 0.1
    capped_share: float = 0.15
    nonfinite_patience: int = 20
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in _PLACES:  # both are written to a file as text
            if isinstance(place := getattr(self, name), Path):
                object.__setattr__(self, name, str(place))
        if isinstance(self.columns, dict):  # read from a file
            object.__setattr__(self, "columns", Columns(**self.columns))
        path = Path(self.subset)
        if path.suffix == ".csv" and path.name != self.subset and self.data_dir is None:
            object.__setattr__(self, "data_dir", str(path.parent))
            object.__setattr__(self, "subset", path.name)
        if self.conditions != "auto":
            check("conditions", self.conditions, above=0)
            if self.conditions > 1 and not self.columns.settings:
                raise ValueError(
                    f"conditions must be 1 or 'auto' without settings, found {self.conditions}: "
                    "name the settings that tell the conditions apart"
                )
        for name, bounds in _RANGES.items():
            check(name, getattr(self, name), **bounds)
        if self.size not in HIDDEN:
            raise ValueError(f"size must be one of {', '.join(HIDDEN)}, found {self.size!r}")
        if self.method in ("amnl", "grace"):
            raise ValueError(f"method {self.method!r} is now called {_RENAMED[self.method]}")
        gaba.methods.find(self.method)

    def usable_device(self) -> torch.device:
        """The device of that name, after a tensor was made there.

        Raises:
            ValueError: This machine does not have it.

        >>> TrainConfig(device="cpu").usable_device()
        device(type='cpu')
        """
        try:
            return torch.empty(0, device=self.device).device
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"device {self.device!r} cannot be used here: {reason}") from error

    def write(self) -> None:
        """Write ``config.json`` into ``run_dir``, and make that folder if it is absent."""
        Path(self.run_dir).mkdir(parents=True, exist_ok=True)
        settings = {_VERSION: gaba.__version__, **asdict(self)}
        checkpoint.write_json(Path(self.run_dir, checkpoint.CONFIG), settings)

    @classmethod
    def read(cls, run_dir: str | Path) -> TrainConfig:
        """The settings of the run in ``run_dir``, even if that folder was moved.

        Raises:
            FileNotFoundError: There is no run.
            ValueError: ``config.json`` does not hold these settings, or is of gaba 0.1.0.
        """
        path = Path(run_dir, checkpoint.CONFIG)
        if not path.is_file():
            raise FileNotFoundError(f"no run in {run_dir}: it has no {checkpoint.CONFIG}")
        try:
            settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if settings.pop(_VERSION, None) is None and "method" in settings:
                old = settings["method"]
                raise ValueError(
                    f"it is of gaba 0.1.0, which called the method {old!r}; train again with "
                    f"{_RENAMED.get(old, f'--method {old}')}"
                )
            found = cls(**settings)
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(f"{path} does not hold the settings of a run: {error}") from error
        return replace(found, run_dir=str(run_dir))

    def differences(self, other: TrainConfig) -> tuple[str, ...]:
        """The names of the settings in which two runs differ, apart from where their files are.

        >>> TrainConfig().differences(TrainConfig(seed=1, run_dir="elsewhere"))
        ('seed',)
        """
        names = (f.name for f in fields(self) if f.name not in _PLACES)
        return tuple(name for name in names if getattr(self, name) != getattr(other, name))
