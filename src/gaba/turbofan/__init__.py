"""Turbofan prognostics on NASA C-MAPSS: remaining useful life and health class from one network.

>>> from gaba import turbofan
>>> turbofan.TrainConfig(subset="FD002").method
'gaba'
"""

from gaba.turbofan._config import TrainConfig
from gaba.turbofan.data import load
from gaba.turbofan.evaluate import Predictions, evaluate, predict
from gaba.turbofan.fleet import Fleet
from gaba.turbofan.losses import TASKS, Batch, losses
from gaba.turbofan.model import TurbofanNet
from gaba.turbofan.train import Epoch, TrainingDivergedError, TrainResult, train
from gaba.turbofan.windows import HEALTH, Prepared, Windows, prepare, smoothed, thinned

__all__ = [
    "HEALTH",
    "TASKS",
    "Batch",
    "Epoch",
    "Fleet",
    "Predictions",
    "Prepared",
    "TrainConfig",
    "TrainResult",
    "TrainingDivergedError",
    "TurbofanNet",
    "Windows",
    "evaluate",
    "load",
    "losses",
    "predict",
    "prepare",
    "smoothed",
    "thinned",
    "train",
]
