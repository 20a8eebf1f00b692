"""Turbofan prognostics on NASA C-MAPSS: remaining useful life and health class from one network.

>>> from gaba import turbofan
>>> turbofan.TrainConfig(subset="FD002").method
'gaba'
"""

from gaba.turbofan._config import TrainConfig
from gaba.turbofan.data import load
from gaba.turbofan.engines import read_engines
from gaba.turbofan.evaluate import Predictions, evaluate, predict
from gaba.turbofan.finished import Run, open_run
from gaba.turbofan.fleet import CMAPSS, Columns, Fleet
from gaba.turbofan.interval import Interval
from gaba.turbofan.losses import TASKS, Batch, losses
from gaba.turbofan.model import TurbofanNet
from gaba.turbofan.own import own_fleet
from gaba.turbofan.train import Epoch, TrainingDivergedError, TrainResult, train
from gaba.turbofan.windows import HEALTH, Prepared, Windows, prepare, smoothed, thinned

__all__ = [
    "CMAPSS",
    "HEALTH",
    "TASKS",
    "Batch",
    "Columns",
    "Epoch",
    "Fleet",
    "Interval",
    "Predictions",
    "Prepared",
    "Run",
    "TrainConfig",
    "TrainResult",
    "TrainingDivergedError",
    "TurbofanNet",
    "Windows",
    "evaluate",
    "load",
    "losses",
    "open_run",
    "own_fleet",
    "predict",
    "prepare",
    "read_engines",
    "smoothed",
    "thinned",
    "train",
]
