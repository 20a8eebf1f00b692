"""Turbofan prognostics on NASA C-MAPSS: remaining useful life and health class from one network.

>>> from gaba import turbofan
>>> turbofan.TrainConfig(subset="FD002", method="inverse").seed
0
"""

from gaba.turbofan.data import Fleet, load
from gaba.turbofan.evaluate import Predictions, evaluate, predict
from gaba.turbofan.losses import TASKS, Batch, losses
from gaba.turbofan.model import TurbofanNet
from gaba.turbofan.policies import METHODS, Policy, policy
from gaba.turbofan.train import Epoch, TrainConfig, TrainingDivergedError, TrainResult, train
from gaba.turbofan.windows import HEALTH, Prepared, Windows, prepare, smoothed, thinned

__all__ = [
    "HEALTH",
    "METHODS",
    "TASKS",
    "Batch",
    "Epoch",
    "Fleet",
    "Policy",
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
    "policy",
    "predict",
    "prepare",
    "smoothed",
    "thinned",
    "train",
]
